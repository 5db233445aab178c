// Requests to the own server. A failure says whether trying again can help.
export class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; this.again = status === 0 || status === 429 || status >= 500; }
}

async function ask(path, options) {
  let reply;
  try { reply = await fetch(path, { credentials: "same-origin", ...options }); }
  catch { throw new Refused(0, "the server cannot be reached"); }
  let body = {};
  try { body = await reply.json(); } catch { /* an error without a body */ }
  if (!reply.ok) throw new Refused(reply.status, body.error ?? `error ${reply.status}`);
  return body;
}

export const get = (path) => ask(path, {});
export const post = (path, body, more = {}) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), ...more });
export const beacon = (path, body) => navigator.sendBeacon(path, new Blob([JSON.stringify(body)], { type: "application/json" }));

export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}
