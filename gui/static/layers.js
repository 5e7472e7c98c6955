// A job's validation pictures: picture, truth, estimate and difference side by side; a slider goes through the epochs.
import { open } from "./viewer.js";

const RIGHT = [34, 139, 34, 255];
const WRONG = [220, 38, 38, 255];
const IGNORED = 1; // how clear a truth is that is to be ignored, of 255

async function pixels(address) {
  const image = Object.assign(new Image(), { src: address });
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** Wrong pixels red, right ones of any class but the first green. */
async function difference(canvas, truthAt, estimateAt) {
  const [truth, estimate] = await Promise.all([pixels(truthAt), pixels(estimateAt)]);
  const seen = new ImageData(truth.width, truth.height);
  const [t, e] = [new Uint32Array(truth.data.buffer), new Uint32Array(estimate.data.buffer)];
  for (let at = 0; at < t.length; at += 1) {
    const alpha = truth.data[at * 4 + 3];
    if (alpha === IGNORED) continue;
    if (t[at] !== e[at]) seen.data.set(WRONG, at * 4);
    else if (alpha) seen.data.set(RIGHT, at * 4);
  }
  if (canvas.dataset.wanted !== estimateAt) return; // moved on meanwhile
  Object.assign(canvas, { width: truth.width, height: truth.height });
  canvas.getContext("2d").putImageData(seen, 0, 0);
}

/** Makes the figure of previews live; `show` tells it of all sheets there are. Null where the page has none. */
export function layers(figure) {
  if (!figure || figure.dataset.live) return null;
  figure.dataset.live = "yes";
  const sheets = !figure.dataset.layers;
  const slider = figure.querySelector(".epochs input");
  const one = (name) => figure.querySelector(name);
  const base = figure.querySelector("img.base").src;
  const address = (file) => (sheets ? base.replace(/[^/]+$/, encodeURIComponent(file)) : figure.dataset.layers.replace("FILE", encodeURIComponent(file)));
  let files = [];
  let picture = 0;

  function layer(image, at) {
    delete image.dataset.whole;
    if (image.getAttribute("src") !== at) image.src = at;
  }

  function turn() {
    const file = files[Number(slider.value)];
    if (!file) return;
    one("output").textContent = Number(file.match(/\d+/)?.[0] ?? 0);
    if (sheets) return layer(one("img.base"), address(file));
    const [truth, estimate] = [address(`truth-${picture}.png`), address(file.replace(/\.jpg$/, `-${picture}.png`))];
    for (const image of figure.querySelectorAll("img.base")) layer(image, address(`picture-${picture}.jpg`));
    layer(one("img[data-truth]"), truth);
    layer(one("img[data-estimate]"), estimate);
    const canvas = one("canvas[data-wrong]");
    canvas.dataset.wanted = estimate;
    difference(canvas, truth, estimate).catch(() => undefined); // a picture that is not there leaves the last one
  }

  function step(by) {
    slider.value = Number(slider.value) + by;
    turn();
  }

  slider.addEventListener("input", turn);
  for (const stage of figure.querySelectorAll(".stage")) {
    stage.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      step(by);
    });
  }
  for (const button of figure.querySelectorAll("[data-picture]")) {
    button.addEventListener("click", () => {
      picture = Number(button.dataset.picture);
      for (const other of figure.querySelectorAll("[data-picture]")) other.setAttribute("aria-pressed", String(other === button));
      turn();
    });
  }
  for (const row of figure.querySelectorAll(".legend [data-class]")) row.tabIndex = 0;
  const choose = one(".choose");
  if (choose) choose.hidden = choose.children.length < 2;
  for (const element of figure.querySelectorAll("[data-needs-script]")) element.hidden = false;
  open(figure);

  return {
    show(known) {
      if (!known.length) return;
      const latest = Number(slider.value) === Number(slider.max);
      files = known;
      slider.closest("label").hidden = files.length < 2;
      slider.max = files.length - 1;
      if (latest) slider.value = slider.max;
      if (latest || !one("output").textContent) turn();
    },
  };
}
