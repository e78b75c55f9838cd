// One file in every backup of its machine, and two of them side by side.
//
// #/versions/VM/DISK/path. Small text files are compared here, line by line.

import * as api from "../api.js";
import { fill, h, icon, nameOf, plain, timeOf } from "../dom.js";
import { diffLines, withContext } from "../diff.js";
import { download } from "../download.js";
import { count, counted, exactSize, exactTime, size, when } from "../format.js";
import { problemBox } from "../problem.js";
import { backupLink, folderLink, join, segments, vmLink } from "../router.js";

const BACKUPS = 20; // looked into at once: each one's disk is attached
const SHOWN = 256 * 1024;

export async function show(route, signal) {
  const [vm, disk] = route.parts;
  const path = join(...route.parts.slice(2));
  const name = segments(path).at(-1);
  const view = new Versions(vm, disk, path, signal);
  view.more();
  const element = h(
    "section",
    { class: "page" },
    h("h1", {}, "Versions of ", nameOf(name)),
    h("p", { class: "muted" }, nameOf(path), " on disk ", disk, " of ", nameOf(vm)),
    view.element,
  );
  const crumbs = [
    ["All machines", "#/"],
    [nameOf(vm), vmLink(vm)],
    ["Versions of ", null],
  ];
  crumbs[2][0] = h("span", {}, "Versions of ", nameOf(name));
  return { title: `Versions of ${plain(name)}`, element, crumbs };
}

class Versions {
  constructor(vm, disk, path, signal) {
    Object.assign(this, {
      vm,
      disk,
      path,
      signal,
      offset: 0,
      backups: [], // that were looked into: with a version, or without
      found: [], // the versions among them
      chosen: { a: null, b: null },
    });
    this.head = h("tr", {});
    this.rows = h("tbody", {});
    this.state = h("p", { class: "muted", role: "status" });
    this.problems = h("div", {});
    this.refused = h("div", {});
    this.comparison = h("section", { class: "comparison", "aria-label": "Comparison" });
    this.older = h(
      "button",
      { type: "button", hidden: true, onclick: () => this.more() },
      "Look into older backups",
    );
    this.table = h(
      "table",
      { class: "found versions", hidden: true },
      h("thead", {}, this.head),
      this.rows,
    );
    this.element = h(
      "div",
      { class: "versions-view" },
      h("div", {}, this.state, this.refused, this.table, this.older, this.problems),
      this.comparison,
    );
  }

  async more() {
    this.state.textContent = "Looking into the backups …";
    this.older.hidden = true;
    try {
      const params = {
        vm: this.vm,
        path: this.path,
        disk_index: this.disk,
        offset: this.offset,
        limit: BACKUPS,
      };
      const answer = await api.versions(params, this.signal);
      this.offset = Math.min(this.offset + BACKUPS, answer.total_count);
      this.older.hidden = this.offset >= answer.total_count;
      this._add(answer);
      this.state.textContent = this._summary(answer.total_count);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.state.textContent = "";
      fill(
        this.problems,
        problemBox(problem, () => (fill(this.problems), this.more())),
      );
    }
  }

  _summary(total) {
    const where =
      this.offset < total
        ? `the newest ${count(this.offset)} of ${counted(total, "backup")}`
        : counted(total, "backup");
    const distinct = this.found.filter((version, at) => this._change(at) !== "same").length;
    return `${counted(this.found.length, "backup has", "backups have")} it (${counted(distinct, "version")}), of ${where}.`;
  }

  _add({ versions, absent, errors }) {
    this.backups.push(...inOrder(versions, absent, errors));
    this.found.push(...versions);
    this.table.hidden = this.found.length === 0;
    const files = this.found.filter(isFile);
    const first = !this.chosen.a && files.length > 1;
    if (first) this._choose(files);
    this._show(files.length > 1);
    if (first) this._compare();
    for (const error of errors) {
      const problem = new api.Problem(
        null,
        `${error.backup_id}, disk ${error.disk_index}: ${error.detail}`,
        error.errno,
      );
      this.problems.append(problemBox(problem));
    }
  }

  /** The newest file, and the newest that differs from it. */
  _choose(files) {
    const last = this.found.findIndex((version, at) => this._change(at) === "changed");
    const other = this.found[last + 1];
    this.chosen = { b: files[0], a: last >= 0 && isFile(other) ? other : files[1] };
  }

  /** Show what was found; `comparable`: there are two to choose. */
  _show(comparable) {
    const columns = [...(comparable ? ["Old", "New"] : []), "Backup", "Size", "Modified"];
    fill(
      this.head,
      columns.map((text) => h("th", { scope: "col" }, text)),
      h("th", { scope: "col" }, h("span", { class: "unseen" }, "Download")),
    );
    fill(
      this.rows,
      this.backups.map((each) =>
        each.mount_id
          ? this._row(each, this.found.indexOf(each), comparable)
          : this._rowWithout(each, comparable),
      ),
    );
  }

  _rowWithout(backup, comparable) {
    const why = backup.detail ? "could not be looked into" : "not in this backup";
    return h(
      "tr",
      { class: "without" },
      comparable && [h("td", {}), h("td", {})],
      h(
        "th",
        { scope: "row" },
        h("a", { href: backupLink(backup.backup_id) }, sideName(backup)),
        h("span", { class: "tag" }, why),
      ),
      [1, 2, 3].map(() => h("td", {})),
    );
  }

