"use strict";
// Everything that comes from a picture, a bundle or a folder is put in as text, never as markup.

const byId = (id) => document.getElementById(id);
const MOST_BYTES = 16 * 2 ** 20;
const REASONS = {
  "empty-file": "This file is empty.",
  "not-an-image": "This is no picture.",
  "unsupported-format": "Pictures of this format are not read: use JPEG, PNG, WebP, BMP or GIF.",
  "truncated": "This picture ends too early: part of the file is missing.",
  "corrupt": "This picture is damaged.",
  "file-too-large": "This file is too large.",
  "too-many-pixels": "This picture has too many pixels.",
  "too-many-scans": "This picture has more scans than any honest one.",
  "not-finite": "The network cannot make sense of this picture.",
};
let heads = [];
let sorted = { key: "held_out_accuracy", descending: true };

function make(name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...(options.headers || {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    byId("access").hidden = false;
    throw new Error("The service needs its token.");
  }
  if (!response.ok) {
    const told = await response.json().catch(() => ({}));
    throw new Error(typeof told.detail === "string" ? told.detail : `The service answered ${response.status}.`);
  }
  return response;
}

function complain(error) {
  byId("problem").textContent = error.message || String(error);
  byId("problem").hidden = false;
}

async function thumbnail(digest, image) {
  try {
    const response = await ask(`/v1/images/${digest}/thumbnail?size=160`);
    image.src = URL.createObjectURL(await response.blob());
  } catch {
    image.remove(); // it is not where it was last seen
  }
}

async function neighbours(digest, card) {
  const found = (await (await ask(`/v1/neighbours/${digest}?count=8`)).json()).neighbours;
  if (!found.length) return;
  const near = make("div", undefined, "near");
  near.append(make("p", "Stored images that look most like it"));
  const list = make("ul");
  for (const one of found) {
    const item = make("li");
    const image = make("img");
    image.alt = "";
    item.append(image, make("span", one.folder ?? "gone"), make("span", one.cosine.toFixed(3), "muted"));
    list.append(item);
    thumbnail(one.digest, image);
  }
  list.tabIndex = 0;
  list.setAttribute("aria-label", "Stored images that look most like it");
  near.append(list);
  card.append(near);
}

function showHead(one, card) {
  const block = make("div", undefined, "head");
  block.append(make("p", one.head));
  const pairs = Object.entries(one.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 5);
  for (const [name, probability] of pairs) {
    const bar = make("div", undefined, name === one.label ? "bar best" : "bar");
    const meter = make("meter");
    meter.max = 1;
    meter.value = probability;
    meter.setAttribute("aria-label", `${name}: ${(100 * probability).toFixed(1)} %`);
    bar.append(make("span", name), meter, make("span", `${(100 * probability).toFixed(1)} %`));
    block.append(bar);
  }
  card.append(block);
}

async function predict(file) {
  const card = make("li", undefined, "answer");
  const image = make("img");
  image.alt = "";
  image.src = URL.createObjectURL(file);
  image.addEventListener("error", () => image.replaceWith(make("div", undefined, "none")));
  card.append(image, make("h3", file.name || "pasted picture"));
  byId("answers").prepend(card);
  try {
    if (file.size > MOST_BYTES) throw new Error(`This file is too large: at most ${MOST_BYTES / 2 ** 20} MiB are taken.`);
    const headers = { "Content-Type": "application/octet-stream" };
    const answer = (await (await ask("/v1/predict", { method: "POST", headers, body: file })).json()).predictions[0];
    if (answer.rejected) {
      card.append(make("p", REASONS[answer.rejected] ?? answer.rejected, "rejected"));
      return;
    }
    card.append(make("p", answer.from_cache ? "known already: from the store" : "new: computed now",
      answer.from_cache ? "from cached" : "from"));
    for (const one of answer.heads) showHead(one, card);
    await neighbours(answer.digest, card);
  } catch (error) {
    card.append(make("p", error.message, "rejected"));
  }
}

async function take(files) {
  const chosen = [...files];
  let done = 0;
  for (const file of chosen) {
    byId("progress").textContent = `${done} of ${chosen.length} answered …`;
    await predict(file);
    done += 1;
  }
  byId("progress").textContent = chosen.length ? `${done} of ${chosen.length} answered` : "";
  loadStore().catch(complain);
}

function showHeads() {
  const { key, descending } = sorted;
  const rows = [...heads].sort((a, b) => {
    const [x, y] = [a[key], b[key]];
    if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
    return descending ? -order : order;
  });
  const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);
  byId("leaderboard").tBodies[0].replaceChildren(...rows.map((head) => {
    const row = make("tr");
    row.append(make("td", head.name), make("td", head.backbone), make("td", head.head),
      make("td", percent(head.held_out_accuracy), "number"), make("td", percent(head.test_accuracy), "number"),
      make("td", head.classes.slice(0, 6).join(", ") + (head.classes.length > 6 ? ` and ${head.classes.length - 6} more` : "")));
    return row;
  }));
  for (const button of document.querySelectorAll("#leaderboard th button")) {
    const mine = button.dataset.key === key;
    button.parentElement.setAttribute("aria-sort", mine ? (descending ? "descending" : "ascending") : "none");
  }
}

async function loadHeads() {
  heads = (await (await ask("/v1/heads")).json()).heads;
  showHeads();
}

function bytes(count) {
  const step = Math.min(3, Math.floor(Math.log(Math.max(count, 1)) / Math.log(1024)));
  return `${(count / 1024 ** step).toFixed(step ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][step]}`;
}

async function loadStore() {
  const found = (await (await ask("/v1/stores")).json()).namespaces;
  byId("namespaces").tBodies[0].replaceChildren(...found.map((one) => {
    const row = make("tr");
    row.append(make("td", one.backbone), make("td", one.layer), make("td", one.image_size.join(" × ")),
      make("td", one.pooling), make("td", one.precision), make("td", one.rows.toLocaleString("en"), "number"),
      make("td", one.rejects.toLocaleString("en"), "number"), make("td", bytes(one.bytes), "number"));
    return row;
  }));
}

function load() {
  byId("problem").hidden = true;
  loadHeads().catch(complain);
  loadStore().catch(complain);
}

byId("choose").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", (event) => take(event.target.files));
for (const name of ["dragover", "dragenter"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); byId("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) byId("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) take(event.clipboardData.files); });
for (const button of document.querySelectorAll("#leaderboard th button")) {
  button.addEventListener("click", () => {
    const key = button.dataset.key;
    sorted = { key, descending: sorted.key === key ? !sorted.descending : key.endsWith("accuracy") };
    showHeads();
  });
}
byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  byId("access").hidden = true;
  load();
});
load();
