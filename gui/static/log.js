// The log as it grows. It follows its end until the reader scrolls up, and rests while the page is in the background.

const pane = document.querySelector("[data-log]");
const follow = document.querySelector("[data-follow]");
const search = document.querySelector("[data-search]");
const MOST = 5000;
let lines = [];
let after = "";
let source = null;
let queued = false;

function draw() {
  queued = false;
  const wanted = search.value.toLowerCase();
  const shown = wanted ? lines.filter((line) => line.toLowerCase().includes(wanted)) : lines;
  pane.textContent = shown.join("\n") || (wanted ? "No line holds this." : "Nothing printed yet.");
  if (follow.checked) pane.scrollTop = pane.scrollHeight;
}

function later() {
  if (!queued) requestAnimationFrame(draw);
  queued = true;
}

function listen() {
  const words = after ? `?after=${encodeURIComponent(after)}` : "";
  source = new EventSource(pane.dataset.log + words);
  let first = !after;
  source.onmessage = (event) => {
    if (first) lines = []; // the page's own copy of the log gives way to the whole
    first = false;
    after = event.lastEventId;
    lines.push(event.data);
    if (lines.length > MOST) lines = lines.slice(-MOST);
    later();
  };
  source.addEventListener("end", () => rest("ended"));
}

function rest(why) {
  source?.close();
  source = null;
  if (why === "ended") document.removeEventListener("visibilitychange", turn);
}

function turn() {
  if (document.hidden) rest("hidden");
  else if (!source) listen();
}

for (const tool of [follow, search]) tool.closest("label").hidden = false;
lines = pane.textContent.split("\n");
pane.scrollTop = pane.scrollHeight;
search.addEventListener("input", later);
follow.addEventListener("change", later);
pane.addEventListener("scroll", () => {
  const atEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 24;
  if (!queued) follow.checked = atEnd;
});
document.addEventListener("visibilitychange", turn);
if (!document.hidden) listen();
