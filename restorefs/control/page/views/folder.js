// One folder: its entries as a list that is sorted, filtered, walked by keys and selected from, and
// what of a file can be looked at.
//
// Owns what of it is in the address: #/files/BACKUP/DISK/path?sort=-time&q=name&view=FILE. The
// daemon sorts, filters and counts; here are only the pages in sight. Where one was in a folder is
// kept while the page is open, so that going back ends where one left.

import * as api from "../api.js";
import { announce, fill, h, icon, nameOf, plain } from "../dom.js";
import { download, downloadArchive } from "../download.js";
import { count, counted, exactSize, exactTime, size, when } from "../format.js";
import { Grid } from "../grid.js";
import { Pages } from "../pages.js";
import { problemBox } from "../problem.js";
import { folderLink, go, here, join, link, note, segments } from "../router.js";
import { crumbsInto } from "./backup.js";
import { preview } from "./preview.js";

const places = new Map(); // address without the file that is looked at -> {active, top}
const COLUMNS = [
  { id: "name", text: "Name", sort: "name" },
  { id: "size", text: "Size", sort: "size", first: "-" },
  { id: "time", text: "Modified", sort: "time", first: "-" },
  { id: "kind", text: "Type", sort: "type" },
  { id: "owner", text: "Owner" },
  { id: "mode", text: "Mode" },
];
const MOST_PATHS = 2000; // that the API takes as one archive

export async function show(route, signal) {
  const [id, disk] = route.parts;
  const path = join(...route.parts.slice(2));
  const [backup, mount] = await Promise.all([api.backup(id, signal), api.mountOf(id, disk)]);
  const view = new Folder({ id, disk: Number(disk), path, backup, mount, signal });
  await view.load(route.params);
  return view;
}

class Folder {
  constructor(where) {
    Object.assign(this, where);
    const name = segments(this.path).at(-1) ?? `Disk ${this.disk}`;
    this.title = `${plain(name)}, ${plain(this.backup.vm_name)}`;
    this.crumbs = crumbsInto(this.backup, this.disk, this.path);
    this.grid = new Grid({
      label: `Files in ${plain(name)}`,
      columns: COLUMNS,
      cells: (entry) => this._cells(entry),
      name: (entry) => plain(entry.name),
      open: (entry) => this._open(entry),
      up: () => this._up(),
      changed: () => this._showSelection(),
      sort: (sort) => this._change({ sort }),
      find: (text) => this._find(text),
    });
    this.focus = this.grid.element;
    this._build(name);
  }

  _to(path, params) {
    return folderLink(this.id, this.disk, path, params);
  }

