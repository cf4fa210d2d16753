// Starts every part of the page, and loads what the service has to tell.

import { byId, complain } from "./ask.js";
import * as heads from "./heads.js";
import * as map from "./map.js";
import * as pictures from "./pictures.js";
import * as store from "./store.js";

function load() {
  byId("problem").hidden = true;
  for (const part of [heads, store]) part.load().catch(complain);
}

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  byId("access").hidden = true;
  load();
});
pictures.start(() => store.load().catch(complain));
heads.start();
map.start();
load();
