// The curves of several jobs over one another: one figure at a time, over epochs or over minutes of training.
import { Curves, look, reach } from "./curves.js";
import "./viewer.js";

const jobs = JSON.parse(document.getElementById("compare-data").textContent);
const tools = document.querySelector("[data-curve-tools]");
const [wanted, over] = ["figure", "over"].map((name) => tools.querySelector(`[data-${name}]`));
const curves = new Curves(document.querySelector("[data-curves]"), tools);

function points(job, value) {
  let seconds = 0;
  const known = job.history.map((scores) => {
    seconds += scores.seconds;
    return [over.value === "epoch" ? scores.epoch : seconds / 60, value(scores)];
  });
  return known.filter(([, y]) => y !== null && y !== undefined);
}

function draw() {
  const name = wanted.value;
  const value = name.startsWith("class ") ? (scores) => scores.iou_per_class[name.slice(6)] : (scores) => scores[name];
  const lines = (of) => jobs.map((job, index) => ({ name: `${"ABCDEF"[index]} ${job.name}`, key: job.name, colour: look(`job-${index}`), points: points(job, of), wide: true })).filter((line) => line.points.length);
  const ends = jobs.flatMap((job) => points(job, () => 1).map(([x]) => x));
  if (!ends.length) return;
  const marks = jobs.flatMap((job, index) => {
    const best = job.best && points(job, (scores) => (scores.epoch === job.best.epoch ? 1 : null))[0];
    return best ? [{ x: best[0], text: "ABCDEF"[index], colour: look(`job-${index}`) }] : [];
  });
  const minutes = over.value === "minutes";
  curves.show({
    label: `Curves of ${jobs.length} jobs: ${wanted.selectedOptions[0].textContent}, and loss`,
    x: minutes ? "min" : "epoch",
    parts: minutes,
    reach: [minutes ? 0 : 1, minutes ? Math.max(...ends) : reach(Math.max(...ends), 0, true)],
    marks,
    panels: [
      { title: `${wanted.selectedOptions[0].textContent} of the validation pictures; best epochs marked`, share: 0.62, range: [0, 1], lines: lines(value) },
      { title: "loss", share: 0.38, range: null, log: true, lines: lines((scores) => scores.loss) },
    ],
  });
}

tools.hidden = false;
for (const choice of [wanted, over]) choice.addEventListener("change", () => (choice === over ? curves.zoom(null, draw()) : draw()));
draw();