  _build(name) {
    this._filter = h("input", {
      type: "search",
      placeholder: "Filter by name",
      "aria-label": "Filter by name",
    });
    let waiting;
    this._filter.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this._change({ q: this._filter.value }, true), 150);
    });
    this._filter.addEventListener("keydown", (event) => this._onFilterKey(event));
    this._summary = h("span", { class: "muted" });
    this._actions = h("span", { class: "tools" });
    this._clear = h(
      "button",
      { type: "button", "aria-label": "Clear selection", onclick: () => this.grid.clear() },
      "Clear",
      h("span", { class: "wide" }, "selection"),
    );
    this._message = h("div", {});
    const searching = link("search", [this.id, this.disk, ...segments(this.path)]);
    this.element = h(
      "section",
      { class: "page folder" },
      h(
        "div",
        { class: "head" },
        h("h1", {}, icon("directory"), nameOf(name)),
        h(
          "div",
          { class: "tools" },
          this._filter,
          h(
            "a",
            { class: "button", href: searching, title: "Search below", "aria-label": "Search below" },
            icon("search"),
            h("span", { class: "wide" }, "Search below"),
          ),
        ),
      ),
      h("div", { class: "head below" }, this._summary, this._actions),
      this._message,
      this.grid.element,
    );
    this._empty = h("p", { class: "empty muted" });
    this._showSelection();
  }

  // --- what the address says ----------------------------------------------------------------------

  get _place() {
    return this._to(this.path, { sort: this.params.sort, q: this.params.q });
  }

  /** Show another state of this folder, if the route means this folder. */
  async update(route) {
    const [id, disk] = route.parts;
    if (id !== this.id || Number(disk) !== this.disk || join(...route.parts.slice(2)) !== this.path)
      return false;
    const { sort, q } = this.params;
    if (route.params.sort !== sort || route.params.q !== q) await this.load(route.params);
    else this.params = route.params;
    this._look();
    return true;
  }

  _change(changes, inPlace = false) {
    const params = { ...this.params, ...changes, view: undefined };
    const href = this._to(this.path, params);
    if (!inPlace) return go(href);
    note(href);
    return this.update(here());
  }

  async load(params) {
    this._remember();
    this.params = params;
    if (this._filter.value !== (params.q ?? "")) this._filter.value = params.q ?? "";
    const sort = params.sort ?? "name";
    const asked = { path: this.path, sort, folders_first: true, q: params.q || undefined };
    const pages = new Pages(
      async (offset, limit) => {
        const answer = await api.files(this.mount, { ...asked, offset, limit }, this.signal);
        return { items: answer.files, total: answer.total_count };
      },
      () => this._arrived(pages),
    );
    this.pages = pages;
    const { count: before } = this.grid.selection;
    const chosen = before && before <= MOST_PATHS ? await this.grid.selected() : [];
    if (pages !== this.pages) return;
    const { active, top } = places.get(this._place) ?? { active: 0, top: 0 };
    await pages.want(0, 1);
    if (pages !== this.pages) return;
    if (pages.problem) throw pages.problem;
    await pages.want(active, active + 1);
    if (pages !== this.pages) return;
    const selected = await rowsOf(chosen, pages);
    if (pages !== this.pages) return;
    this._loaded = true;
    this._filtered = Boolean(params.q);
    this._lost = before - selected.length;
    this.grid.show(pages, sort, { active, top, selected });
    this.grid.element.hidden = pages.total === 0;
    if (pages.total === 0) {
      this._empty.textContent = params.q
        ? "Nothing here has a name like that."
        : "This folder is empty.";
      this.grid.element.before(this._empty);
    } else this._empty.remove();
    if (params.q) announce(this._summary.textContent);
    requestAnimationFrame(() => pages === this.pages && this.grid.scrollTo(top));
    if (params.view) requestAnimationFrame(() => this._look());
  }

  _arrived(pages) {
    if (pages !== this.pages || !this._loaded) return;
    if (pages.problem) {
      const problem = pages.problem;
      fill(
        this._message,
        problemBox(problem, () => {
          pages.problem = null;
          fill(this._message);
          this.grid.refresh();
          this._showSelection();
        }),
      );
      return;
    }
    this.grid.refresh();
  }

  _remember() {
    if (this.params)
      places.set(this._place, { active: this.grid.active, top: this.grid.element.scrollTop });
  }

  close() {
    this._remember();
    this.grid.close();
    this._closePreview();
  }

  // --- entries ------------------------------------------------------------------------------------

  _cells(entry) {
    const shown = entry.type === "symlink" && entry.target_type ? entry.target_type : entry.type;
    const href =
      shown === "directory"
        ? this._to(entry.path)
        : this._to(this.path, { ...this.params, view: entry.name });
    const sign = entry.error
      ? "warning"
      : entry.type === "symlink"
        ? shown === "directory"
          ? "directory"
          : "symlink"
        : entry.type;
    const target =
      entry.type === "symlink" &&
      entry.target !== undefined &&
      h("span", { class: "muted target" }, " → ", nameOf(entry.target));
    return [
      [
        icon(sign),
        h("a", { href, tabIndex: -1, draggable: false }, nameOf(entry.name)),
        target,
        entry.error && h("span", { class: "reason" }, entry.error),
      ],
      entry.type === "file" && !entry.error
        ? h("span", { title: exactSize(entry.size) }, size(entry.size))
        : "",
      entry.modified_time
        ? h(
            "time",
            { dateTime: entry.modified_time, title: exactTime(entry.modified_time) },
            when(entry.modified_time),
          )
        : "",
      kindOf(entry),
      entry.modified_time
        ? h("span", { title: `user ${entry.uid}, group ${entry.gid}` }, `${entry.uid}:${entry.gid}`)
        : "",
      modeOf(entry),
    ];
  }

  _open(entry) {
    this._remember();
    const shown = entry.type === "symlink" ? entry.target_type : entry.type;
    if (shown === "directory") go(this._to(entry.path));
    else go(this._to(this.path, { ...this.params, view: entry.name }));
  }

  _up() {
    const names = segments(this.path);
    if (names.length) go(this._to("/" + names.slice(0, -1).join("/")));
    else go(this.crumbs[2][1]);
  }

  _onFilterKey(event) {
    if (event.key === "Escape" && this._filter.value) {
      event.preventDefault();
      this._filter.value = "";
      this._change({ q: "" }, true);
    } else if (event.key === "ArrowDown" || event.key === "Enter" || event.key === "Escape") {
      event.preventDefault();
      this.grid.element.focus();
    }
  }

  /** The first row whose name begins so; what is here already is asked first. */
  async _find(text) {
    const asked = {
      path: this.path,
      sort: this.params.sort ?? "name",
      folders_first: true,
      q: this.params.q || undefined,
    };
    const { found } = await api.files(this.mount, { ...asked, limit: 1, find: text }, this.signal);
    if (found !== undefined) return found;
    const begins = ([, entry]) => entry.name.toLowerCase().startsWith(text.toLowerCase());
    const [first] = [...this.pages.here()].filter(begins).sort(([a], [b]) => a - b);
    return first ? first[0] : null;
  }

  // --- looking at a file --------------------------------------------------------------------------

  /** Open or close the preview as the address says. */
  async _look() {
    const name = this.params.view;
    if (this._dialog && this._looked === name) return;
    this._closePreview();
    if (!name) return;
    this._looked = name;
    const entry = await this._entryOf(name).catch(() => null);
    if (this._dialog || this.params.view !== name || this.signal.aborted) return;
    const dialog = preview(
      { ...this._about(), entry: entry ?? { name, path: join(this.path, name) } },
      () => {
        // A dialog gives the focus back by itself, and whoever is quick has taken it elsewhere since.
        if (document.activeElement === document.body) this.grid.element.focus();
        if (this._dialog !== dialog) return; // the address has changed already
        this._dialog = null;
        this._leavePreview();
      },
    );
    this._dialog = dialog;
  }

  _closePreview() {
    const dialog = this._dialog;
    this._dialog = null;
    dialog?.close();
  }

  /** What is told of an entry; one that is not here is made the active one. Null if it is none. */
  async _entryOf(name) {
    const known = [...this.pages.here()].find(([, entry]) => entry.name === name);
    if (known) return known[1];
    const pages = this.pages;
    const first = await this._find(name);
    if (first === null) return null;
    const last = Math.min(first + 50, pages.total); // others may begin so, too
    await pages.want(first, last);
    for (let index = first; index < last && pages === this.pages; index++) {
      const entry = pages.at(index);
      if (entry?.name !== name) continue;
      this.grid.move(index);
      return entry;
    }
    return null;
  }

  _about() {
    return { mount: this.mount, vm: this.backup.vm_name, disk: this.disk, signal: this.signal };
  }

  _leavePreview() {
    this.params = { ...this.params, view: undefined };
    go(this._to(this.path, this.params));
  }

  // --- the selection ------------------------------------------------------------------------------

  async _showSelection() {
    const { count: chosen } = this.grid.selection;
    const total = this.grid.length;
    const all = counted(total, "entry", "entries");
    const text = chosen
      ? `${counted(chosen, "entry", "entries")} of ${count(total)} selected`
      : all;
    this._summary.textContent = this._lost
      ? `${text}, ${count(this._lost)} no longer selected`
      : text;
    if (chosen || this._lost) announce(this._summary.textContent);
    this._lost = 0;
    const asked = (this._asked = {});
    fill(this._actions, chosen ? this._clear : this._folderActions());
    if (!chosen) return;
    const actions = await this._chosenActions(chosen, total);
    if (asked === this._asked) fill(this._actions, actions, this._clear);
  }

  _folderActions() {
    return this._archive([this.path], "Download folder as zip", "button");
  }

  async _chosenActions(chosen, total) {
    if (chosen === total && !this._filtered && chosen > 1)
      return this._archive([this.path], "Download as zip");
    if (chosen > MOST_PATHS) {
      const text = `At most ${count(MOST_PATHS)} can be downloaded at once: choose fewer, or all of the folder.`;
      return h("span", { class: "muted" }, text);
    }
    const entries = await this.grid.selected();
    if (entries.length < chosen) return null; // what cannot be fetched says so itself
    const [one] = entries;
    if (entries.length === 1 && one.type === "file") {
      const href = api.downloadLink(this.mount, one.path);
      return [
        download(href, this._message, { class: "button primary" }, [icon("download"), "Download"]),
        this._archive([one.path], "As zip", "button"),
      ];
    }
    return this._archive(
      entries.map((entry) => entry.path),
      "Download as zip",
    );
  }

  _archive(paths, text, look = "button primary") {
    const found = api.archive(this.mount, paths);
    return downloadArchive(found, this._message, { class: look }, [icon("download"), text]);
  }
}

