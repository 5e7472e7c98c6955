// Trying a model without leaving the page: pictures are sent one by one, each answer is put in place, a strip chooses among them.
import "./copy.js";
import { open } from "./viewer.js";

const form = document.querySelector("[data-try]");
const field = form.querySelector("input[type=file]");
const busy = form.querySelector("[data-busy]");
const answer = document.getElementById("answer");
const strip = Object.assign(document.createElement("ul"), { className: "strip chosen", hidden: true });
let round = 0; // pictures chosen later take the place of those that are still on their way

form.querySelector("[data-drop-hint]").hidden = false;
answer.before(strip);

async function ask() {
  const pictures = [...field.files];
  if (!pictures.length) return;
  const mine = ++round;
  answer.replaceChildren();
  strip.replaceChildren();
  for (const [index, picture] of pictures.entries()) {
    say(pictures.length > 1 ? `Looking at ${index + 1} of ${pictures.length}: ${picture.name}` : "Looking…");
    const article = await look(picture).catch((error) => failure(error));
    if (mine !== round) return;
    if (article) add(article);
    else return;
  }
  say("");
}

/** The article that the server draws of one picture. */
async function look(picture) {
  const body = new FormData();
  body.append("picture", picture);
  const reply = await fetch(form.action, { method: "POST", body });
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  const article = page.querySelector("[data-seen]");
  if (!article) throw new Error(page.querySelector(".cause")?.textContent ?? "The answer is not the page that was asked for.");
  return article;
}

function failure(error) {
  say(error instanceof TypeError ? "Nothing answers at the moment. Try again." : error.message);
  return null;
}

function say(words) {
  busy.hidden = !words;
  busy.textContent = words;
}

function add(article) {
  const number = answer.children.length;
  for (const radio of article.querySelectorAll("input[type=radio]")) radio.name = `view-${number}`;
  answer.append(article);
  for (const figure of article.querySelectorAll("[data-viewer]")) open(figure);
  const button = Object.assign(document.createElement("button"), { type: "button", title: article.dataset.seen });
  const source = article.querySelector("img.base");
  button.append(source ? Object.assign(new Image(), { src: source.src, alt: article.dataset.seen }) : `! ${article.dataset.seen}`);
  button.addEventListener("click", () => show(number));
  strip.append(Object.assign(document.createElement("li")));
  strip.lastElementChild.append(button);
  strip.hidden = number === 0;
  if (number === 0) show(0);
  else article.hidden = true;
}

function show(number) {
  [...answer.children].forEach((article, index) => (article.hidden = index !== number));
  [...strip.children].forEach((item, index) => item.firstElementChild.setAttribute("aria-pressed", String(index === number)));
  strip.children[number]?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function take(files) {
  const pictures = [...files].filter((file) => !file.type || file.type.startsWith("image/"));
  if (!pictures.length) return;
  const transfer = new DataTransfer();
  for (const picture of pictures) transfer.items.add(picture);
  field.files = transfer.files;
  ask();
}

form.addEventListener("submit", (event) => {
  if (event.submitter?.hasAttribute("formaction")) return; // a file to save
  event.preventDefault();
  ask();
});
field.addEventListener("change", ask);
addEventListener("paste", (event) => take(event.clipboardData.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  form.classList.add("over");
});
addEventListener("dragleave", (event) => event.relatedTarget || form.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  take(event.dataTransfer.files);
});
addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || strip.hidden || event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const now = [...answer.children].findIndex((article) => !article.hidden);
  show(Math.min(answer.children.length - 1, Math.max(0, now + step)));
});
for (const choice of document.querySelectorAll("[data-choice]")) {
  choice.querySelector("[data-plain]").hidden = true;
  choice.addEventListener("change", () => choice.requestSubmit());
}
