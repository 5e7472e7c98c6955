// Trying a model without leaving the page: the form's own answer page is read and its answer put in place.
import { swap } from "./refresh.js";
import { open } from "./viewer.js";

const form = document.querySelector("[data-try]");
const field = form.querySelector("input[type=file]");
const busy = form.querySelector("[data-busy]");
form.querySelector("[data-drop-hint]").hidden = false;

async function ask() {
  if (!field.files.length) return;
  busy.hidden = false;
  busy.textContent = "Looking…";
  try {
    await swap(form.action, ["answer"], { method: "POST", body: new FormData(form) });
    for (const figure of document.querySelectorAll("#answer [data-viewer]")) open(figure);
    busy.hidden = true;
  } catch (error) {
    busy.textContent = error instanceof TypeError ? "Nothing answers at the moment. Try again." : error.message;
  }
}

function take(files) {
  const pictures = [...files].filter((file) => !file.type || file.type.startsWith("image/"));
  if (!pictures.length) return;
  const transfer = new DataTransfer();
  transfer.items.add(pictures[0]);
  field.files = transfer.files;
  ask();
}

form.addEventListener("submit", (event) => {
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
