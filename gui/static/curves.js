// Curves as SVG: panels over one x, a label at each line's end. Drag, + or - to zoom, double click or 0 for the whole; arrow keys read values.

const PAD = { left: 44, right: 116, top: 22, bottom: 30, between: 40 };
const LABEL = 15;

const make = (name, attributes = {}, text = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
};

/** Round steps between two values, about as many as asked for. */
function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(Number(at.toPrecision(10)));
  return found;
}

/** Powers of ten, with halves between where there are few. */
function powers(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) for (const factor of [1, 2, 5]) found.push(factor * 10 ** power);
  const inside = found.filter((at) => at >= low && at <= high);
  return inside.length > 6 ? inside.filter((at) => Number.isInteger(Math.log10(at))) : inside;
}

const number = (value) => (Math.abs(value) >= 0.001 || value === 0 ? String(Number(value.toPrecision(3))) : value.toExponential(0));

/** An exponential mean over about ten points, begun without a bias towards zero. */
function smoothed(points) {
  let sum = 0;
  let weight = 0;
  return points.map(([x, y]) => {
    sum = sum * 0.82 + y;
    weight = weight * 0.82 + 1;
    return [x, sum / weight];
  });
}

/** Of more points than pixels the lowest and the highest in each: a jump stays to be seen. */
function thinned(points, pixels) {
  if (points.length <= 2 * pixels) return points;
  const each = Math.ceil(points.length / pixels);
  const kept = [];
  for (let at = 0; at < points.length; at += each) {
    const part = points.slice(at, at + each);
    const [low, high] = [part.reduce((a, b) => (b[1] < a[1] ? b : a)), part.reduce((a, b) => (b[1] > a[1] ? b : a))];
    kept.push(...(low[0] < high[0] ? [low, high] : low === high ? [low] : [high, low]));
  }
  return kept;
}

/**
 * A figure is {label, x, reach: [low, high], marks: [{x, text}], panels: [{title, share, range, log, lines}]}; a line is
 * {name, key, colour, points: [[x, y]], wide, dash}. `range` is that of y, or null for that of the points.
 */
export class Curves {
  constructor(place, tools) {
    this.place = place;
    this.smooth = false;
    this.part = null;
    this.from = null; // where a drag began, in pixels
    this.readout = Object.assign(document.createElement("div"), { className: "readout", hidden: true });
    this.readout.setAttribute("role", "status");
    for (const [name, key] of [["smooth", "smooth"], ["log-scale", "log"]]) {
      const box = tools?.querySelector(`[data-${name}]`);
      box?.addEventListener("change", () => ((this[key] = box.checked), this.draw()));
    }
    this.whole = tools?.querySelector("[data-whole]");
    this.whole?.addEventListener("click", () => this.zoom(null));
    new ResizeObserver(() => this.figure && this.place.clientWidth !== this.width && this.draw()).observe(place);
  }

  show(figure) {
    this.figure = figure;
    this.draw();
  }

  zoom(part) {
    this.part = part;
    if (this.whole) this.whole.hidden = !part;
    this.draw();
  }

  /** Closer, or farther with a factor above 1, about the value that is read or about the middle. */
  closer(factor) {
    const [read, [low, high]] = [this.pointed, this.figure.reach];
    const about = read ?? (this.low + this.high) / 2;
    const [start, end] = [this.low, this.high].map((side) => Math.min(high, Math.max(low, about + (side - about) * factor)));
    this.zoom(start > low || end < high ? [start, end] : null);
    if (read !== undefined) this.read(read);
  }

  /** Lets all lines but those of a key stand back; of none: nothing does. */
  dim(key) {
    for (const line of this.place.querySelectorAll("[data-line]")) line.classList.toggle("back", key !== null && line.dataset.line !== key);
  }

  draw() {
    const { figure, place } = this;
    this.late = this.from !== null; // nothing is drawn anew under a drag
    if (this.late) return;
    this.width = place.clientWidth;
    const right = this.width < 480 ? 84 : this.width > 900 ? 168 : PAD.right;
    this.frame = { left: PAD.left, right: Math.max(PAD.left + 40, this.width - right) };
    this.low = this.part?.[0] ?? figure.reach[0];
    this.high = this.part?.[1] ?? figure.reach[1];
    const height = this.width < 480 ? 380 : 460;
    const svg = make("svg", { width: this.width, height, class: "chart", tabindex: 0, role: "img", "aria-label": figure.label });
    let top = PAD.top;
    const room = height - PAD.top - PAD.bottom - PAD.between * (figure.panels.length - 1);
    for (const panel of figure.panels) {
      const bottom = top + room * panel.share;
      svg.append(this.panel(panel, top, bottom));
      top = bottom + PAD.between;
    }
    this.bottom = height - PAD.bottom;
    svg.append(...this.axis(), ...figure.marks.flatMap((mark) => this.mark(mark)));
    this.guide = make("line", { class: "guide", y1: PAD.top, y2: this.bottom, visibility: "hidden" });
    this.brush = make("rect", { class: "brush", y: PAD.top, height: this.bottom - PAD.top, visibility: "hidden" });
    svg.append(this.brush, this.guide);
    this.wire(svg);
    const held = place.querySelector("svg.chart") === document.activeElement;
    place.replaceChildren(svg, this.readout);
    if (held) svg.focus({ preventScroll: true });
  }

