// A job as it learns: live events move the figures, the curves and the previews in place.
import { duration } from "./figures.js";
import { draw } from "./curves.js";
import { swap } from "./refresh.js";
import { open } from "./viewer.js";

const { status: first, classes } = JSON.parse(document.getElementById("job-data").textContent);
const head = () => document.querySelector("[data-job]");
const live = (name) => document.querySelector(`[data-live=${name}]`);
const figure = document.querySelector("[data-sheets]");
const slider = figure.querySelector(".epochs input");
let last = first;
let source = null;
let spoken = 0;

function say(name, text) {
  const place = live(name);
  if (place && place.textContent !== text) place.textContent = text;
}

function progress(status) {
  if (status.epoch) say("epoch", `epoch ${status.epoch} of ${status.epochs}`);
  say("left", status.seconds_left === null || status.state !== "training" ? "" : `${duration(status.seconds_left)} left`);
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

function previews(status) {
  const files = status.previews;
  if (!files.length) return;
  const latest = Number(slider.value) === Number(slider.max);
  slider.closest("label").hidden = files.length < 2;
  slider.max = files.length - 1;
  if (latest) slider.value = slider.max;
  turn(files);
}

function turn(files) {
  const file = files[Number(slider.value)];
  const image = figure.querySelector(".base");
  const address = head().dataset.previews.replace("FILE", encodeURIComponent(file));
  figure.querySelector("output").textContent = Number(file.match(/\d+/)?.[0] ?? 0);
  if (image.getAttribute("src") !== address) image.src = address;
  image.hidden = false;
  figure.querySelector(".stage .empty").hidden = true;
}

/** What the server words anew; where it does not answer just now, the next event brings it. */
const renew = (ids) => swap(location.href, ids).catch(() => undefined);

/** Whether something changed that decides which buttons and notes there are. */
function changed(before, status) {
  return status.state !== before.state || status.warnings.length !== before.warnings.length || !status.best !== !before.best;
}

async function take(status) {
  const before = last;
  last = status;
  if (changed(before, status)) await renew(["head", "scores"]);
  else if (status.history.length !== before.history.length) await renew(["scores"]);
  progress(status);
  speak(status);
  previews(status);
  if (status.history.length !== before.history.length || status.ended !== before.ended) draw(status, classes);
}

function listen() {
  source = new EventSource(head().dataset.events);
  source.addEventListener("status", (event) => take(JSON.parse(event.data)));
  source.addEventListener("end", () => {
    source.close();
    document.removeEventListener("visibilitychange", pause);
  });
  source.onopen = () => (document.querySelector("[data-lost]").hidden = true);
  source.onerror = () => (document.querySelector("[data-lost]").hidden = false);
}

/** A browser has few connections to one address: a page that nobody sees gives its own back. */
function pause() {
  if (document.hidden) source?.close();
  else listen();
}

slider.addEventListener("input", () => turn(last.previews));
figure.querySelector(".stage").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  slider.value = Number(slider.value) + step;
  turn(last.previews);
});
open(figure);
previews(first);
spoken = first.history.length;
draw(first, classes);
for (const change of ["(prefers-color-scheme: dark)"]) matchMedia(change).addEventListener("change", () => draw(last, classes));
if (!["finished", "stopped", "failed"].includes(first.state)) {
  document.addEventListener("visibilitychange", pause);
  if (!document.hidden) listen();
}
