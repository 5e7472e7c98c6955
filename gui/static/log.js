// The log, however long: its end as the page came, new lines as they are printed, others by pages, and the whole searched by the server.
import { size } from "./figures.js";

const pane = document.querySelector("[data-log]");
const list = pane.querySelector("code");
const section = pane.closest("section");
const tool = (name) => section.querySelector(`[data-${name}]`);
const [follow, search, said] = ["follow", "search", "said"].map(tool);
const MOST = 5000; // lines that the page holds; the others stay on the server
const LINES = 1000;
const PAGES = 20; // of so many lines the reader of a part has, at most
const NOBODY = "Nothing answers at the moment: try again.";
const found = Object.assign(document.createElement("ol"), { className: "hits", hidden: true });
let lines = list.textContent ? list.textContent.split("\n") : [];
let start = Number(pane.dataset.start);
let after = Number(pane.dataset.end);
let waiting = [];
let source = null;
let retry = 1000;
let busy = false;
let away = false; // the page shows a place in the middle of the log, up to the byte `after`

const ask = async (what, words) => {
  const answer = await fetch(`${pane.dataset.log}/${what}?${new URLSearchParams(words)}`);
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.json();
};

function show() {
  list.textContent = lines.join("\n") || "Nothing printed yet.";
  tool("earlier").hidden = start === 0;
}

function atEnd() {
  return pane.scrollHeight - pane.scrollTop - pane.clientHeight < 24;
}

/** Of too many lines the first ones go. */
function shorten(most) {
  const gone = lines.slice(0, -most);
  if (!gone.length) return;
  start += new TextEncoder().encode(gone.join("\n")).length + 1;
  lines = lines.slice(-most);
  show();
}

/** New lines are joined on once a frame: a log that pours does not stop the page. */
function add(line) {
  if (!waiting.length) requestAnimationFrame(join);
  waiting.push(line);
}

function join() {
  const fresh = waiting;
  waiting = [];
  tool("size").textContent = size(after);
  if (away) return;
  append(fresh);
  if (follow.checked) shorten(MOST);
  else if (lines.length > MOST) {
    away = true; // a reader who has stopped to read keeps what is there, and comes to the others by scrolling
    rest();
  }
  if (follow.checked) pane.scrollTop = pane.scrollHeight;
}

function append(fresh) {
  if (!lines.length) list.textContent = "";
  list.append((lines.length ? "\n" : "") + fresh.join("\n"));
  lines.push(...fresh);
}

function listen() {
  if (source || away) return;
  source = new EventSource(`${pane.dataset.log}/stream?after=${after}`);
  source.onopen = () => (retry = 1000);
  source.onmessage = (event) => {
    after = Number(event.lastEventId);
    add(event.data);
  };
  source.addEventListener("end", () => {
    rest();
    pane.dataset.ended = "yes";
  });
  source.onerror = () => {
    if (source?.readyState !== EventSource.CLOSED) return; // the browser itself tries again
    rest(); // it was answered with a refusal: until it is not, what is new is asked for
    catchUp();
    setTimeout(listen, (retry = Math.min(retry * 2, 15_000)));
  };
}

function rest() {
  source?.close();
  source = null;
}

async function catchUp() {
  if (away || waiting.length) return;
  try {
    const part = await ask("part", { after, lines: LINES });
    if (away || part.start !== after || !part.lines.length) return;
    after = part.end;
    part.lines.forEach(add);
  } catch {
    // nothing answers: the next try may be answered
  }
}

async function earlier() {
  if (busy || start === 0) return;
  busy = true;
  try {
    const part = await ask("part", { before: start, lines: LINES });
    const height = pane.scrollHeight;
    lines = [...part.lines, ...lines];
    start = part.start;
    follow.checked = false;
    show();
    pane.scrollTop += pane.scrollHeight - height;
  } catch {
    said.textContent = NOBODY;
  }
  busy = false;
}

