// A job as it learns: live events move the figures, the curves and the previews in place.
import { Curves, look, reach } from "./curves.js";
import { duration, size } from "./figures.js";
import { layers } from "./layers.js";
import { ask, lost, swap } from "./refresh.js";

const { status: first, classes } = JSON.parse(document.getElementById("job-data").textContent);
const ENDED = ["finished", "stopped", "failed"];
const LOAD_EVERY = 3000;
const CHECK_EVERY = 15_000;
const head = () => document.querySelector("[data-job]");
const live = (name) => document.querySelector(`[data-live=${name}]`);
const tools = document.querySelectorAll("[data-curve-tools]");
let last = first;
let source = null;
let retry = 1000;
let spoken = first.history.length;
let curves = null;
let pictures = null;

function say(name, text) {
  const place = live(name);
  if (place && place.textContent !== text) place.textContent = text;
}

function progress(status) {
  if (status.epoch) say("epoch", `epoch ${status.epoch} of ${status.epochs}`);
  say("left", status.seconds_left === null || status.state !== "training" ? "" : `${duration(status.seconds_left)} left`);
  if (live("left") && status.seconds_left !== null) live("left").title = `about ${new Date(Date.now() + status.seconds_left * 1000).toLocaleTimeString()}`;
  say("stage", ["training", status.state].includes(status.stage) ? "" : status.stage.replace(/^queued, /, ""));
  say("device", status.device || "–");
  if (status.pictures_per_second !== null) say("speed", status.pictures_per_second.toFixed(1));
  const done = status.epochs ? (status.epoch - 1 + (status.steps ? status.step / status.steps : 0)) / status.epochs : 0;
  const bar = head().querySelector(".bar");
  const percent = Math.max(0, Math.min(100, done * 100));
  bar?.firstElementChild.style.setProperty("width", `${percent.toFixed(1)}%`);
  bar?.setAttribute("aria-valuenow", Math.round(percent));
}

/** A screen reader hears of each epoch, not of each step. */
function speak(status) {
  const score = status.history.at(-1)?.mean_iou;
  if (status.history.length === spoken) return;
  spoken = status.history.length;
  say("spoken", `Epoch ${spoken} of ${status.epochs}${score == null ? "" : `, mIoU ${score.toFixed(3)}`}`);
}

/** The loss above, below it what the validation pictures say; every line is named at its end. */
function figure(status) {
  const epochs = (value) => status.history.map((scores) => [scores.epoch, value(scores)]).filter(([, y]) => y !== null && y !== undefined);
  const line = (name, key, colour, value, more = {}) => ({ name, key, colour, points: epochs(value), ...more });
  const ofClasses = classes.map(({ name, colour }) => line(name, `class ${name}`, colour || look("quiet"), (scores) => scores.iou_per_class[name]));
  const scores = [...ofClasses, line("pixels right", "pixels", look("quiet"), (scores) => scores.pixel_accuracy, { dash: "3 4" }), line("mIoU", "mIoU", look("ink"), (scores) => scores.mean_iou, { wide: true })];
  const best = status.best;
  return {
    label: `Curves: loss, and scores of the validation pictures, over ${status.history.length} epochs`,
    x: "epoch",
    reach: [Math.min(1, status.history[0].epoch), reach(status.history.at(-1).epoch, status.epochs, status.ended)],
    marks: best ? [{ x: best.epoch, text: `best ${(best.mean_iou ?? 0).toFixed(3)}` }] : [],
    panels: [
      { title: "loss", share: 0.34, range: null, log: true, lines: [line("loss", "loss", look("accent"), (scores) => scores.loss, { wide: true })] },
      { title: "IoU of the validation pictures", share: 0.66, range: [0, 1], lines: scores.filter((row) => row.points.length) },
    ],
  };
}

function draw(status) {
  if (!status.history.length) return;
  if (!curves) {
    for (const tool of tools) tool.hidden = false;
    curves = new Curves(document.querySelector("[data-curves]"), tools[0]);
  }
  curves.show(figure(status));
}

/** Pointing at a class lets the other curves stand back, wherever its name is. */
function key(target) {
  const row = target.closest?.("[data-key], [data-class]");
  const name = row?.dataset.key ?? classes[row?.dataset.class]?.name;
  return name === undefined ? null : `class ${name}`;
}

/** What the server words anew, and whether it did; where it does not answer just now, the next event brings it. */
const renew = (ids) => swap(location.href, ids).then(() => true, () => false);

/** Whether something changed that decides which buttons and notes there are. */
function changed(before, status) {
  return status.state !== before.state || status.warnings.length !== before.warnings.length || !status.best !== !before.best;
}

async function show(status) {
  const before = last;
  last = status;
  const scored = status.history.length !== before.history.length;
  if (scored || changed(before, status)) await renew(["head", "scores", ...(status.pictures.length && !pictures ? ["previews"] : [])]);
  progress(last);
  speak(last);
  pictures ??= layers(document.querySelector("#previews [data-viewer]"));
  pictures?.show(last.previews);
  if (scored || status.ended !== before.ended) draw(last);
}

