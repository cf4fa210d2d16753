// Asking the service, with its token if it wants one; and making elements, whose texts are never markup.

export const byId = (id) => document.getElementById(id);

export function make(name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

export const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);

const pause = (seconds) => new Promise((go) => setTimeout(go, 1000 * seconds));

function unreachable() {
  throw new Error("The service cannot be reached. Is it still running?");
}

// ``seconds``: so long an answer may take; for ever if none are given.
export async function ask(path, { seconds, ...options } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const token = sessionStorage.getItem("token");
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const signal = seconds ? AbortSignal.timeout(1000 * seconds) : undefined;
    const response = await fetch(path, { ...options, headers, signal }).catch(unreachable);
    if (response.ok) return response;
    if (response.status === 401) {
      if (token !== sessionStorage.getItem("token")) continue; // another one was given since
      byId("access").hidden = false;
      throw new Error(token ? "The service refuses this token." : "The service needs its token.");
    }
    const wait = Number(response.headers.get("Retry-After"));
    if (response.status === 503 && wait && wait <= 5 && attempt < 5) {
      await pause(wait);
      continue;
    }
    const told = await response.json().catch(() => ({}));
    throw new Error(typeof told.detail === "string" ? told.detail : `The service answered ${response.status}.`);
  }
}

export async function askJson(path, options) {
  const text = await (await ask(path, options)).text().catch(unreachable);
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("What answers is not this service: it is no JSON.");
  }
}

// What is answered at once if the service is well.
export const askSoon = (path) => askJson(path, { seconds: 10 });

// Puts a small picture of a stored image into an <img>, which goes if there is none.
export async function thumbnail(digest, image, size = 160) {
  try {
    const response = await ask(`/v1/images/${digest}/thumbnail?size=${size}`);
    image.src = URL.createObjectURL(await response.blob());
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch {
    image.remove(); // it is not where it was last seen
  }
}
