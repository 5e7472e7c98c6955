// The wizard follows each choice: the step's own address is read again with what is typed, and what it says now takes its place.
import { offerCopies } from "./copy.js";
import { Lost, swap } from "./refresh.js";

const form = document.querySelector("form.choice");
const here = form.getAttribute("data-step"); // form.dataset is the field of that name
const AGAIN = 3000;
let waiting = 0;
let running = new AbortController();
const changed = new Map(); // the fields that were changed since the page last followed, each with its last change

/** What the fields hold, as an address carries it. */
const words = () => new URLSearchParams(new FormData(form)).toString();

/** Sections that hold fields of their own are read again only where another field decides over them: nobody loses a field while typing. */
const DECIDES = { dataset: ["split"], network: ["weights", "where"], order: ["networks"], gpus: ["networks", "where"] };

function follow(event) {
  changed.set(event.target.name, event);
  soon(250);
}

function soon(rest) {
  clearTimeout(waiting);
  waiting = setTimeout(read, rest);
}

async function read() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const url = `${here}?${words()}`;
  history.replaceState(null, "", url); // reload and Back find what was typed
  const asked = [...changed];
  const sections = asked.flatMap(([name]) => DECIDES[name] ?? []);
  const sayings = [...document.querySelectorAll("[data-follow]")].map((element) => element.id);
  const there = new Set(["meaning", ...sections, ...sayings].filter((id) => document.getElementById(id)));
  try {
    await swap(url, [...there], { signal });
    for (const [name, change] of asked) if (changed.get(name) === change) changed.delete(name); // else it was changed again meanwhile
  } catch (error) {
    if (!signal.aborted && error instanceof Lost) soon(AGAIN);
  }
  mark();
  block();
  offerCopies();
}

/** A field whose help names a fault is marked, for eyes and for screen readers. */
function mark() {
  for (const help of document.querySelectorAll(".help[data-follow]")) {
    const field = help.closest(".field");
    const fault = help.querySelector(".fault") !== null;
    field.classList.toggle("faulty", fault);
    const entry = field.querySelector("input, select");
    if (fault) entry.setAttribute("aria-invalid", "true");
    else entry.removeAttribute("aria-invalid");
  }
}

/** A choice that cannot be gone on with shuts the way on; without this script the server says so once it is pressed. */
function block() {
  for (const button of document.querySelectorAll("[data-blocked]")) button.disabled = true;
}

/** Whether a field holds something else than what the page came with: typed before this script ran, or brought back by the browser. */
function differs(field) {
  if (field.type === "radio" || field.type === "checkbox") return field.checked !== field.defaultChecked;
  if (field.localName === "select") return field.value !== ([...field.options].find((option) => option.defaultSelected) ?? field.options[0])?.value;
  return field.type !== "hidden" && "defaultValue" in field && field.value !== field.defaultValue;
}

form.addEventListener("input", follow);
window.addEventListener("pageshow", () => [...form.elements].filter(differs).forEach((field) => follow({ target: field })));
block();
