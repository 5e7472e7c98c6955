// Blocks marked data-copy get a button that copies their text, also where the page is not served over https.

/** Called again where blocks have come anew. */
export function offerCopies() {
  for (const block of document.querySelectorAll("[data-copy]:not(:has(button))")) {
    const text = block.textContent;
    const button = Object.assign(document.createElement("button"), { type: "button", className: "button copy", textContent: "Copy" });
    button.addEventListener("click", async () => {
      if (navigator.clipboard) await navigator.clipboard.writeText(text);
      else selected(text);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    block.append(button);
  }
}

/** Browsers offer their clipboard to pages of https and of this machine alone; a selection can be copied everywhere. */
function selected(text) {
  const field = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

offerCopies();
