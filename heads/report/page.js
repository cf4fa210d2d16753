"use strict";
// Sorting: a click on a heading sorts by its column, a second one the other way round. Rows without a value stay last.
function sortBy(table, heading) {
  const headings = [...table.tHead.rows[0].cells];
  const column = headings.indexOf(heading);
  const before = heading.getAttribute("aria-sort");
  const other = { ascending: "descending", descending: "ascending" };
  const direction = other[before] || heading.dataset.first;
  const sign = direction === "ascending" ? 1 : -1;
  const isNumber = heading.dataset.kind === "number";
  const key = (row) => row.cells[column].dataset.key;
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, two) => {
    const [a, b] = [key(one), key(two)];
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (isNumber ? a - b : a < b ? -1 : Number(a > b));
  });
  for (const each of headings) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  table.tBodies[0].append(...rows);
}

// A long table shows its first rows, and the others when they are asked for.
function foldRows(table) {
  const button = document.querySelector(`button[data-unfolds="${table.id}"]`);
  const most = Number(table.dataset.most);
  const fold = () => {
    const isOpen = button !== null && button.getAttribute("aria-expanded") === "true";
    [...table.tBodies[0].rows].forEach((row, place) => { row.hidden = !isOpen && place >= most; });
  };
  if (button === null) return () => {};
  button.hidden = false;
  button.addEventListener("click", () => {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!isOpen));
    button.textContent = isOpen ? button.dataset.more : button.dataset.less;
    fold();
  });
  addEventListener("beforeprint", () => { for (const row of table.tBodies[0].rows) row.hidden = false; });
  addEventListener("afterprint", fold);
  fold();
  return fold;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const fold = foldRows(table);
  for (const heading of table.tHead.rows[0].cells) {
    heading.querySelector("button").addEventListener("click", () => {
      sortBy(table, heading);
      fold();
    });
  }
}
