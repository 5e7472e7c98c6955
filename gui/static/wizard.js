// The wizard's right side follows each choice: the step's own address is read again with what is typed.
import { swap } from "./refresh.js";

const form = document.querySelector("form.choice");
let waiting = 0;
let running = new AbortController();
let changed = new Set();

/** What the fields hold, as an address carries it. */
const words = () => new URLSearchParams(new FormData(form)).toString();

function follow(event) {
  clearTimeout(waiting);
  changed.add(event.target.name);
  waiting = setTimeout(() => {
    running.abort();
    running = new AbortController();
    const url = `${form.dataset.step}?${words()}`;
    history.replaceState(null, "", url); // reload and Back find what was typed
    keepBack();
    const others = changed.has("network") ? ["weights"] : []; // another network starts from other weights
    changed = new Set();
    swap(url, ["meaning", ...others], { signal: running.signal }).catch(() => undefined);
  }, 250);
}

/** The step before, with what this step's fields hold now. */
function keepBack() {
  const link = document.querySelector("[data-back]");
  if (!link) return;
  const address = new URL(link.href);
  address.search = words();
  link.href = address.href;
}

form.addEventListener("input", form.method === "get" ? follow : keepBack);

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
