// Requests to the service that this page came from, with the key that was entered.

const KEY = "calibrant-key";
const base = new URL("../", import.meta.url);

/** A refusal of the service, RFC 9457. */
export class Problem extends Error {
  constructor(document, status) {
    super(document.detail || document.title || `The service answered ${status}.`);
    this.code = document.code || "";
    this.status = status;
    this.errors = document.errors || [];
    this.document = document;
  }
}

export const address = (path) => new URL(path.replace(/^\//, ""), base).href;
// Of the tab: it is gone when that is closed.
export const key = () => sessionStorage.getItem(KEY);
export const useKey = (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY));

/** The response to a request; raises a Problem for a refusal. `body` is an object, sent as JSON, or a file. */
export async function ask(method, path, { body, headers = {}, signal } = {}) {
  const sent = { accept: "application/json", ...headers };
  if (key()) sent.authorization = `Bearer ${key()}`;
  const raw = body instanceof Blob;
  if (body !== undefined && !raw) sent["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(address(path), { method, headers: sent, body: raw ? body : JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ code: "unreachable", detail: "The service does not answer. Is it running?" }, 0);
  }
  if (response.ok) return response;
  const text = await response.text();
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    document = { detail: `The service answered ${response.status}.` };
  }
  throw new Problem(document, response.status);
}

export const json = async (...request) => (await ask(...request)).json();

/** Milliseconds by stage, of a response's `Server-Timing`. */
export function stages(response) {
  const entries = (response.headers.get("server-timing") || "").matchAll(/([\w-]+);dur=([\d.]+)/g);
  return Object.fromEntries([...entries].map(([, name, ms]) => [name, Number(ms)]));
}
