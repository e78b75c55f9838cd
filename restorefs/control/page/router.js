// Which view an address means.
//
// Owns the part of the address behind "#": back, forward, reload and bookmarks work because
// everything that a view shows is in it. A route is `#/NAME/part/part...?key=value`, each part
// percent-encoded. Knows no view: main.js names them.

import { decode, encode } from "./names.js";

/**
 * @typedef {object} Route
 * @property {string} name
 * @property {string[]} parts  decoded
 * @property {Record<string, string>} params  decoded
 */

/** @returns {Route} */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split(/\?(.*)/s);
  const [name, ...parts] = path.split("/").map(decode);
  const pairs = query.split("&").filter(Boolean);
  const params = Object.fromEntries(
    pairs.map((pair) => pair.split(/=(.*)/s).map((text) => decode(text ?? ""))),
  );
  return { name, parts, params };
}

/** Write a route; parameters without a value are left out. */
export function link(name, parts = [], params = {}) {
  const path = [name, ...parts].map((part) => encode(String(part))).join("/");
  const pairs = Object.entries(params)
    .filter(([, value]) => value !== undefined && value !== null && value !== "")
    .map(([key, value]) => `${key}=${encode(String(value))}`);
  return `#/${path}${pairs.length ? "?" + pairs.join("&") : ""}`;
}

export const here = () => parse(location.hash);

export function go(href) {
  location.hash = href;
}

/** Change the address without a new entry in the history, and without leaving the view. */
export function note(href) {
  history.replaceState(history.state, "", href);
}

// --- where things are -----------------------------------------------------------------------------

export const vmLink = (vm) => link("vm", [vm]);
export const backupLink = (id) => link("backup", [id]);

/** A folder; `path` as the API has it ("/part1/etc"). params: sort, q, find, view. */
export const folderLink = (id, disk, path, params) =>
  link("files", [id, disk, ...segments(path)], params);
export const versionsLink = (vm, disk, path) => link("versions", [vm, disk, ...segments(path)]);

export const segments = (path) => path.split("/").filter(Boolean);
export const join = (...parts) => "/" + parts.flatMap(segments).join("/");
