// One backup: its disks, and what is on each of them.
//
// Each disk is attached by a call of its own, so that one whose storage is slow or gone keeps none
// of the others waiting.

import * as api from "../api.js";
import { fill, h, icon, nameOf, plain, timeOf } from "../dom.js";
import { called, counted, exactTime, relative, size, when } from "../format.js";
import { advice, problemBox } from "../problem.js";
import { backupLink, folderLink, segments, vmLink } from "../router.js";

export async function show(route, signal) {
  const [id] = route.parts;
  const [backup, { disks }] = await Promise.all([api.backup(id, signal), api.disks(id, signal)]);
  const at = backup.created_at;
  const title = at ? when(at) : plain(id);
  const element = h(
    "section",
    { class: "page" },
    h(
      "div",
      { class: "head" },
      h("h1", {}, nameOf(backup.vm_name), " ", h("span", { class: "light" }, title)),
    ),
    h(
      "p",
      { class: "muted" },
      at && [timeOf(at, relative(at), exactTime(at)), " · "],
      counted(disks.length, "disk"),
      " · ",
      nameOf(id, { class: "id" }),
    ),
    disks.map((disk) => diskPanel(id, disk, signal)),
  );
  return {
    title: `${plain(backup.vm_name)}, ${title}`,
    element,
    crumbs: crumbsOf(backup).map(lastPlain),
  };
}

/** The breadcrumbs down to a backup. */
export function crumbsOf(backup) {
  const title = backup.created_at ? when(backup.created_at) : nameOf(backup.backup_id);
  return [
    ["All machines", "#/"],
    [nameOf(backup.vm_name), vmLink(backup.vm_name)],
    [title, backupLink(backup.backup_id)],
  ];
}

/** The breadcrumbs down to a folder of a disk, or to whatever is at its path. */
export function crumbsInto(backup, disk, path) {
  const names = segments(path);
  const to = (depth) => folderLink(backup.backup_id, disk, "/" + names.slice(0, depth).join("/"));
  return [
    ...crumbsOf(backup),
    [`Disk ${disk}`, to(0)],
    ...names.map((name, index) => [nameOf(name), to(index + 1)]),
  ];
}

const lastPlain = ([text, href], index, all) => [text, index === all.length - 1 ? null : href];

function diskPanel(id, disk, signal) {
  const facts = h("span", { class: "muted" }, disk.size_gb ? `${disk.size_gb} GB` : "");
  const content = h("div", {});
  const heading = `disk-${disk.disk_index}`;

  async function load() {
    fill(content, h("p", { class: "busy", role: "status" }, "Looking into the disk …"));
    try {
      const found = await api.attach(id, disk.disk_index, signal);
      const table = found.table && found.table !== "none" ? `, ${found.table.toUpperCase()}` : "";
      facts.textContent = `${size(found.size)}${table}`;
      fill(content, reasonBox(found), notes(found.notes), volumes(id, found));
    } catch (problem) {
      if (problem.name === "AbortError") return;
      fill(content, problemBox(problem, load));
    }
  }

  load();
  return h(
    "section",
    { class: "panel", "aria-labelledby": heading },
    h("h2", { id: heading }, icon("disk"), `Disk ${disk.disk_index} `, facts),
    content,
  );
}

const notes = (texts) => texts?.map((text) => h("p", { class: "note" }, text));

/** The last failure of a disk, unless it is that of a volume, which says so itself. */
function reasonBox({ error, volumes }) {
  const told = volumes.map(reasonOf).some((reason) => reason && error?.includes(reason));
  return error && !told && h("p", { class: "note warn" }, icon("warning"), error);
}

function volumes(id, disk) {
  if (!disk.volumes.length) return h("p", { class: "muted" }, "There is nothing on this disk.");
  const withFiles = (volume) =>
    volume.folder || volume.encrypted || volume.error || volume.elsewhere !== null;
  const shown = disk.volumes.filter(withFiles);
  const rest = disk.volumes.filter((volume) => !shown.includes(volume));
  return [
    h(
      "ul",
      { class: "rows" },
      shown.map((volume) => h("li", {}, volumeRow(id, disk, volume))),
    ),
    rest.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, `${counted(rest.length, "other part")} without files`),
        h(
          "ul",
          { class: "rows" },
          rest.map((volume) => h("li", {}, volumeRow(id, disk, volume))),
        ),
      ),
  ];
}

function volumeRow(id, disk, volume) {
  const kind = kindOf(volume);
  const label = volume.label || volume.part_label;
  const reason = reasonOf(volume);
  const about = [
    h(
      "strong",
      {},
      nameOf(volume.name || "Whole disk"),
      label && [" ", nameOf(label, { class: "label" })],
    ),
    h("span", { class: "muted" }, kind),
  ];
  const end = h("span", { class: "end" }, size(volume.size));
  if (volume.elsewhere !== null) return onOtherDisk(id, volume, about, end);
  if (volume.folder && !reason) {
    const href = folderLink(id, disk.disk_index, "/" + volume.name);
    return [
      h("a", { class: "row", href }, icon("directory"), h("span", { class: "grow" }, about), end),
      volume.notes.map((text) => h("p", { class: "note inside" }, text)),
    ];
  }
  const extra = reason
    ? explained(volume, reason)
    : volume.notes.map((text) => h("span", { class: "muted" }, text));
  const sign = volume.encrypted ? "lock" : reason ? "warning" : "disk";
  return h(
    "div",
    { class: "row still" },
    icon(sign),
    h("span", { class: "grow" }, about, extra),
    end,
  );
}

/** A logical volume that begins on another disk is shown there. */
function onOtherDisk(id, volume, about, end) {
  const href = folderLink(id, volume.elsewhere, "/" + volume.name);
  const where = h("span", { class: "muted" }, `on disk ${volume.elsewhere}, too`);
  return h(
    "a",
    { class: "row", href },
    icon("directory"),
    h("span", { class: "grow" }, about, where),
    end,
  );
}

const kindOf = (volume) =>
  volume.filesystem ? called(volume.filesystem) : volume.type || "unknown";

/** Why a volume cannot be read: the API says so once somebody has looked inside. */
function reasonOf(volume) {
  if (volume.error) return volume.error;
  if (volume.encrypted) return `${kindOf(volume)} is encrypted, and its key is not known`;
  return volume.folder && !volume.readable ? `${kindOf(volume)} is recognised, but not read` : null;
}

/** A reason, and what to do: of a volume the API gives no errno, but says what it is. */
function explained(volume, reason) {
  const errno = volume.encrypted
    ? "ENOKEY"
    : volume.filesystem && !volume.readable
      ? "EOPNOTSUPP"
      : "EIO";
  return [
    h("span", { class: "reason" }, reason),
    h("span", { class: "muted" }, advice({ errno })[1]),
  ];
}
