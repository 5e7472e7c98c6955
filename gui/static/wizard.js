// The wizard's right side follows each choice: the step's own address is read again with what is typed.
import { swap } from "./refresh.js";

const form = document.querySelector("form.choice");
let waiting = 0;
let running = new AbortController();

function address() {
  const words = new URLSearchParams(new FormData(form));
  return `${form.dataset.step}?${words}`;
}

function follow() {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    running.abort();
    running = new AbortController();
    const url = address();
    history.replaceState(null, "", url); // reload and Back find what was typed
    document.querySelector("[data-back]")?.setAttribute("href", back());
    swap(url, ["meaning"], { signal: running.signal }).catch(() => undefined);
  }, 250);
}

/** The step before, with what this step's fields hold now. */
function back() {
  const link = new URL(document.querySelector("[data-back]").href);
  link.search = new URLSearchParams(new FormData(form)).toString();
  return link.href;
}

if (form.method === "get") form.addEventListener("input", follow);
else form.addEventListener("input", () => document.querySelector("[data-back]")?.setAttribute("href", back()));

for (const block of document.querySelectorAll("[data-copy]")) {
  const text = block.textContent;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "button copy", textContent: "Copy" });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  if (navigator.clipboard) block.append(button);
}
