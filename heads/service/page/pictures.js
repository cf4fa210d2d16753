// Pictures that are dropped, chosen or pasted, and what every head says of them.

import { askJson, byId, make, percent, thumbnail } from "./ask.js";

const MOST_BYTES = 16 * 2 ** 20;
const MOST_BARS = 5; // that are shown of a head at once
export const REASONS = {
  "empty-file": "This file is empty.",
  "not-an-image": "This is no picture.",
  "unsupported-format": "Pictures of this format are not read: use JPEG, PNG, WebP, BMP or GIF.",
  "truncated": "This picture ends too early: part of the file is missing.",
  "corrupt": "This picture is damaged.",
  "file-too-large": "This file is too large.",
  "too-many-pixels": "This picture has too many pixels.",
  "too-many-scans": "This picture has more scans than any honest one.",
  "not-finite": "The network cannot make sense of this picture.",
  "unreadable": "This picture cannot be read now. Try it again.",
};

async function neighbours(digest, [{ head }, ...others], card) {
  const found = (await askJson(`/v1/neighbours/${digest}?count=8&head=${encodeURIComponent(head)}`)).neighbours;
  if (!found.length) return;
  const near = make("div", undefined, "near");
  const title = `Training images ${others.length ? `of ${head} ` : ""}that look most like it`;
  near.append(make("p", title));
  const list = make("ul");
  for (const one of found) {
    const item = make("li");
    const image = make("img");
    image.alt = "";
    const label = make("span", one.label ?? one.folder ?? "?");
    label.title = label.textContent;
    item.append(image, label, make("span", one.cosine.toFixed(3), "muted"));
    list.append(item);
    thumbnail(one.digest, image);
  }
  list.setAttribute("aria-label", title);
  near.append(list);
  card.append(near);
}

function bar(name, probability, best) {
  const row = make("div", undefined, name === best ? "bar best" : "bar");
  const meter = make("meter");
  meter.max = 1;
  meter.value = probability;
  meter.setAttribute("aria-label", `${name}: ${percent(probability)}`);
  const label = make("span", name);
  label.title = name;
  row.append(label, meter, make("span", percent(probability)));
  return row;
}

function showHead(one, card) {
  const block = make("div", undefined, "head");
  const bars = (pairs) => pairs.map(([name, probability]) => bar(name, probability, one.label));
  const pairs = Object.entries(one.probabilities).sort((a, b) => b[1] - a[1]);
  block.append(make("p", one.head), ...bars(pairs.slice(0, MOST_BARS)));
  const rest = pairs.slice(MOST_BARS);
  if (rest.length) {
    const more = make("details");
    more.append(make("summary", `and ${rest.length.toLocaleString("en")} more`));
    more.addEventListener("toggle", () => more.append(...bars(rest)), { once: true }); // there may be thousands
    block.append(more);
  }
  card.append(block);
}

async function predict(file) {
  const card = make("li", undefined, "answer");
  const image = make("img");
  image.alt = "";
  image.src = URL.createObjectURL(file);
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  image.addEventListener("error", () => image.replaceWith(make("div", undefined, "none")));
  card.append(image, make("h3", file.name || "pasted picture"));
  byId("answers").prepend(card);
  try {
    if (file.size > MOST_BYTES) throw new Error(`This file is too large: at most ${MOST_BYTES / 2 ** 20} MiB are taken.`);
    const body = await file.arrayBuffer().catch(() => { throw new Error("This file cannot be read."); }); // a folder, or gone
    if (!body.byteLength) throw new Error(REASONS["empty-file"]);
    const headers = { "Content-Type": "application/octet-stream" };
    const answer = (await askJson("/v1/predict", { method: "POST", headers, body })).predictions[0];
    if (answer.rejected) {
      card.append(make("p", REASONS[answer.rejected] ?? answer.rejected, "rejected"));
      return;
    }
    card.append(make("p", answer.from_cache ? "known already: from the store" : "new: computed now",
      answer.from_cache ? "from cached" : "from"));
    for (const one of answer.heads) showHead(one, card);
    if (answer.heads.length) await neighbours(answer.digest, answer.heads, card);
  } catch (error) {
    card.append(make("p", error.message, "rejected"));
  }
}

async function take(files, afterwards) {
  const chosen = [...files];
  let done = 0;
  for (const file of chosen) {
    byId("progress").textContent = `${done} of ${chosen.length} answered …`;
    await predict(file);
    done += 1;
  }
  byId("progress").textContent = chosen.length ? `${done} of ${chosen.length} answered` : "";
  afterwards();
}

// Everywhere on the page pictures can be dropped; ``afterwards`` is called when all of them are answered.
export function start(afterwards) {
  byId("choose").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", (event) => {
    take(event.target.files, afterwards);
    event.target.value = ""; // so that the same file can be chosen again
  });
  for (const name of ["dragover", "dragenter"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); byId("drop").classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) byId("drop").classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    byId("drop").classList.remove("over");
    take(event.dataTransfer.files, afterwards);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) take(event.clipboardData.files, afterwards);
  });
}
