"use strict";
for (const grid of document.querySelectorAll(".grid")) {
  const body = grid.querySelector("tbody"), rows = [...body.rows];
  const heads = [...grid.querySelectorAll("thead th")];
  const value = (row, at) => row.cells[at].textContent.trim();
  const number = (text) => { const v = parseFloat(text.replace("−", "-")); return isNaN(v) ? -Infinity : v; };
  heads.forEach((head, at) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const numeric = head.classList.contains("number");
    const keyed = rows.map((row) => [numeric ? number(value(row, at)) : value(row, at), row]);
    keyed.sort(([a], [b]) => sign * (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true })));
    body.append(...keyed.map(([, row]) => row));
  }));
  const find = grid.querySelector("[data-find]"), count = grid.querySelector("output");
  if (!find) continue;
  const choices = [...grid.querySelectorAll("select")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      const keep = words.every((word) => texts[i].includes(word)) &&
        choices.every((choice) => !choice.value || value(row, +choice.dataset.column) === choice.value);
      row.hidden = !keep;
      shown += keep;
    });
    count.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  };
  find.addEventListener("input", filter);
  choices.forEach((choice) => choice.addEventListener("change", filter));
}
