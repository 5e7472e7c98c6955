// The one viewer: wheel, pinch, + or - zooms, dragging or Shift with an arrow moves, a double click or 0 puts back; o hides the mask
// while held; arrow keys step.

const FARTHEST = 16;
const KEYS = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, 0: 1 / FARTHEST };
const MOVES = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const STEP = 40;

/** Makes a figure[data-viewer] live: all its stages show the same part of the picture. Harmless when called twice. */
export function open(figure) {
  if (figure.dataset.open) return;
  figure.dataset.open = "yes";
  const stages = figure.querySelectorAll(".stage");
  const view = { x: 0, y: 0, scale: 1 };
  const show = () => {
    for (const stage of stages) {
      for (const layer of stage.querySelectorAll("img, canvas")) {
        layer.style.transform = view.scale === 1 ? "" : `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
        layer.classList.toggle("sharp", view.scale > 3);
      }
      stage.classList.toggle("zoomed", view.scale > 1);
    }
  };
  for (const stage of stages) zoomable(stage, view, show);
  opacity(figure);
  dimming(figure);
}

function zoomable(stage, view, show) {
  const fingers = new Map();
  const zoom = (x, y, factor) => {
    const scale = Math.min(FARTHEST, Math.max(1, view.scale * factor));
    view.x = x - ((x - view.x) * scale) / view.scale;
    view.y = y - ((y - view.y) * scale) / view.scale;
    view.scale = scale;
    keepInside();
  };
  const keepInside = () => {
    const { width, height } = stage.getBoundingClientRect();
    view.x = Math.min(0, Math.max(view.x, width * (1 - view.scale)));
    const content = stage.querySelector("img.base")?.offsetHeight ?? height;
    view.y = Math.min(0, Math.max(view.y, height - content * view.scale));
    show();
  };
  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  stage.addEventListener("wheel", (event) => {
    // At rest the page scrolls as everywhere; with Ctrl, or once zoomed, the wheel belongs to the picture.
    if (!event.ctrlKey && view.scale === 1 && document.activeElement !== stage) return;
    event.preventDefault();
    const { x, y } = place(event);
    zoom(x, y, Math.exp(-event.deltaY / 300));
  }, { passive: false });
  const keyed = (event) => {
    const [factor, move] = [KEYS[event.key], event.shiftKey && view.scale > 1 && MOVES[event.key]];
    if (event.ctrlKey || event.metaKey || event.altKey || !(factor || move)) return;
    event.preventDefault();
    event.stopPropagation();
    if (factor) return zoom(stage.clientWidth / 2, stage.clientHeight / 2, factor);
    view.x += move[0] * STEP;
    view.y += move[1] * STEP;
    keepInside();
  };
  stage.addEventListener("keydown", keyed, { capture: true }); // before what else an arrow key does here
  stage.addEventListener("dblclick", (event) => {
    const { x, y } = place(event);
    zoom(x, y, view.scale > 1 ? 1 / view.scale : 3);
  });
  stage.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, place(event));
    if (view.scale > 1 || fingers.size > 1) stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = place(event);
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    fingers.set(event.pointerId, now);
    if (other) {
      const span = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
      zoom((now.x + other.x) / 2, (now.y + other.y) / 2, span(now) / span(before));
    } else if (view.scale > 1) {
      view.x += now.x - before.x;
      view.y += now.y - before.y;
      keepInside();
    }
  });
  for (const end of ["pointerup", "pointercancel", "pointerleave"]) stage.addEventListener(end, (event) => fingers.delete(event.pointerId));
  for (const image of stage.querySelectorAll("img")) image.draggable = false;
}

function opacity(figure) {
  const label = figure.querySelector(".opacity");
  const overs = figure.querySelectorAll(".stage .over");
  if (!label || !overs.length) return;
  const slider = label.querySelector("input");
  label.hidden = false;
  const set = (value) => overs.forEach((over) => (over.style.opacity = value));
  slider.addEventListener("input", () => set(slider.value / 100));
  addEventListener("keydown", (event) => event.key === "o" && !typing(event) && set(0));
  addEventListener("keyup", (event) => event.key === "o" && set(slider.value / 100));
}

/** Pointing at a class dims all others: the masks are drawn again with the others faint. `data-whole` is the mask as it is. */
function dimming(figure) {
  const overs = figure.querySelectorAll(".stage img.over[data-classes]");
  const rows = (figure.closest("[data-legend]") ?? figure).querySelectorAll("[data-class]");
  const drawn = new Map();
  let pointed = null;
  const dim = async (over, row) => {
    const whole = (over.dataset.whole ||= over.src);
    const key = `${row.dataset.class} ${whole}`;
    if (!drawn.has(key)) drawn.set(key, alone(whole, row.querySelector(".swatch")));
    const dimmed = await drawn.get(key);
    if (pointed === row && over.dataset.whole === whole) over.src = dimmed;
  };
  const all = () => {
    pointed = null;
    for (const over of overs) {
      if (over.dataset.whole) over.src = over.dataset.whole;
      delete over.dataset.whole;
    }
  };
  for (const row of overs.length ? rows : []) {
    row.tabIndex = 0;
    const only = () => {
      if (!row.querySelector(".swatch")) return;
      pointed = row;
      for (const over of overs) if (over.src) dim(over, row).catch(() => undefined); // a mask that cannot be read stays as it is
    };
    for (const start of ["pointerenter", "focus"]) row.addEventListener(start, only);
    for (const end of ["pointerleave", "blur"]) row.addEventListener(end, all);
  }
}

async function alone(address, swatch) {
  const mask = Object.assign(new Image(), { src: address });
  await mask.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: mask.naturalWidth, height: mask.naturalHeight });
  const context = canvas.getContext("2d");
  context.drawImage(mask, 0, 0);
  const picture = context.getImageData(0, 0, canvas.width, canvas.height);
  const colour = swatch.classList.contains("bare") ? [] : getComputedStyle(swatch).backgroundColor.match(/\d+/g).map(Number);
  const { data } = picture;
  for (let at = 0; at < data.length; at += 4) {
    if (data[at] !== colour[0] || data[at + 1] !== colour[1] || data[at + 2] !== colour[2]) data[at + 3] *= 0.12;
  }
  context.putImageData(picture, 0, 0);
  return canvas.toDataURL();
}

const typing = (event) => event.target.matches("input:not([type=range]), textarea, select");

addEventListener("keydown", (event) => {
  if (typing(event) || event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  document.querySelector(`a[rel=${rel}]`)?.click();
});
for (const figure of document.querySelectorAll("[data-viewer]")) open(figure);
