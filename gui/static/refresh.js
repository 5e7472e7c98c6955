// Sections marked data-refresh="seconds" are read again and put in place of themselves: the server alone knows how they look.

/** Nothing answers, or nothing that could: what asks again later is told the truth then. */
export class Lost extends Error {}

/** Says on the page whether what it shows may be old. */
export function lost(yes) {
  document.querySelector("[data-lost]").hidden = !yes;
}

/** An answer of the server's own. Who is not logged in any more is led to the login. */
export async function ask(url, init) {
  const answer = await fetch(url, init).catch((error) => error);
  if (answer.name === "AbortError") throw answer;
  lost(!(answer.status < 500));
  if (!(answer.status < 500)) throw new Lost(answer.message ?? answer.statusText);
  if (answer.status === 401) location.reload();
  return answer;
}

/** Puts the sections `ids` of the page at `url` in place of those shown, where they differ. Throws where there is no such page. */
export async function swap(url, ids, init) {
  const answer = await ask(url, init);
  if (answer.status === 404) location.reload(); // deleted meanwhile: the page says so
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ids) {
    const shown = document.getElementById(id);
    const fresh = page.getElementById(id);
    if (!fresh) throw new Error(page.querySelector(".cause")?.textContent ?? "The answer is not the page that was asked for.");
    if (shown && shown.innerHTML !== fresh.innerHTML) await replace(shown, fresh);
  }
}

const summary = (details) => details.querySelector("summary")?.textContent.trim();
const known = (element) => (element.localName === "select" ? element.name : `${element.name}=${element.value}=${element.textContent.trim()}`);
const same = (element) => (other) => other.matches(element.localName) && known(other) === known(element);

/** What a person has opened stays open, what was chosen stays chosen, the keyboard stays where it was, and nothing is taken from under a pressed pointer. */
async function replace(shown, fresh) {
  while (shown.matches(":active")) await new Promise((rested) => setTimeout(rested, 50));
  const opened = [...shown.querySelectorAll("details[open]")].map(summary);
  for (const details of fresh.querySelectorAll("details")) details.open ||= opened.includes(summary(details));
  for (const box of shown.querySelectorAll("input[type=checkbox][value]:checked")) {
    const again = fresh.querySelector(`input[name="${CSS.escape(box.name)}"][value="${CSS.escape(box.value)}"]`);
    if (again) again.checked = true;
  }
  const held = shown.contains(document.activeElement) ? document.activeElement : null;
  shown.replaceWith(fresh);
  if (held) [...fresh.querySelectorAll("a, button, summary, input, select")].find(same(held))?.focus({ preventScroll: true });
}

function again(id) {
  const section = document.getElementById(id);
  const seconds = Number(section?.dataset.refresh);
  if (!seconds) return;
  setTimeout(async () => {
    // Nothing moves under the pointer or under the keyboard, and nothing is asked for that nobody sees.
    const busy = document.hidden || section.matches(":focus-within, :active");
    if (!busy) await swap(location.href, [id]).catch(() => undefined);
    again(id);
  }, seconds * 1000);
}

for (const section of document.querySelectorAll("[data-refresh]")) again(section.id);