/** Which rows of a list some entries are in now: what a filter leaves out is none. */
async function rowsOf(entries, pages) {
  if (!entries.length || pages.total > MOST_PATHS) return [];
  const paths = new Set(entries.map((entry) => entry.path));
  await pages.want(0, pages.total);
  return [...pages.here()].filter(([, entry]) => paths.has(entry.path)).map(([row]) => row);
}

function kindOf(entry) {
  const words = { directory: "Folder", symlink: "Link", file: "File", other: "Special" };
  const ending = /\.([A-Za-z0-9]{1,5})$/.exec(entry.name);
  if (entry.type === "file" && ending) return `${ending[1].toUpperCase()} file`;
  return words[entry.type] ?? entry.type;
}

/** "0644" as "rw-r--r--". */
function modeOf(entry) {
  if (!entry.modified_time) return ""; // its attributes cannot be read
  const bits = parseInt(entry.mode, 8);
  const plainBits = [..."rwxrwxrwx"].map((letter, index) =>
    bits & (0o400 >> index) ? letter : "-",
  );
  const special = [
    [0o4000, 2, "s"],
    [0o2000, 5, "s"],
    [0o1000, 8, "t"],
  ];
  for (const [bit, at, letter] of special) {
    if (bits & bit) plainBits[at] = plainBits[at] === "-" ? letter.toUpperCase() : letter;
  }
  return plainBits.join("");
}
