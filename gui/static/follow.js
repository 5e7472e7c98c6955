// A page that waits for something: its part marked data-follow is read again until the server shows another page instead.

const EVERY = 1000;
let rest = EVERY;

async function again() {
  const shown = document.querySelector("[data-follow]");
  const lost = document.querySelector("[data-lost]");
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href);
      if (answer.status >= 500) throw new Error(answer.statusText);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-follow]");
      if (answer.redirected || !fresh) return location.replace(answer.url);
      if (fresh.innerHTML !== shown.innerHTML) shown.innerHTML = fresh.innerHTML;
      lost.hidden = true;
      rest = EVERY;
    } catch {
      lost.hidden = false;
      rest = Math.min(rest * 2, 15_000);
    }
  }
  setTimeout(again, rest);
}

setTimeout(again, EVERY);
