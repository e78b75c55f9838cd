// Files below a folder by a pattern of their name, as they are found.
//
// #/search/BACKUP/DISK/path?pattern=*.txt. The answer is a stream: rows appear as they come, and
// leaving the view, or the button, ends the search in the daemon, too.

import * as api from "../api.js";
import { announce, fill, h, icon, nameOf, plain } from "../dom.js";
import { count, counted, exactTime, size, when } from "../format.js";
import { problemBox } from "../problem.js";
import { folderLink, go, join, link, segments } from "../router.js";
import { crumbsInto } from "./backup.js";

const MOST = 2000;
const MOST_ERRORS = 200;

export async function show(route, signal) {
  const [id, disk] = route.parts;
  const path = join(...route.parts.slice(2));
  const [backup, mount] = await Promise.all([api.backup(id, signal), api.mountOf(id, disk)]);
  const where = { id, disk: Number(disk), path, mount };
  const field = h("input", {
    type: "search",
    id: "pattern",
    value: route.params.pattern ?? "",
    placeholder: "report or *.docx",
    "aria-describedby": "pattern-help",
  });
  const form = h(
    "form",
    { class: "searching", role: "search", onsubmit: (event) => onSubmit(event, where, field) },
    h("label", { for: "pattern" }, "Name"),
    field,
    h("button", { type: "submit", class: "primary" }, icon("search"), "Search"),
  );
  const results = h("div", {});
  const name = segments(path).at(-1) ?? `Disk ${disk}`;
  const element = h(
    "section",
    { class: "page" },
    h("h1", {}, "Search below ", nameOf(name)),
    form,
    h(
      "p",
      { id: "pattern-help", class: "muted small" },
      "Part of a name, or a pattern with * and ?. Upper and lower case are the same.",
    ),
    results,
  );
  if (route.params.pattern) run(where, route.params.pattern, results, signal);
  const crumbs = [...crumbsInto(backup, disk, path), ["Search", null]];
  return {
    title: `Search below ${plain(name)}`,
    element,
    crumbs,
    focus: route.params.pattern ? null : field,
  };
}

function onSubmit(event, { id, disk, path }, field) {
  event.preventDefault();
  if (field.value) go(link("search", [id, disk, ...segments(path)], { pattern: field.value }));
}

/** What was typed as a pattern of the API: part of a name, unless it has signs of a pattern. */
const asPattern = (typed) => (/[*?[]/.test(typed) ? typed : `*${typed}*`);

async function run(where, typed, place, signal) {
  const controller = new AbortController();
  signal.addEventListener("abort", () => controller.abort());
  const cancel = h("button", { type: "button", onclick: () => controller.abort() }, "Stop");
  const state = h("p", { class: "muted grow" }, "Searching …");
  const bar = h("progress", { "aria-label": "Searching" });
  const rows = h("tbody", {});
  const table = h(
    "table",
    { class: "found", hidden: true },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["Name", "Folder", "Size", "Modified"].map((text) => h("th", { scope: "col" }, text)),
      ),
    ),
    rows,
  );
  const errors = h("ul", { class: "errors" });
  const number = h("summary", {});
  const unread = h("details", { hidden: true, open: true }, number, errors);
  fill(place, h("div", { class: "head below" }, state, bar, cancel), unread, table);

  let matches = 0;
  let failed = 0;
  const take = {
    match(found) {
      matches++;
      table.hidden = false;
      rows.append(row(where, found));
    },
    error({ path, detail }) {
      unread.hidden = false;
      number.textContent = `What could not be searched (${count(++failed)})`;
      if (failed <= MOST_ERRORS) errors.append(h("li", {}, errorOf(where, path), ": ", detail));
      else if (failed === MOST_ERRORS + 1)
        errors.append(h("li", {}, `Only the first ${count(MOST_ERRORS)} are named here.`));
    },
    progress({ folders, entries, path }) {
      fill(
        state,
        `${counted(matches, "match", "matches")} in ${counted(folders, "folder")}, ${count(entries)} entries: now in `,
        nameOf(path ?? ""),
      );
    },
    end({ folders, entries, limited, complete }) {
      const more = limited ? ` There are more: only the first ${count(MOST)} are shown.` : "";
      const lacking = complete ? "" : " Not everything could be searched.";
      state.textContent = `${counted(matches, "match", "matches")} in ${counted(folders, "folder")}, ${count(entries)} entries.${more}${lacking}`;
    },
  };
  try {
    let ended = false;
    const params = { path: where.path, pattern: asPattern(typed), limit: MOST };
    for await (const record of api.search(where.mount, params, controller.signal)) {
      take[record.record]?.(record);
      ended ||= record.record === "end";
    }
    if (!ended) throw new api.Problem(502, "The search broke off before its end.");
  } catch (problem) {
    if (problem.name === "AbortError")
      state.textContent = `Stopped: ${counted(matches, "match", "matches")} so far.`;
    else place.prepend(problemBox(problem, () => run(where, typed, place, signal)));
  } finally {
    bar.remove();
    if (document.activeElement === cancel) place.closest("section")?.querySelector("input").focus();
    cancel.remove();
    announce(state.textContent);
  }
}

/** The place that could not be searched, as a link to what the page says of it. */
const errorOf = ({ id, disk }, path) =>
  h("a", { href: folderLink(id, disk, path) }, nameOf(path));

function row({ id, disk }, found) {
  const folder = "/" + segments(found.path).slice(0, -1).join("/");
  const isFolder = found.type === "directory";
  const href = isFolder
    ? folderLink(id, disk, found.path)
    : folderLink(id, disk, folder, { view: found.name });
  return h(
    "tr",
    {},
    h(
      "th",
      { scope: "row" },
      icon(isFolder ? "directory" : found.type),
      h("a", { href }, nameOf(found.name)),
    ),
    h("td", { class: "where" }, h("a", { href: folderLink(id, disk, folder) }, nameOf(folder))),
    h("td", { class: "number" }, found.type === "file" ? size(found.size) : ""),
    h(
      "td",
      { title: found.modified_time ? exactTime(found.modified_time) : "" },
      when(found.modified_time),
    ),
  );
}
