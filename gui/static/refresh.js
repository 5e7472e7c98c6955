// Sections marked data-refresh="seconds" are read again and put in place of themselves: the server alone knows how they look.

/** Puts the sections `ids` of the page at `url` in place of those shown, where they differ. Throws where there is no such page. */
export async function swap(url, ids, init) {
  const answer = await fetch(url, init);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ids) {
    const shown = document.getElementById(id);
    const fresh = page.getElementById(id);
    if (!fresh) throw new Error(page.querySelector(".cause")?.textContent ?? "The answer is not the page that was asked for.");
    if (shown && shown.innerHTML !== fresh.innerHTML) shown.replaceWith(fresh);
  }
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