  at(x) {
    return this.frame.left + ((x - this.low) / (this.high - this.low || 1)) * (this.frame.right - this.frame.left);
  }

  back(pixel) {
    return this.low + ((pixel - this.frame.left) / (this.frame.right - this.frame.left)) * (this.high - this.low);
  }

  /** What of a line's points is to be seen, and one beyond each side, so that lines leave the frame. */
  seen(points) {
    const from = points.findIndex(([x]) => x >= this.low);
    const to = points.findLastIndex(([x]) => x <= this.high);
    return from < 0 || to < 0 ? [] : points.slice(Math.max(0, from - 1), to + 2);
  }

  panel(panel, top, bottom) {
    const group = make("g");
    const log = panel.log && this.log;
    const lines = panel.lines.map((line) => ({ ...line, points: this.seen(line.points).filter(([, y]) => !log || y > 0) })).filter((line) => line.points.length);
    const inside = lines.flatMap((line) => line.points.map(([, y]) => y));
    let [low, high] = panel.range ?? [log ? Math.min(...inside) : Math.min(0, ...inside), Math.max(...inside)];
    if (!inside.length) [low, high] = panel.range ?? [log ? 0.1 : 0, 1];
    if (high <= low) high = low + (log ? low : 1);
    const scale = log ? Math.log10 : (value) => value;
    const y = (value) => bottom - ((scale(value) - scale(low)) / (scale(high) - scale(low))) * (bottom - top);
    group.append(make("text", { class: "title", x: 0, y: top - 11 }, panel.title));
    for (const at of log ? powers(low, high) : ticks(low, high, bottom - top > 130 ? 5 : 3)) {
      group.append(make("line", { class: "grid", x1: this.frame.left, x2: this.frame.right, y1: y(at), y2: y(at) }));
      group.append(make("text", { class: "tick y", x: this.frame.left - 8, y: y(at) + 4 }, number(at)));
    }
    const clip = `clip-${Math.round(top)}-${this.place.id || "curves"}`;
    const defs = make("clipPath", { id: clip });
    defs.append(make("rect", { x: this.frame.left - 4, width: this.frame.right - this.frame.left + 8, y: top - 4, height: bottom - top + 8 }));
    group.append(defs);
    for (const line of lines) group.append(this.line(line, y, clip));
    group.append(...this.labels(lines, y, top, bottom));
    return group;
  }

