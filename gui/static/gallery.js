// The gallery: one slider for the opacity of all masks, and pointing at a class of the legend dims all others. Filters go by themselves.

const gallery = document.querySelector("[data-gallery]");
const slider = gallery?.querySelector(".opacity input");
const NEAR = 60; // how far JPEG may carry a colour from its class, summed over red, green and blue
const masks = []; // {shown, source, alone}: what the page shows, the mask as it came, and what was drawn of it by class
let pointed = null;

/** A mask that can be played with. `source` never changes; `shown` may show one class of it. */
function add(shown, source) {
  const mask = { shown, source, alone: new Map() };
  masks.push(mask);
  if (pointed) dim(mask);
}

/** A tile as it comes is one picture, mask blended in; to play with the mask it becomes two, one over the other. */
async function layer(tile) {
  const base = tile.querySelector(".base");
  const source = Object.assign(new Image(), { src: tile.dataset.full });
  const bare = Object.assign(new Image(), { src: tile.dataset.bare });
  await Promise.all([source.decode(), bare.decode()]);
  const shown = Object.assign(source.cloneNode(), { className: "over", alt: "" });
  shown.style.opacity = slider.value / 100;
  base.src = tile.dataset.bare;
  tile.append(shown);
  add(shown, source);
}

const nearby = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    nearby.unobserve(target);
    layer(target).catch(() => undefined); // a picture that cannot be read stays as it is
  }
}, { rootMargin: "400px" });

/** From the first touch on: until then a tile costs one picture, not three. */
function play() {
  if (gallery.dataset.played) return;
  gallery.dataset.played = "yes";
  for (const tile of gallery.querySelectorAll(".thumb")) nearby.observe(tile);
}

function point(row) {
  const swatch = row.querySelector(".swatch");
  const bare = swatch.classList.contains("bare");
  pointed = { key: row.dataset.class, colour: bare ? null : getComputedStyle(swatch).backgroundColor.match(/\d+/g).map(Number) };
  for (const mask of masks) dim(mask);
}

function dim(mask) {
  if (!mask.alone.has(pointed.key)) mask.alone.set(pointed.key, alone(mask.source, pointed.colour));
  mask.shown.src = mask.alone.get(pointed.key);
}

function all() {
  pointed = null;
  for (const { shown, source } of masks) shown.src = source.src;
}

/** The mask with all but one class faint. Where the picture itself has the colour nothing changes: below it lies the same picture. */
function alone(source, colour) {
  const canvas = Object.assign(document.createElement("canvas"), { width: source.naturalWidth, height: source.naturalHeight });
  const context = canvas.getContext("2d");
  context.drawImage(source, 0, 0);
  const picture = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = picture;
  for (let at = 0; at < data.length; at += 4) {
    const far = colour ? Math.abs(data[at] - colour[0]) + Math.abs(data[at + 1] - colour[1]) + Math.abs(data[at + 2] - colour[2]) : NEAR + 1;
    if (far > NEAR) data[at + 3] *= 0.12;
  }
  context.putImageData(picture, 0, 0);
  return canvas.toDataURL();
}

if (slider) {
  slider.closest("label").hidden = false;
  slider.addEventListener("pointerenter", play);
  slider.addEventListener("input", () => {
    play();
    for (const { shown } of masks) shown.style.opacity = slider.value / 100;
  });
  gallery.querySelector(".legend").addEventListener("pointerenter", play);
  for (const row of gallery.querySelectorAll("[data-class]")) {
    row.tabIndex = 0;
    for (const start of ["pointerenter", "focus"]) row.addEventListener(start, () => (play(), point(row)));
    for (const end of ["pointerleave", "blur"]) row.addEventListener(end, all);
    if (row.matches(":hover")) point(row); // the pointer was there before this script
  }
  for (const shown of gallery.querySelectorAll("img.over")) {
    const source = Object.assign(new Image(), { src: shown.src });
    source.decode().then(() => add(shown, source)).catch(() => undefined);
  }
}
/** Rings around the pixels that findings speak of, as thick as they show well at the size the picture has on the page. */
function mark(canvas) {
  const context = canvas.getContext("2d");
  const pixel = canvas.width / (canvas.clientWidth || canvas.width);
  for (const [x, y] of JSON.parse(canvas.dataset.places)) {
    for (const [thick, colour] of [[6, "#fff"], [3, "#b3261e"]]) {
      context.beginPath();
      context.arc(x + 0.5, y + 0.5, 16 * pixel, 0, 2 * Math.PI);
      Object.assign(context, { lineWidth: thick * pixel, strokeStyle: colour });
      context.stroke();
    }
  }
  document.querySelector("[data-marked]").hidden = false;
}

for (const canvas of document.querySelectorAll("canvas.marks")) {
  const draw = () => {
    // A small picture has too few pixels for a fine ring: the canvas has those of the screen.
    const factor = Math.max(1, canvas.clientWidth / canvas.width);
    if (factor > 1 && canvas.clientWidth) {
      const places = JSON.parse(canvas.dataset.places).map(([x, y]) => [(x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5]);
      Object.assign(canvas, { width: canvas.width * factor, height: canvas.height * factor });
      canvas.dataset.places = JSON.stringify(places);
    }
    mark(canvas);
  };
  const base = canvas.parentElement.querySelector(".base");
  if (base.complete) draw();
  else base.addEventListener("load", draw, { once: true });
}
for (const form of document.querySelectorAll("[data-filters]")) {
  form.querySelector("[data-plain]").hidden = true;
  form.addEventListener("change", () => form.requestSubmit());
}
