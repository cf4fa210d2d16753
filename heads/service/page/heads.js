// The leaderboard, and a head in full: scores, what it confuses, how sure it may be, its worst mistakes.

import { askSoon, byId, make, percent, thumbnail } from "./ask.js";
import * as map from "./map.js";

const SVG = "http://www.w3.org/2000/svg";
const MEASURES = [
  ["accuracy", "Accuracy"], ["balanced_accuracy", "Balanced accuracy"], ["macro_f1", "Macro F1"], ["roc_auc", "ROC AUC"],
  ["log_loss", "Log loss"], ["brier", "Brier score"], ["ece", "Expected calibration error"],
];
let heads = [];
let told = ""; // what the service said of them last
let opened = null; // the name of the head that is shown in full
let drawn = null; // what the service said of it
let asked = 0;
let sorted = { key: "held_out_accuracy", descending: true };

// Puts the focus on the button that opens a head; on the leaderboard if that head has gone.
function focusOpener(name) {
  const board = byId("leaderboard");
  const button = [...board.tBodies[0].querySelectorAll("button")].find((button) => button.textContent === name);
  (button ?? board.parentElement).focus();
}

// A text that is cut off where it is too long.
function curtailed(name, text, className) {
  const element = make(name, text, className);
  element.title = text;
  return element;
}

function show() {
  const { key, descending } = sorted;
  const rows = [...heads].sort((a, b) => {
    const [x, y] = [a[key], b[key]];
    if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
    return descending ? -order : order;
  });
  const body = byId("leaderboard").tBodies[0];
  const focused = body.contains(document.activeElement) ? document.activeElement.textContent : null;
  body.replaceChildren(...rows.map((head) => {
    const row = make("tr");
    const name = make("td");
    const button = curtailed("button", head.name, "link");
    button.type = "button";
    button.addEventListener("click", () => open(head.name));
    name.append(button);
    row.append(name, curtailed("td", head.backbone), make("td", head.head),
      make("td", percent(head.held_out_accuracy), "number"), make("td", percent(head.test_accuracy), "number"),
      curtailed("td", head.classes.slice(0, 6).join(", ") + (head.classes.length > 6 ? ` and ${head.classes.length - 6} more` : "")));
    return row;
  }));
  if (focused !== null) focusOpener(focused);
  for (const button of document.querySelectorAll("#leaderboard th button")) {
    const mine = button.dataset.key === key;
    button.parentElement.setAttribute("aria-sort", mine ? (descending ? "descending" : "ascending") : "none");
  }
}

function scores(found) {
  const table = make("table");
  const head = table.createTHead().insertRow();
  const columns = [[`held out (${found.held_out.images.toLocaleString("en")} images)`, found.held_out]];
  if (found.test) columns.push([`test (${found.test.images.toLocaleString("en")} images)`, found.test]);
  for (const words of ["", ...columns.map(([words]) => words)]) {
    const cell = make(words ? "th" : "td", words, words ? "number" : "");
    if (words) cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const [key, words] of MEASURES) {
    if (!found.held_out[key]) continue;
    const row = body.insertRow();
    const name = make("th", words);
    name.scope = "row";
    row.append(name);
    for (const [, metrics] of columns) {
      const one = metrics[key];
      row.append(make("td", one ? `${one.value.toFixed(3)} [${one.interval.map((x) => x.toFixed(3)).join(", ")}]` : "–", "number"));
    }
  }
  return table;
}

function confusion({ classes, counts, more_classes }) {
  const table = make("table", undefined, "confusion");
  table.append(make("caption", "Rows: what it is. Columns: what it was called."
    + (more_classes ? ` ${more_classes} more classes are left out.` : "")));
  const head = table.createTHead().insertRow();
  head.append(make("td"));
  for (const name of classes) {
    const cell = make("th", name);
    cell.scope = "col";
    cell.title = name;
    head.append(cell);
  }
  const body = table.createTBody();
  counts.forEach((line, i) => {
    const row = body.insertRow();
    const name = make("th", classes[i]);
    name.scope = "row";
    name.title = classes[i];
    row.append(name);
    const all = line.reduce((a, b) => a + b, 0) || 1;
    line.forEach((count, j) => {
      const cell = make("td", count.toLocaleString("en"), "number");
      const share = Math.round((45 * count) / all);
      cell.style.background = `color-mix(in srgb, var(${i === j ? "--accent" : "--bad"}) ${share}%, var(--card))`;
      row.append(cell);
    });
  });
  return table;
}

