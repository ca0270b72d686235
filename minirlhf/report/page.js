"use strict";
// The examples: shown if they are of the chosen kind and contain every word of the search.
const search = document.getElementById("search");
const buttons = [...document.querySelectorAll("button[data-kind]")];
const cards = [...document.querySelectorAll("#cards article")];
const texts = cards.map((card) => card.textContent.toLowerCase());

function filter() {
  const kind = buttons.find((button) => button.getAttribute("aria-pressed") === "true").dataset.kind;
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  cards.forEach((card, index) => {
    const fits = (!kind || card.dataset.kind === kind) && words.every((word) => texts[index].includes(word));
    card.hidden = !fits;
    shown += fits;
  });
  document.getElementById("count").textContent = `${shown} shown`;
}

search.addEventListener("input", filter);
for (const button of buttons) {
  button.addEventListener("click", () => {
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    filter();
  });
}