  line({ points, colour, wide, dash, key }, y, clip) {
    const group = make("g", { "data-line": key, "clip-path": `url(#${clip})`, style: `--line: ${colour}` });
    const smooth = this.smooth && points.length > 3;
    const path = (some) => thinned(some, this.frame.right - this.frame.left).map(([x, value]) => `${this.at(x).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    if (smooth) group.append(make("polyline", { class: "raw", points: path(points) }));
    group.append(make("polyline", { class: wide ? "wide" : "", points: path(smooth ? smoothed(points) : points), ...(dash ? { "stroke-dasharray": dash } : {}) }));
    if (!smooth && points.length < 61) for (const [x, value] of points) group.append(make("circle", { cx: this.at(x), cy: y(value), r: wide ? 2.8 : 1.8 }));
    return group;
  }

  /** Beside the lines' ends, moved apart where they would touch. Of more than there is room for, the wide and the best are named. */
  labels(lines, y, top, bottom) {
    const most = Math.floor((bottom - top + 10) / LABEL);
    const ends = lines.map((line) => ({ ...line, y: y((this.smooth ? smoothed(line.points) : line.points).at(-1)[1]) }));
    ends.sort((one, other) => Number(other.wide ?? false) - Number(one.wide ?? false) || one.y - other.y).splice(most);
    ends.sort((one, other) => one.y - other.y);
    let free = top - 6;
    for (const end of ends) free = (end.at = Math.max(end.y, free)) + LABEL;
    let floor = bottom + 6;
    for (const end of ends.reverse()) floor = (end.at = Math.min(end.at, floor)) - LABEL;
    const room = this.width - this.frame.right - 22;
    return ends.map((end) => {
      const group = make("g", { "data-line": end.key, style: `--line: ${end.colour}` });
      const name = end.name.length * 6.6 > room ? `${end.name.slice(0, Math.floor(room / 6.6) - 1)}…` : end.name;
      group.append(make("circle", { cx: this.frame.right + 11, cy: end.at, r: 3.5 }), make("text", { class: end.wide ? "end strong" : "end", x: this.frame.right + 19, y: end.at + 4 }, name));
      group.append(make("title", {}, end.name));
      return group;
    });
  }

  axis() {
    const steps = ticks(this.low, this.high, Math.max(3, (this.frame.right - this.frame.left) / 70)).filter((at) => this.figure.parts || Number.isInteger(at));
    const texts = steps.map((at) => make("text", { class: "tick x", x: this.at(at), y: this.bottom + 20 }, number(at)));
    return [...texts, make("text", { class: "tick", x: 0, y: this.bottom + 20 }, this.figure.x)];
  }

  mark({ x, text, colour }) {
    if (x < this.low || x > this.high) return [];
    const style = colour ? `--mark: ${colour}` : "";
    const side = this.at(x) > this.frame.right - 70 ? { "text-anchor": "end", x: this.at(x) - 5 } : { x: this.at(x) + 5 };
    return [make("line", { class: "mark", style, x1: this.at(x), x2: this.at(x), y1: PAD.top, y2: this.bottom }), make("text", { class: "mark", style, y: this.bottom - 5, ...side }, text)];
  }

  wire(svg) {
    const pixel = (event) => Math.min(this.frame.right, Math.max(this.frame.left, event.clientX - svg.getBoundingClientRect().left));
    svg.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" || event.button) return;
      this.from = pixel(event);
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
      if (this.from !== null) {
        const [start, end] = [this.from, pixel(event)].sort((one, other) => one - other);
        for (const [key, value] of Object.entries({ x: start, width: end - start, visibility: "visible" })) this.brush.setAttribute(key, value);
      }
      this.read(this.back(pixel(event)));
    });
    svg.addEventListener("pointerup", (event) => {
      const [from, to] = [this.from, pixel(event)];
      this.from = null;
      if (from !== null && Math.abs(to - from) > 8) this.zoom([this.back(from), this.back(to)].sort((one, other) => one - other));
      else if (this.late) this.draw();
    });
    svg.addEventListener("pointercancel", () => {
      this.from = null;
      this.draw();
    });
    svg.addEventListener("pointerleave", () => this.from === null && this.rest());
    svg.addEventListener("dblclick", () => this.zoom(null));
    svg.addEventListener("blur", () => this.rest());
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const factor = { "+": 0.5, "=": 0.5, "-": 2 }[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (["Escape", "0"].includes(event.key)) this.zoom(null);
      if (factor) this.closer(factor);
      if (!step) return;
      event.preventDefault();
      const known = this.known();
      const place = this.pointed === undefined ? known.length - 1 : known.indexOf(this.pointed) + step;
      if (known[place] !== undefined) this.read(known[place]);
    });
  }

  /** Every x at which a line has a point, in order. */
  known() {
    const all = new Set(this.figure.panels.flatMap((panel) => panel.lines.flatMap((line) => line.points.map(([x]) => x))));
    return [...all].filter((x) => x >= this.low && x <= this.high).sort((one, other) => one - other);
  }

  read(x) {
    const known = this.known();
    if (!known.length) return;
    const near = known.reduce((best, one) => (Math.abs(one - x) < Math.abs(best - x) ? one : best));
    this.pointed = near;
    for (const end of ["x1", "x2"]) this.guide.setAttribute(end, this.at(near));
    this.guide.setAttribute("visibility", "visible");
    const rows = this.figure.panels.flatMap((panel) => panel.lines).map((line) => ({ line, value: line.points.findLast(([at]) => at <= near) })).filter((row) => row.value && (this.figure.parts || row.value[0] === near));
    this.readout.replaceChildren(Object.assign(document.createElement("b"), { textContent: `${this.figure.x} ${number(near)}` }), ...rows.slice(0, 16).map(({ line, value }) => {
      const row = document.createElement("span");
      const dot = document.createElement("i");
      dot.style.background = line.colour;
      row.append(dot, `${line.name} `, Object.assign(document.createElement("b"), { textContent: value[1].toFixed(3) }));
      return row;
    }));
    this.readout.hidden = false;
    const left = this.at(near) > (this.frame.left + this.frame.right) / 2;
    this.readout.style.cssText = left ? `right: ${this.width - this.at(near) + 10}px` : `left: ${this.at(near) + 10}px`;
  }

  rest() {
    this.pointed = undefined;
    this.readout.hidden = true;
    this.guide.setAttribute("visibility", "hidden");
  }
}

/** A custom property of the look, such as --accent. */
export const look = (name) => `var(--${name})`;

/** The last x on a live axis: a round one ahead, so that a long training does not start as a dot; of an ended one its last. */
export function reach(last, epochs, ended) {
  if (ended) return Math.max(last, 2);
  let ahead = 10;
  while (ahead < last) ahead *= 2;
  return Math.max(2, Math.min(ahead, epochs || ahead));
}
