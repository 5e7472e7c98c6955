// A page that waits for something: its part marked data-follow is read again until the server shows another page instead.
import { ask } from "./refresh.js";

const EVERY = 1000;
let rest = EVERY;

async function again() {
  const shown = document.querySelector("[data-follow]");
  if (!document.hidden) {
    try {
      const answer = await ask(location.href);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-follow]");
      if (answer.redirected || !fresh) return location.replace(answer.url);
      if (fresh.innerHTML !== shown.innerHTML) shown.innerHTML = fresh.innerHTML;
      rest = EVERY;
    } catch {
      rest = Math.min(rest * 2, 15_000);
    }
  }
  setTimeout(again, rest);
}

setTimeout(again, EVERY);
