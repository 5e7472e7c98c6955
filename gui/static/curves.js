// A job's curves: the loss above, mIoU and the IoU of each class below, over the same epochs; labels at the lines' ends.

const place = document.querySelector("[data-curves]");

function look() {
  const style = getComputedStyle(document.documentElement);
  const named = (name) => style.getPropertyValue(`--${name}`).trim();
  return { ink: named("ink"), quiet: named("quiet"), line: named("line"), accent: named("accent"), good: named("good"), font: named("sans") };
}

/** A name as text: Plotly reads its labels as markup. */
const plain = (name) => name.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function line(epochs, values, colour, name, axis, wide = false) {
  return {
    x: epochs, y: values, name, yaxis: axis, xaxis: "x", mode: epochs.length < 2 ? "markers" : "lines+markers", connectgaps: true,
    line: { color: colour, width: wide ? 2.5 : 1.5 }, marker: { color: colour, size: epochs.length > 60 ? 2 : wide ? 5 : 3 },
    hovertemplate: `%{y:.3f} ${plain(name)}<extra></extra>`,
  };
}

/** Labels beside the ends of lines, moved apart where they would touch, and kept within the axis' 0 to 1. */
function labels(lines, axis, look) {
  const ends = lines.map((trace) => ({ trace, y: trace.y.findLast((value) => value !== null) })).filter((end) => end.y !== undefined);
  const gap = Math.min(0.075, 1 / ends.length);
  ends.sort((one, other) => other.y - one.y);
  let free = 1;
  for (const end of ends) [end.at, free] = [Math.min(end.y, free), Math.min(end.y, free) - gap];
  let floor = 0;
  for (const end of ends.reverse()) [end.at, floor] = [Math.max(end.at, floor), Math.max(end.at, floor) + gap];
  return ends.map(({ trace, at }) => ({
    xref: "paper", x: 1, xanchor: "left", xshift: 8, yref: axis, y: at, showarrow: false, align: "left",
    text: `<span style="color:${trace.line.color}">●</span> ${trace.line.width > 2 ? `<b>${plain(trace.name)}</b>` : plain(trace.name)}`, font: { size: 12, color: trace.line.width > 2 ? look.ink : look.quiet },
  }));
}

/** The last epoch on the axis: that of the end, or a round one ahead, so that a long training does not start as a dot. */
function reach(status) {
  const last = status.history.at(-1).epoch;
  if (status.ended) return Math.max(last, 2);
  let ahead = 10;
  while (ahead < last) ahead *= 2;
  return Math.max(2, Math.min(ahead, status.epochs || ahead));
}

function layout(status, traces, look) {
  const best = status.best;
  const grid = { gridcolor: look.line, gridwidth: 1, zeroline: false, tickfont: { size: 12, color: look.quiet }, fixedrange: true, ticks: "" };
  const shown = reach(status);
  const marks = best ? [{ type: "line", xref: "x", yref: "paper", x0: best.epoch, x1: best.epoch, y0: 0, y1: 1, line: { color: look.good, width: 1, dash: "dot" } }] : [];
  const mark = best ? [{ xref: "x", yref: "paper", x: best.epoch, xanchor: best.epoch < shown / 4 ? "left" : "center", y: 0.61, yanchor: "bottom", showarrow: false, text: `best ${(best.mean_iou ?? 0).toFixed(3)}`, font: { size: 12, color: look.good } }] : [];
  const scores = traces.filter((trace) => trace.yaxis === "y");
  const heading = (text, y) => ({ xref: "paper", yref: "paper", x: 0, xanchor: "left", xshift: -34, y, yanchor: "bottom", showarrow: false, text, font: { size: 12, color: look.quiet } });
  return {
    height: place.clientWidth < 480 ? 360 : 440, margin: { l: 40, r: 96, t: 24, b: 32 }, showlegend: false, hovermode: "x unified",
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { family: look.font, color: look.ink },
    hoverlabel: { bgcolor: getComputedStyle(document.documentElement).getPropertyValue("--surface").trim(), bordercolor: look.line, font: { size: 12, color: look.ink } },
    xaxis: { ...grid, showgrid: false, range: [0.5, shown + 0.5], anchor: "y", title: { text: "epoch", font: { size: 12, color: look.quiet }, standoff: 4 }, tickformat: "d", nticks: 9 },
    yaxis: { ...grid, domain: [0, 0.6], range: [0, 1.02], nticks: 6 },
    yaxis2: { ...grid, domain: [0.7, 1], rangemode: "tozero", nticks: 4 },
    shapes: marks, annotations: [...labels(scores, "y", look), ...mark, heading("loss", 1), heading("IoU", 0.6)],
  };
}

/** Draws, or moves on, the curves of a status. Where Plotly did not load, the page's plain ones stay. */
export function draw(status, classes) {
  if (!window.Plotly || !status.history.length) return;
  const colours = look();
  const epochs = status.history.map((scores) => scores.epoch);
  const scored = status.history.filter((scores) => scores.mean_iou !== null);
  const at = scored.map((scores) => scores.epoch);
  const traces = [line(epochs, status.history.map((scores) => scores.loss), colours.accent, "loss", "y2")];
  for (const { name, colour } of classes) {
    const values = scored.map((scores) => scores.iou_per_class[name] ?? null);
    if (values.some((value) => value !== null)) traces.push(line(at, values, colour.replace(/ /g, ",") || colours.quiet, name, "y"));
  }
  traces.push(line(at, scored.map((scores) => scores.mean_iou), colours.ink, "mIoU", "y", true));
  place.querySelector(".plain")?.remove();
  window.Plotly.react(place, traces, layout(status, traces, colours), { displayModeBar: false, responsive: true });
}