/** A status that goes on: of its long lists only what is new has come. */
function grown({ history_from, previews_from, history, previews, ...rest }) {
  return { ...rest, history: [...last.history.slice(0, history_from), ...history], previews: [...last.previews.slice(0, previews_from), ...previews] };
}

/** One after the other: while the server words something anew, later news wait. */
let queue = Promise.resolve();
const take = (status) => (queue = queue.then(() => show(status())).catch(() => undefined));

function listen() {
  if (source) return;
  source = new EventSource(head().dataset.events);
  source.addEventListener("status", (event) => take(() => JSON.parse(event.data)));
  source.addEventListener("news", (event) => take(() => grown(JSON.parse(event.data))));
  source.addEventListener("end", () => {
    rest();
    queue = queue.then(stay);
  });
  source.onopen = () => {
    lost(false);
    retry = 1000;
  };
  source.onerror = () => {
    lost(true);
    if (source?.readyState !== EventSource.CLOSED) return; // the browser itself tries again
    rest(); // it was answered with a refusal: the services start again, a session has ended, or too many follow jobs
    catchUp();
    setTimeout(() => document.hidden || listen(), (retry = Math.min(retry * 2, 15_000)));
  };
}

/** Where no events are to be had: the whole status, as the page itself has it. */
async function catchUp() {
  try {
    const answer = await ask(location.href);
    if (answer.status === 404) return location.reload(); // deleted meanwhile: the page says so
    const data = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("job-data");
    if (data) take(() => JSON.parse(data.textContent).status);
  } catch {
    // nothing answers, and the page says so
  }
}

function rest() {
  source?.close();
  source = null;
}

/** A browser has few connections to one address: a page that nobody sees gives its own back. */
function pause() {
  if (document.hidden) rest();
  else if (!ENDED.includes(last.state)) listen();
}

/** After the end: a job may be resumed, or deleted, elsewhere, and whoever looks at its page is told. */
function stay() {
  document.removeEventListener("visibilitychange", pause);
  document.addEventListener("visibilitychange", check);
  setInterval(check, CHECK_EVERY);
}

async function check() {
  if (!document.hidden && (await renew(["head"])) && head().dataset.state !== last.state) location.reload();
}

/** What the job takes of the machine: two looks give its share of the processors. */
let looked = null;
async function load() {
  if (ENDED.includes(last.state)) {
    document.querySelector("[data-load]")?.setAttribute("hidden", "");
    return;
  }
  if (!document.hidden) {
    try {
      const answer = await fetch(head().dataset.usage);
      const now = answer.ok && (await answer.json());
      const place = document.querySelector("[data-load]");
      if (now && place) {
        place.hidden = false;
        const cores = looked ? Math.max(0, (now.cpu_seconds - looked.cpu_seconds) / (now.at - looked.at)) : null;
        meter("cpu", cores === null ? "…" : `${cores.toFixed(1)} of ${now.cores} cores`, (cores ?? 0) / now.cores);
        meter("memory", `${size(now.memory_bytes)} of ${size(now.memory_total)} memory`, now.memory_bytes / now.memory_total);
        gpus(now.gpus);
        looked = now;
      }
    } catch {
      looked = null;
    }
  }
  setTimeout(load, LOAD_EVERY);
}

/** How busy and how full its GPUs are; some do not tell the first. */
function gpus(rows) {
  const place = document.querySelector("[data-gpus]");
  for (const name of rows.map((gpu) => `gpu-${gpu.id}`)) {
    if (live(name)) continue;
    const row = Object.assign(document.createElement("span"), { className: "load" });
    row.append(document.createElement("span"), Object.assign(document.createElement("span"), { className: "meter" }));
    row.firstChild.dataset.live = name;
    row.lastChild.append(document.createElement("span"));
    row.lastChild.firstChild.dataset.meter = name;
    place.append(row);
  }
  for (const { id, load, memory_total, memory_free } of rows) {
    const taken = `${size(memory_total - memory_free)} of ${size(memory_total)}`;
    meter(`gpu-${id}`, `GPU ${id}: ${load === null ? "" : `${load} % busy, `}${taken}`, load === null ? 1 - memory_free / memory_total : load / 100);
  }
}

function meter(name, text, share) {
  say(name, text);
  document.querySelector(`[data-meter=${name}]`).style.width = `${Math.min(100, share * 100).toFixed(1)}%`;
}

for (const type of ["pointerover", "focusin"]) document.addEventListener(type, (event) => curves?.dim(key(event.target)));
pictures = layers(document.querySelector("#previews [data-viewer]"));
pictures?.show(first.previews);
draw(first);
if (ENDED.includes(first.state)) stay();
else {
  document.addEventListener("visibilitychange", pause);
  if (!document.hidden) listen();
  load();
}
