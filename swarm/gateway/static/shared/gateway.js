// Calls to the gateway that served this page: the key that it may want, and its errors in words.

const KEY = "swarm.key";

// status: the HTTP status, 0 when nothing answered. retryAfterS: what the gateway asked for, or null.
export class GatewayError extends Error {
  constructor(message, status, retryAfterS = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

export function apiKey() {
  return localStorage.getItem(KEY) ?? "";
}

export function setApiKey(key) {
  if (key) localStorage.setItem(KEY, key);
  else localStorage.removeItem(KEY);
}

// fetch() with the key. Throws: GatewayError, for an answer that is no success too; AbortError when aborted.
export async function call(path, { method = "GET", body, signal } = {}) {
  const headers = {};
  if (apiKey()) headers["Authorization"] = `Bearer ${apiKey()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, cache: "no-store", body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new GatewayError("The gateway cannot be reached. Is it still running?", 0);
  }
  if (!response.ok) throw await failure(response);
  return response;
}

export async function getJson(path, options) {
  return (await call(path, options)).json();
}

async function failure(response) {
  const text = await response.text().catch(() => "");
  const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  let message = `The gateway answered ${response.status} ${response.statusText}`.trim();
  try {
    message = wordsOf(JSON.parse(text)) || message;
  } catch {
    // not JSON: a proxy's page, whose status says enough
  }
  return new GatewayError(message, response.status, Number.isFinite(seconds) ? seconds : null);
}

// The message in either dialect's error, or in a list of what was wrong with a request.
function wordsOf(error) {
  if (typeof error?.error?.message === "string") return error.error.message;
  if (typeof error?.message === "string") return error.message;
  if (typeof error?.error === "string") return error.error;
  if (Array.isArray(error?.detail)) return error.detail.map((d) => d.msg).filter(Boolean).join("; ");
  return typeof error?.detail === "string" ? error.detail : "";
}