/** From a place in the middle on; at the last line new ones follow by themselves again. */
async function later() {
  if (busy || !away) return;
  busy = true;
  try {
    const part = await ask("part", { after, lines: LINES });
    if (away && part.start === after) goOn(part);
  } catch {
    said.textContent = NOBODY;
  }
  busy = false;
}

function goOn(part) {
  const fromEnd = pane.scrollHeight - pane.scrollTop;
  shorten(PAGES * LINES);
  pane.scrollTop = pane.scrollHeight - fromEnd;
  if (part.lines.length) append(part.lines);
  reach(part.end, part.lines.length > 0 && part.end < part.size);
}

/** Up to which byte the page shows the log, and whether there is more behind it. */
function reach(end, more) {
  [after, away] = [end, more];
  said.textContent = away ? "This is a place in the middle: scroll on from here, or tick Follow for the end." : "";
  if (!away && pane.dataset.ended === "no") listen();
}

/** The end again, and followed. */
async function toEnd() {
  rest();
  const part = await ask("part", { lines: LINES });
  [lines, start] = [part.lines, part.start];
  show();
  reach(part.end, false);
  pane.scrollTop = pane.scrollHeight;
}

/** A place in the middle: the lines from a byte on, with some before it. */
async function goTo(at) {
  rest();
  const [before, behind] = await Promise.all([ask("part", { before: at, lines: 20 }), ask("part", { after: at, lines: LINES })]);
  [lines, start] = [[...before.lines, ...behind.lines], before.start];
  follow.checked = false;
  found.hidden = true;
  pane.hidden = false;
  show();
  reach(behind.end, behind.end < behind.size);
  pane.scrollTop = (pane.scrollHeight * before.lines.length) / Math.max(1, lines.length);
}

function marked(line, word) {
  const at = line.toLowerCase().indexOf(word.toLowerCase());
  const mark = Object.assign(document.createElement("mark"), { textContent: line.slice(at, at + word.length) });
  return at < 0 ? [line] : [line.slice(0, at), mark, line.slice(at + word.length)];
}

async function look() {
  const word = search.value.trim();
  found.hidden = !word;
  pane.hidden = Boolean(word);
  if (!word) return (said.textContent = "");
  try {
    const { hits, more } = await ask("search", { word });
    if (word !== search.value.trim()) return; // typed on meanwhile
    found.replaceChildren(...hits.map((hit) => {
      const button = document.createElement("button");
      button.append(...marked(hit.line, word));
      button.addEventListener("click", () => goTo(hit.at).catch(() => (said.textContent = NOBODY)));
      const row = document.createElement("li");
      row.append(button);
      return row;
    }));
    said.textContent = hits.length ? `${more ? `The last ${hits.length} lines` : hits.length === 1 ? "One line" : `${hits.length} lines`} with “${word}”` : `No line holds “${word}”.`;
    found.scrollTop = found.scrollHeight;
  } catch {
    said.textContent = NOBODY;
  }
}

let typed = 0;
for (const element of [follow, search]) element.closest("label").hidden = false;
pane.after(found);
show();
pane.scrollTop = pane.scrollHeight;
search.addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(look, 200);
});
follow.addEventListener("change", () => {
  if (!follow.checked) return;
  search.value = "";
  found.hidden = true;
  pane.hidden = false;
  toEnd().catch(() => (said.textContent = NOBODY));
});
tool("earlier").addEventListener("click", earlier);
pane.addEventListener("scroll", () => {
  if (pane.scrollTop < 40 && start > 0 && lines.length < PAGES * LINES && pane.scrollHeight > pane.clientHeight + 80) earlier();
  if (!atEnd()) follow.checked = false;
  else later();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) rest();
  else if (pane.dataset.ended === "no") (follow.checked ? toEnd() : Promise.resolve(listen())).catch(listen);
});
if (pane.dataset.ended === "no" && !document.hidden) listen();