  /** How a version differs from the next older one: "changed", "same", or "" if not known. */
  _change(at) {
    const { differs } = this.found[at];
    return differs === null ? "" : differs ? "changed" : "same";
  }

  _row(version, at, comparable) {
    const pick = (side, label) => {
      const time = when(version.created_at) || version.backup_id;
      const props = {
        type: "radio",
        name: side,
        value: at,
        checked: this.chosen[side] === version,
        "aria-label": `${label} one to compare: ${time}`,
      };
      const onchange = () => ((this.chosen[side] = version), this._compare());
      const choice = [h("input", { ...props, onchange }), h("span", {}, label)];
      return h("td", {}, isFile(version) && h("label", { class: "pick" }, choice));
    };
    const last = at === this.found.length - 1;
    const words = {
      changed: "changed",
      same: "same as the older one",
      "": last ? "oldest found" : "not compared",
    };
    const names = segments(version.path);
    const [path, params] =
      version.type === "directory"
        ? [version.path]
        : ["/" + names.slice(0, -1).join("/"), { view: names.at(-1) }];
    return h(
      "tr",
      { class: this._change(at) },
      comparable && [pick("a", "Old"), pick("b", "New")],
      h(
        "th",
        { scope: "row" },
        h(
          "a",
          { href: folderLink(version.backup_id, version.disk_index, path, params) },
          sideName(version),
        ),
        h("span", { class: "tag" }, words[this._change(at)]),
      ),
      isFile(version)
        ? h("td", { class: "number", title: exactSize(version.size) }, size(version.size))
        : h("td", {}),
      h(
        "td",
        { title: version.modified_time ? exactTime(version.modified_time) : "" },
        when(version.modified_time),
      ),
      h(
        "td",
        {},
        isFile(version) &&
          download(
            api.downloadLink(version.mount_id, version.path),
            this.refused,
            {
              class: "button small",
              title: "Download",
              "aria-label": `Download the one of ${when(version.created_at) || version.backup_id}`,
            },
            icon("download"),
          ),
      ),
    );
  }

  async _compare() {
    const { a, b } = this.chosen;
    this.comparing?.abort();
    if (!a || !b) return;
    const controller = (this.comparing = new AbortController());
    this.signal.addEventListener("abort", () => controller.abort());
    const heading = h("h2", {}, "What changed from ", sideName(a), " to ", sideName(b));
    fill(
      this.comparison,
      heading,
      a === b
        ? h("p", { class: "muted" }, "Choose two different ones.")
        : h("p", { class: "busy" }, "Comparing …"),
    );
    if (a === b) return;
    try {
      const result = await comparison(a, b, controller.signal);
      if (!controller.signal.aborted) fill(this.comparison, heading, result);
    } catch (problem) {
      if (problem.name !== "AbortError")
        fill(
          this.comparison,
          heading,
          problemBox(problem, () => this._compare()),
        );
    }
  }
}

const isFile = (version) => version.type === "file";

/** The backups of an answer, newest first, each once. */
function inOrder(versions, absent, errors) {
  const known = [...versions, ...absent];
  const has = (id) => known.some((each) => each.backup_id === id);
  for (const error of errors) if (!has(error.backup_id)) known.push(error);
  const orderOf = ({ created_at: at, backup_id: id }) => `${at ?? ""} ${id}`;
  return known.sort((a, b) => (orderOf(a) < orderOf(b) ? 1 : -1));
}

const sideName = (version) =>
  version.created_at
    ? timeOf(version.created_at, when(version.created_at), exactTime(version.created_at))
    : nameOf(version.backup_id);

async function comparison(a, b, signal) {
  const say = (text) => h("p", { class: "muted" }, text);
  if (a.size > SHOWN || b.size > SHOWN)
    return say(`Only files up to ${size(SHOWN)} are compared here. Download both to compare them.`);
  const texts = await Promise.all([a, b].map((version) => textFor(version, signal)));
  if (texts.includes(null))
    return say("This is no text that could be compared here. Download both to compare them.");
  const script = diffLines(...texts);
  if (script === null) return say("The two are too different to be compared here.");
  if (script.every((line) => line.kind === "same")) return say("The two have the same lines.");
  return table(withContext(script));
}

async function textFor(version, signal) {
  if (version.size === 0) return "";
  try {
    const of = [version.mount_id, version.path];
    if (!(await api.previewKind(...of, signal)).startsWith("text/")) return null;
    return (await api.previewText(...of, SHOWN, signal)).text;
  } catch (problem) {
    if (problem.status === 415) return null;
    throw problem;
  }
}

const SIGNS = { added: ["+", "added: "], removed: ["−", "removed: "], same: [" ", ""] };

function table(lines) {
  return h(
    "div",
    { class: "diff", tabIndex: 0, role: "region", "aria-label": "Changed lines" },
    lines.map((line) => {
      if (line.kind === "gap")
        return h("p", { class: "gap" }, `${counted(line.lines, "line")} the same`);
      const [sign, words] = SIGNS[line.kind];
      return h(
        "p",
        { class: line.kind },
        h("span", { class: "sign", "aria-hidden": "true" }, sign),
        words && h("span", { class: "unseen" }, words),
        h("span", { class: "line" }, line.text || " "),
      );
    }),
  );
}
