// Starts every part of the page, loads what the service has to tell, and goes on asking which heads there are.

import { byId } from "./ask.js";
import * as heads from "./heads.js";
import * as map from "./map.js";
import * as pictures from "./pictures.js";
import * as store from "./store.js";

const LOOK_SECONDS = 3;
let looking = false;
let failed = null; // why the last look did not succeed
let changes = 0; // of what the store holds, as far as is known here
let shown = 0; // of these

function complain(words) {
  byId("problem").textContent = words;
  byId("problem").hidden = false;
}

function closeAccess() {
  const isFocused = byId("access").contains(document.activeElement);
  byId("access").hidden = true;
  if (isFocused) byId("choose").focus();
}

// Shows what the service tells now; one look at a time, so that nothing old overwrites what is newer.
async function look() {
  if (looking) return;
  looking = true;
  try {
    if (await heads.load()) changes += 1;
    const now = changes;
    if (shown < now) await store.load();
    shown = now;
    closeAccess();
    byId("problem").hidden = true;
    failed = null;
  } catch (error) {
    if (error.message !== failed) complain(error.message); // said once, not every three seconds
    failed = error.message;
  } finally {
    looking = false;
  }
}

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  if (/[^!-~]/.test(token)) {
    complain("This token has a character that cannot be sent.");
    return;
  }
  sessionStorage.setItem("token", token);
  failed = null;
  look();
});
pictures.start(() => {
  changes += 1;
  look();
});
heads.start();
map.start();
look();
setInterval(() => { if (!document.hidden) look(); }, 1000 * LOOK_SECONDS);
