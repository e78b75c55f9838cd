// The API's calls, as docs/api.md describes them.
//
// Owns paths, parameters and how a failure becomes a Problem. Knows no element. A call may be given
// an AbortSignal; who is signed in is a cookie, which the browser sends with calls and links alike.

import { encode, isUtf8 } from "./names.js";

const ROOT = "/api/v1";

/** What the API says went wrong, or that it cannot be reached (status 0). */
export class Problem extends Error {
  constructor(status, detail, errno = null, retryAfter = null) {
    super(detail);
    this.status = status;
    this.errno = errno;
    this.retryAfter = retryAfter;
  }
}

/** Called at a 401 of any call but the session's own. */
let onSignedOut = () => {};
export function whenSignedOut(handler) {
  onSignedOut = handler;
}

/** Make an address; a parameter that is a list is given several times, undefined ones not at all. */
export function address(path, params = {}) {
  const pairs = Object.entries(params).flatMap(([key, value]) =>
    (Array.isArray(value) ? value : [value])
      .filter((each) => each !== undefined && each !== null)
      .map((each) => `${key}=${encode(String(each), true)}`),
  );
  return ROOT + path + (pairs.length ? "?" + pairs.join("&") : "");
}

async function request(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The restorefs daemon does not answer.");
  }
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (problem.status === 401 && !url.startsWith(ROOT + "/session")) onSignedOut();
  throw problem;
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  const detail = body.detail ?? `the daemon answered ${response.status} ${response.statusText}`;
  return new Problem(response.status, detail, body.errno, response.headers.get("Retry-After"));
}

const json = async (url, options) => (await request(url, options)).json();
const get = (path, params, signal) => json(address(path, params), { signal });

function send(method, path, body, signal) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  return json(ROOT + path, {
    method,
    headers,
    signal,
    body: body === undefined ? undefined : ascii(body),
  });
}

/** JSON in which lone surrogates (bytes that are no UTF-8) survive: as escapes. */
const ascii = (value) =>
  JSON.stringify(value).replace(
    /[^\x00-\x7f]/g,
    (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"),
  );

// --- who one is -----------------------------------------------------------------------------------

/** Who is signed in, or null. */
export async function whoAmI() {
  try {
    return await get("/session");
  } catch (problem) {
    if (problem.status === 401) return null;
    throw problem;
  }
}

export const signIn = (token) => send("POST", "/session", { token });
export const signOut = () => send("DELETE", "/session");

// --- backups --------------------------------------------------------------------------------------

export const vms = (params, signal) => get("/vms", params, signal);
export const backups = (params, signal) => get("/backups", params, signal);
export const disks = (id, signal) => get(`/backups/${encode(id)}/disks`, {}, signal);

/** Attach a disk, and get all that is on it. */
export const attach = (id, index, signal) => send("PUT", attachment(id, index), undefined, signal);
export const detach = (id, index) => send("DELETE", attachment(id, index));
const attachment = (id, index) => `/backups/${encode(id)}/disks/${index}/attachment`;

/** What the catalog says of one backup; a Problem if it has no such one. */
export async function backup(id, signal) {
  for (let offset = 0, total = 1; !known.has(id) && offset < total; offset += 100) {
    // `q` finds part of an id, so others may come first.
    const answer = await backups({ q: id, sort: "id", offset, limit: 100 }, signal);
    for (const each of answer.backups) known.set(each.backup_id, each);
    total = answer.total_count;
  }
  if (!known.has(id)) throw new Problem(404, `there is no backup '${id}'`, "ENOENT");
  return known.get(id);
}
const known = new Map();

export const versions = (params, signal) => get("/versions", params, signal);

// --- files ----------------------------------------------------------------------------------------

/**
 * The files of a disk. Its mount's id is the same for ever, and the daemon attaches the disk again
 * by itself, so one question per disk is enough.
 */
export async function mountOf(id, index) {
  const key = `${index} ${id}`;
  if (!mounts.has(key)) {
    const { mount_id } = await send("POST", "/restore/mount", {
      backup_id: id,
      disk_index: Number(index),
    });
    mounts.set(key, mount_id);
  }
  return mounts.get(key);
}
const mounts = new Map();

export const files = (mount, params, signal) =>
  get(`/restore/${encode(mount)}/files`, params, signal);
export const downloadLink = (mount, path) =>
  address(`/restore/${encode(mount)}/download`, { path });
export const previewLink = (mount, path) => address(`/restore/${encode(mount)}/preview`, { path });

/** Ask for an answer's headers alone. A Problem says why there would be none. */
export async function ask(url, signal) {
  try {
    return (await request(url, { method: "HEAD", signal })).headers;
  } catch (problem) {
    if (!problem.status) throw problem;
    // An answer to HEAD has no body: what is wrong is in that to GET.
    const response = await request(url, { signal });
    await response.body?.cancel();
    return response.headers;
  }
}

const LONGEST_ADDRESS = 8000; // what is longer is sent as a form

/**
 * Where a selection comes from as one archive: an address, or what a form must send where that
 * gets too long. What cannot be read is named in the archive's last entry. `asks`: addresses that
 * have a problem if the archive has one.
 */
export function archive(mount, paths) {
  const path = `/restore/${encode(mount)}/archive`;
  const of = (some) => address(path, { format: "zip", errors: "list", path: some });
  const href = of(paths);
  if (href.length <= LONGEST_ADDRESS) return { href, asks: [href] };
  // A form cannot hold every name: line ends become others in it, and what is no UTF-8 is lost.
  const odd = paths.filter((each) => /[\r\n]/.test(each) || !isUtf8(each));
  const fields = paths.filter((each) => !odd.includes(each)).map((each) => ["path", each]);
  return { action: of(odd), fields, asks: inParts(paths, of) };
}

function inParts(paths, of) {
  if (paths.length === 1 || of(paths).length <= LONGEST_ADDRESS) return [of(paths)];
  const half = paths.length >> 1;
  return [...inParts(paths.slice(0, half), of), ...inParts(paths.slice(half), of)];
}

/** The media type of what a preview shows. */
export const previewKind = async (mount, path, signal) =>
  (await ask(previewLink(mount, path), signal)).get("Content-Type") ?? "";

/** An image, as a Blob. */
export const previewImage = async (mount, path, signal) =>
  (await request(previewLink(mount, path), { signal })).blob();

/** The first `bytes` of a text, and whether that is the whole one. */
export async function previewText(mount, path, bytes, signal) {
  const url = address(`/restore/${encode(mount)}/preview`, { path, bytes });
  const response = await request(url, { signal });
  const whole = response.headers.get("X-Truncated") !== "true";
  return { text: await response.text(), whole };
}

/** Yield the records of a search as they come; abort the signal to cancel it. */
export async function* search(mount, params, signal) {
  const response = await request(address(`/restore/${encode(mount)}/search`, params), { signal });
  yield* lines(response.body);
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const found = (rest + (value ?? "")).split("\n");
    rest = done ? "" : found.pop();
    yield* found.filter(Boolean).map((line) => JSON.parse(line));
    if (done) return;
  }
}

// --- the daemon -----------------------------------------------------------------------------------

export const status = (signal) => get("/status", {}, signal);
