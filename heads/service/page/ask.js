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

export async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...(options.headers || {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  for (let attempt = 1; ; attempt += 1) {
    const response = await fetch(path, { ...options, headers }).catch(() => {
      throw new Error("The service cannot be reached. Is it still running?");
    });
    if (response.ok) return response;
    if (response.status === 401) {
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

export const askJson = async (path) => (await ask(path)).json();

export function complain(error) {
  byId("problem").textContent = error.message || String(error);
  byId("problem").hidden = false;
}

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
