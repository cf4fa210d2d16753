// The images of a head in the plane: drag to move, wheel or buttons to come nearer, point at a dot to see its image.
// Until it has the focus, the wheel and a finger scroll the page.

import { askJson, byId, make, thumbnail } from "./ask.js";

const ON_LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b38f00", "#56b4e9", "#7b4fa3", "#8a5a2b"];
const ON_DARK = ["#4aa3df", "#ff8b3d", "#2ec49a", "#e39ac6", "#d9b530", "#a5d8f7", "#b48bd9", "#c48f63"];
const dark = matchMedia("(prefers-color-scheme: dark)");
const OTHERS = "#8a929c";
const NEAR = 14; // pixels from a dot within which it is meant
const TAP = 6; // pixels that a finger or mouse may move and has still not dragged
const MARGIN = 0.06;
let found = null; // the points that are shown, with the colour of each label
let view = { x: 0.5, y: 0.5, zoom: 1 }; // what is in the middle, and how near it is
let chosen = null;
let looked = 0;
let asked = 0;

const canvas = () => byId("map");
const side = () => Math.min(canvas().clientWidth, canvas().clientHeight) * (1 - 2 * MARGIN);

function toScreen(point) {
  const scale = side() * view.zoom;
  return [canvas().clientWidth / 2 + (point.x - view.x) * scale, canvas().clientHeight / 2 + (point.y - view.y) * scale];
}

function draw() {
  const area = canvas();
  const ratio = window.devicePixelRatio || 1;
  area.width = area.clientWidth * ratio;
  area.height = area.clientHeight * ratio;
  const paint = area.getContext("2d");
  paint.scale(ratio, ratio);
  if (!found) return;
  const style = getComputedStyle(document.documentElement);
  const bad = style.getPropertyValue("--bad");
  const ink = style.getPropertyValue("--ink");
  const radius = Math.min(8, 3 + Math.log2(view.zoom));
  for (const point of found.points) {
    const [x, y] = toScreen(point);
    if (x < -9 || y < -9 || x > area.clientWidth + 9 || y > area.clientHeight + 9) continue;
    paint.beginPath();
    paint.arc(x, y, radius, 0, 7);
    paint.globalAlpha = 0.75;
    paint.fillStyle = found.colours.get(point.label) ?? OTHERS;
    paint.fill();
    paint.globalAlpha = 1;
    if (point.said !== null && point.said !== point.label) {
      paint.beginPath();
      paint.arc(x, y, radius + 2.5, 0, 7);
      paint.lineWidth = 2;
      paint.strokeStyle = bad;
      paint.stroke();
    }
  }
  if (chosen) {
    const [x, y] = toScreen(chosen);
    paint.beginPath();
    paint.arc(x, y, radius + 5, 0, 7);
    paint.lineWidth = 2;
    paint.strokeStyle = ink;
    paint.stroke();
  }
}

function words(point) {
  if (point.said === null) return `${point.label}, trained on`;
  return point.said === point.label ? `${point.label}, held out, called rightly` : `${point.label}, held out, called ${point.said}`;
}

function choose(point) {
  if (point === chosen) return;
  chosen = point;
  const card = byId("map-card");
  card.hidden = !point;
  draw();
  if (!point) return;
  const mine = ++looked;
  const image = make("img");
  image.alt = "";
  card.replaceChildren(image, make("p", words(point)));
  const [x, y] = toScreen(point);
  card.style.left = `${Math.max(0, Math.min(x + 14, canvas().clientWidth - 190))}px`;
  card.style.top = `${Math.max(0, Math.min(y + 14, canvas().clientHeight - 210))}px`;
  setTimeout(() => { if (mine === looked) thumbnail(point.digest, image); }, 80); // not of dots that are only passed
}

