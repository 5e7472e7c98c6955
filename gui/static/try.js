// Trying a model without leaving the page: pictures are sent one by one, each answer is put in place, a strip chooses among them.
import { offerCopies } from "./copy.js";
import { ask } from "./refresh.js";
import { open } from "./viewer.js";

const field = document.querySelector("[data-try] input[type=file]");
const strip = Object.assign(document.createElement("ul"), { className: "strip chosen", hidden: true });
let form, busy, answer;
let round = 0; // pictures chosen later take the place of those that are still on their way

/** The page as it came, or as it came anew for other models. */
function begin() {
  form = document.querySelector("[data-try]");
  busy = form.querySelector("[data-busy]");
  answer = document.getElementById("answer");
  form.querySelector("[data-drop-hint]").hidden = false;
  answer.before(strip);
  form.addEventListener("submit", (event) => {
    if (event.submitter?.hasAttribute("formaction")) return; // a file to save
    event.preventDefault();
    lookAll();
  });
  for (const choice of document.querySelectorAll("[data-choice]")) {
    choice.querySelector("[data-plain]").hidden = true;
    choice.addEventListener("change", (event) => choose(choice, event.target.name).catch(() => choice.submit()));
  }
}

/** Other models: their page takes the place of this one, and the pictures that were chosen stay. */
async function choose(choice, changed) {
  const reply = await ask(`${choice.action}?${new URLSearchParams(new FormData(choice))}`);
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  page.querySelector("[data-try] input[type=file]").replaceWith(field);
  document.querySelector("main").replaceWith(page.querySelector("main"));
  document.title = page.title;
  history.replaceState(null, "", reply.url);
  strip.replaceChildren();
  strip.hidden = true;
  begin();
  offerCopies();
  document.querySelector(`[data-choice] [name=${changed}]`)?.focus();
  await lookAll();
}

async function lookAll() {
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
  if (reply.status === 401) location.reload(); // leads to the login
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
  lookAll();
}

begin();
field.addEventListener("change", lookAll);
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
