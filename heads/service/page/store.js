// What the store holds, and how often it helped.

import { askSoon, byId, make } from "./ask.js";
import { REASONS } from "./pictures.js";

function bytes(count) {
  const step = Math.min(3, Math.floor(Math.log(Math.max(count, 1)) / Math.log(1024)));
  return `${(count / 1024 ** step).toFixed(step ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][step]}`;
}

function answeredWords({ cached, computed, rejected }) {
  const all = cached + computed + rejected;
  if (!all) return "No picture has been asked about since this service began.";
  const share = `${Math.round((100 * cached) / all)} % were known already`;
  return `Since this service began: ${all.toLocaleString("en")} ${all === 1 ? "picture" : "pictures"}, of which ${share} `
    + `(${cached} from the store, ${computed} computed), and ${rejected} could not be used.`;
}

function rejects(one) {
  const cell = make("td", one.rejects.toLocaleString("en"), "number");
  const reasons = Object.entries(one.reasons);
  if (!reasons.length) return cell;
  const list = make("ul", undefined, "reasons");
  for (const [reason, count] of reasons.sort((a, b) => b[1] - a[1])) {
    const item = make("li", `${count} ${reason}`);
    item.title = REASONS[reason] ?? reason;
    list.append(item);
  }
  cell.append(list);
  return cell;
}

export async function load() {
  const found = await askSoon("/v1/stores");
  byId("answered").textContent = answeredWords(found.answered);
  byId("namespaces").tBodies[0].replaceChildren(...found.namespaces.map((one) => {
    const row = make("tr");
    row.append(make("td", one.backbone), make("td", one.layer), make("td", one.image_size.join(" × ")),
      make("td", one.pooling), make("td", one.precision), make("td", one.rows.toLocaleString("en"), "number"),
      rejects(one), make("td", bytes(one.bytes), "number"));
    return row;
  }));
}