function reliability({ confidence, accuracy, counts }, ece) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "-48 -14 274 258");
  drawing.setAttribute("class", "plot");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `Reliability diagram. Expected calibration error: ${ece.toFixed(3)}.`);
  const put = (name, given, words) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(given)) element.setAttribute(key, value);
    if (words !== undefined) element.textContent = words;
    drawing.append(element);
    return element;
  };
  const x = (value) => 200 * value;
  const y = (value) => 200 * (1 - value);
  for (const tick of [0, 0.5, 1]) {
    put("line", { x1: x(tick), x2: x(tick), y1: 0, y2: 200, class: "grid" });
    put("line", { x1: 0, x2: 200, y1: y(tick), y2: y(tick), class: "grid" });
    put("text", { x: x(tick), y: 216, "text-anchor": "middle" }, tick);
    put("text", { x: -8, y: y(tick) + 4, "text-anchor": "end" }, tick);
  }
  put("line", { x1: 0, y1: 200, x2: 200, y2: 0, class: "ideal" });
  put("text", { x: 100, y: 236, "text-anchor": "middle" }, "how sure it was");
  put("text", { x: -36, y: 100, "text-anchor": "middle", transform: "rotate(-90 -36 100)" }, "how often it was right");
  const most = Math.max(...counts, 1);
  confidence.forEach((sure, i) => {
    const dot = put("circle", { cx: x(sure), cy: y(accuracy[i]), r: 3 + 7 * Math.sqrt(counts[i] / most), class: "dot" });
    const words = document.createElementNS(SVG, "title");
    words.textContent = `${counts[i]} images: ${percent(sure)} sure, ${percent(accuracy[i])} right`;
    dot.append(words);
  });
  return drawing;
}

function mistakes(found) {
  const list = make("ul", undefined, "gallery");
  for (const one of found.mistakes) {
    const item = make("li");
    const image = make("img");
    image.alt = `${one.truth}, called ${one.said}`;
    item.append(image, make("span", `${one.truth}, called ${one.said}`), make("span", `${percent(one.confidence)} sure`, "muted"));
    list.append(item);
    thumbnail(one.digest, image, 240);
  }
  return list;
}

function block(title, ...content) {
  const part = make("section", undefined, "part");
  part.append(make("h4", title), ...content);
  return part;
}

function scroll(content, label) {
  const around = make("div", undefined, "scroll");
  around.tabIndex = 0;
  around.setAttribute("role", "group");
  around.setAttribute("aria-label", label);
  around.append(content);
  return around;
}

function inFull(found) {
  const settings = Object.entries(found.params).map(([key, value]) => `${key} = ${value}`).join(", ");
  const facts = make("p", `${found.head}${settings ? ` (${settings})` : ""}, the best of ${found.settings_tried} settings on `
    + `${found.chosen_on}; fitted on ${found.images.toLocaleString("en")} images of ${found.fitted_on.join(" and ")}; `
    + `calibration: ${found.calibration}. In brackets: 95 % intervals.`, "muted");
  const rest = found.all_mistakes - found.mistakes.length;
  const wrong = found.all_mistakes
    ? [make("p", `${found.all_mistakes} of ${found.held_out.images} held-out images were called wrongly`
      + (rest > 0 ? `; the worst ${found.mistakes.length}:` : ":"), "muted"), mistakes(found)]
    : [make("p", "Not one held-out image was called wrongly.", "muted")];
  const parts = make("div", undefined, "parts");
  const confused = block("What it confuses", scroll(confusion(found.confusion), "Confusion matrix"));
  confused.classList.toggle("wide", found.confusion.classes.length > 3);
  parts.append(block("Scores", scroll(scores(found), "Scores")),
    block("How sure it may be", reliability(found.reliability, found.held_out.ece.value),
      make("p", "On the line it is as often right as it says; the larger a dot, the more images.", "muted")),
    confused);
  return [facts, parts, block("Worst mistakes", ...wrong)];
}

// Draws the open head as it is now, if that was not drawn before; why it cannot be, only in the place of nothing.
async function renew() {
  const mine = ++asked;
  const body = byId("details-body");
  try {
    const found = await askSoon(`/v1/heads/${encodeURIComponent(opened)}`);
    const now = JSON.stringify(found);
    if (mine !== asked || now === drawn) return; // another one was opened since, or nothing is new
    drawn = now;
    if (body.contains(document.activeElement)) byId("details-title").focus();
    body.replaceChildren(...inFull(found));
  } catch (error) {
    if (mine === asked && drawn === null) body.replaceChildren(make("p", error.message, "rejected"));
  }
}

function close() {
  const isFocused = byId("details").contains(document.activeElement);
  byId("details").hidden = true;
  if (isFocused) focusOpener(opened);
  opened = null;
  asked += 1;
}

function open(name) {
  opened = name;
  drawn = null;
  byId("details-title").textContent = name;
  byId("details-body").replaceChildren(make("p", "asking …", "muted"));
  byId("details").hidden = false;
  byId("details-title").focus();
  byId("details").scrollIntoView();
  renew();
}

function showProblems(problems) {
  const lines = Object.entries(problems).map(([where, why]) => make("li", `${where}: ${why}`));
  byId("unusable").replaceChildren(...lines);
  byId("unusable").hidden = !lines.length;
}

// Shows the heads that are served; whether anything was said that had not been said before.
export async function load() {
  const found = await askSoon("/v1/heads");
  const now = JSON.stringify(found);
  const isNew = now !== told;
  if (isNew) {
    told = now;
    heads = found.heads;
    show();
    showProblems(found.problems);
    map.offer([...heads].sort((a, b) => b.held_out_accuracy - a.held_out_accuracy));
  }
  if (opened !== null) {
    if (heads.some((head) => head.name === opened)) await renew();
    else close();
  }
  return isNew;
}

export function start() {
  byId("details-close").addEventListener("click", close);
  byId("details").addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  for (const button of document.querySelectorAll("#leaderboard th button")) {
    button.addEventListener("click", () => {
      const key = button.dataset.key;
      sorted = { key, descending: sorted.key === key ? !sorted.descending : key.endsWith("accuracy") };
      show();
    });
  }
}