function nearest(x, y, within = Infinity) {
  let best = null;
  let least = within;
  for (const point of found ? found.points : []) {
    const [px, py] = toScreen(point);
    const distance = Math.hypot(px - x, py - y);
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

function zoom(factor, x = canvas().clientWidth / 2, y = canvas().clientHeight / 2) {
  const before = side() * view.zoom;
  const next = Math.min(40, Math.max(0.5, view.zoom * factor));
  const after = side() * next;
  const [dx, dy] = [x - canvas().clientWidth / 2, y - canvas().clientHeight / 2];
  view = { x: view.x + dx / before - dx / after, y: view.y + dy / before - dy / after, zoom: next };
  choose(null);
  draw();
}

function move(dx, dy) {
  const scale = side() * view.zoom;
  view = { ...view, x: view.x - dx / scale, y: view.y - dy / scale };
  choose(null);
  draw();
}

function whole() {
  view = { x: 0.5, y: 0.5, zoom: 1 };
  choose(null);
  draw();
}

function legend() {
  const counts = new Map();
  for (const point of found.points) counts.set(point.label, (counts.get(point.label) ?? 0) + 1);
  const names = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const colours = dark.matches ? ON_DARK : ON_LIGHT;
  found.colours = new Map(names.slice(0, colours.length).map((name, i) => [name, colours[i]]));
  const items = [...found.colours].map(([name, colour]) => [colour, `${name} (${counts.get(name)})`]);
  if (names.length > colours.length) items.push([OTHERS, `${names.length - colours.length} more classes`]);
  byId("map-legend").replaceChildren(...items.map(([colour, text]) => {
    const item = make("li", text);
    const dot = make("span", undefined, "key");
    dot.style.background = colour;
    item.prepend(dot);
    return item;
  }));
}

async function load(name) {
  byId("map-note").textContent = "drawing …";
  found = null;
  choose(null);
  const mine = ++asked;
  try {
    const answer = await askJson(`/v1/heads/${encodeURIComponent(name)}/map`);
    if (mine !== asked) return; // another one was asked for since
    found = answer;
  } catch (error) {
    if (mine !== asked) return;
    byId("map-note").textContent = error.message;
    draw();
    return;
  }
  legend();
  const wrong = found.points.filter((point) => point.said !== null && point.said !== point.label).length;
  const shown = found.points.length < found.total
    ? `${found.points.length.toLocaleString("en")} of ${found.total.toLocaleString("en")} images` : `${found.total.toLocaleString("en")} images`;
  byId("map-note").textContent = `${shown}; the ${wrong} with a ring were held out and called wrongly. No test image is shown.`;
  whole();
}

export function offer(heads) {
  const select = byId("map-head");
  const before = select.value;
  select.replaceChildren(...heads.map((head) => new Option(head.name)));
  if (heads.some((head) => head.name === before)) select.value = before;
}

const KEYS = {
  ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0), ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40),
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: whole, Escape: () => choose(null),
  Enter: () => choose(nearest(canvas().clientWidth / 2, canvas().clientHeight / 2)),
};

export function start() {
  const area = canvas();
  let drag = null; // where it was taken, and what was shown then
  byId("map-show").addEventListener("click", () => {
    byId("map-area").hidden = false;
    load(byId("map-head").value);
  });
  byId("map-in").addEventListener("click", () => zoom(1.5));
  byId("map-out").addEventListener("click", () => zoom(1 / 1.5));
  byId("map-all").addEventListener("click", whole);
  area.addEventListener("keydown", (event) => {
    const go = KEYS[event.key];
    if (!go || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go();
  });
  area.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== area) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }, { passive: false });
  const chooseAt = (event) => choose(nearest(event.offsetX, event.offsetY, event.pointerType === "touch" ? 2 * NEAR : NEAR));
  const dragTo = (x, y) => {
    view = drag.view;
    move(x - drag.x, y - drag.y);
  };
  const on = (name, act) => area.addEventListener(name, (event) => { if (event.isPrimary) act(event); });
  on("pointerdown", (event) => {
    drag = { x: event.offsetX, y: event.offsetY, view };
    area.setPointerCapture(event.pointerId);
  });
  on("pointerup", (event) => {
    if (drag && Math.hypot(event.offsetX - drag.x, event.offsetY - drag.y) < TAP) chooseAt(event);
    drag = null;
  });
  on("pointercancel", () => { // the browser scrolls instead
    if (drag) dragTo(drag.x, drag.y);
    drag = null;
  });
  on("pointermove", (event) => {
    if (drag) dragTo(event.offsetX, event.offsetY);
    else chooseAt(event);
  });
  on("pointerleave", (event) => { if (event.pointerType !== "touch") choose(null); }); // a finger leaves when it is lifted
  new ResizeObserver(draw).observe(area);
  dark.addEventListener("change", () => {
    if (found) legend();
    draw();
  });
}
