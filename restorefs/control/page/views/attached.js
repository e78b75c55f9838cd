// Which disks are attached now, by whom and for how long, and what failed and why.
//
// It asks again every few seconds while it is in sight; a row stays the same element as long as its
// disk is attached, so that the focus stays on its button.

import * as api from "../api.js";
import { announce, fill, h, icon, nameOf, plain, timeOf } from "../dom.js";
import { called, count, counted, duration, exactTime, relative, size, when } from "../format.js";
import { advice, problemBox } from "../problem.js";
import { backupLink } from "../router.js";

const EVERY_MS = 5000;

export async function show(route, signal) {
  const view = new Attached(signal);
  await view.load();
  const timer = setInterval(
    () => document.visibilityState === "visible" && view.load().catch(() => {}),
    EVERY_MS,
  );
  return {
    title: "Attached disks",
    crumbs: [],
    element: view.element,
    close: () => clearInterval(timer),
  };
}

class Attached {
  constructor(signal) {
    this.signal = signal;
    this.rows = new Map(); // mount_id -> {element, show}
    this.about = h("p", { class: "muted" });
    this.catalog = h("div", {});
    this.list = h("ul", { class: "rows cards" });
    this.failures = h("div", {});
    this.facts = h("p", { class: "muted small" });
    this.element = h(
      "section",
      { class: "page" },
      h("h1", { tabIndex: -1 }, "Attached disks"),
      this.about,
      this.catalog,
      this.list,
      this.failures,
      this.facts,
    );
  }

  async load() {
    const status = await api.status(this.signal);
    await Promise.all([...status.attached, ...status.failures].map(nameBackup));
    const idle = status.idle_timeout_seconds
      ? `A disk that nobody uses for ${duration(status.idle_timeout_seconds)} is let go by itself.`
      : "Disks stay attached until somebody lets go of them.";
    const number = status.attached.length;
    const now = number ? counted(number, "disk is", "disks are") : "No disk is";
    const most = count(status.max_attached);
    this.about.textContent = `${now} attached now, of at most ${most}. ${idle}`;
    fill(
      this.catalog,
      status.catalog_error && catalogBox(status.catalog_error),
      status.catalog_unread?.length > 0 && unreadBox(status.catalog_unread),
    );
    this._showRows(status.attached);
    this._showFailures(status.failures);
    this.facts.textContent = [
      `restorefs ${status.version}`,
      counted(status.backups, "backup"),
      counted(status.disks, "disk"),
      `mounted at ${status.mountpoint}`,
      `since ${when(status.started_at)}`,
    ].join(" · ");
  }

  _showRows(attached) {
    const now = new Set(attached.map(keyOf));
    for (const [key, { element }] of this.rows) {
      if (now.has(key)) continue;
      if (element.contains(document.activeElement)) this.element.querySelector("h1").focus();
      element.remove();
      this.rows.delete(key);
    }
    for (const disk of attached) {
      const key = keyOf(disk);
      if (!this.rows.has(key)) {
        const row = this._row(disk);
        this.rows.set(key, row);
        this.list.append(row.element);
      }
      this.rows.get(key).show(disk);
    }
  }

  _row(disk) {
    const detail = h("dl", { class: "facts" });
    const error = h("p", { class: "error", role: "alert" });
    const button = h(
      "button",
      {
        type: "button",
        "aria-label": `Let go of disk ${disk.disk_index} of ${plain(disk.named)}`,
      },
      icon("eject"),
      "Let go",
    );
    button.addEventListener("click", async () => {
      if (button.ariaDisabled === "true") return; // it keeps the focus, so it is not disabled
      button.ariaDisabled = "true";
      error.textContent = "";
      try {
        await api.detach(disk.backup_id, disk.disk_index);
        announce(`Disk ${disk.disk_index} of ${plain(disk.named)} was let go.`);
        await this.load();
      } catch (problem) {
        error.textContent = problem.message;
      }
      button.ariaDisabled = null;
    });
    const head = h(
      "div",
      { class: "head" },
      h(
        "span",
        { class: "grow" },
        h("strong", {}, icon("disk"), diskName(disk)),
        nameOf(disk.backup_id, { class: "muted id" }),
      ),
      button,
    );
    const element = h("li", { class: "panel" }, head, error, detail);
    return { element, show: (now) => fill(detail, factsOf(now)) };
  }

  _showFailures(failures) {
    if (!failures.length) return fill(this.failures);
    return fill(
      this.failures,
      h("h2", {}, "What could not be read"),
      h("ul", { class: "rows" }, failures.map(failureRow)),
    );
  }
}

/** What people know a backup by is its machine and time; its id where the catalog has none. */
async function nameBackup(disk) {
  const backup = await api.backup(disk.backup_id).catch(() => null);
  const parts = backup && [backup.vm_name, when(backup.created_at)].filter(Boolean);
  disk.named = parts ? parts.join(", ") : disk.backup_id;
}

const diskName = (disk) => [
  `Disk ${disk.disk_index} of `,
  h("a", { href: backupLink(disk.backup_id) }, nameOf(disk.named)),
];

const keyOf = (disk) => `${disk.disk_index} ${disk.backup_id}`;

function factsOf(disk) {
  const by = disk.attached_for; // null for a token of some machines
  const program = by && `${by.program || "a program"} (user ${by.uid}, process ${by.pid})`;
  const who = by?.client ? `${by.client}, over the API or this page` : program;
  const shares = disk.shares_volumes_with?.length
    ? `with disk ${disk.shares_volumes_with.join(", ")}`
    : null;
  const facts = [
    ["Holds", disk.filesystems.map(called).join(", ") || "nothing that is read"],
    ["Asked for by", who],
    [
      "Attached",
      timeOf(
        disk.attached_at,
        `${when(disk.attached_at)} (${relative(disk.attached_at)})`,
        exactTime(disk.attached_at),
      ),
    ],
    [
      "Last used",
      timeOf(
        disk.last_accessed_at,
        relative(disk.last_accessed_at),
        exactTime(disk.last_accessed_at),
      ),
    ],
    ["Until", untilWhen(disk)],
    ["Joined", shares],
    ["Read so far", size(disk.bytes_read)],
  ];
  return facts
    .filter(([, value]) => value)
    .map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, value)));
}

function untilWhen({ requests_under_way: busy, expires_at: end }) {
  if (busy) return "in use now";
  if (!end) return "somebody lets go of it";
  return timeOf(end, `${when(end)} (${relative(end)}), if nobody uses it`, exactTime(end));
}

const catalogBox = (text) =>
  problemBox(
    new api.Problem(502, `The catalog cannot be asked, so what is new does not show: ${text}`),
  );

const unreadBox = (texts) =>
  problemBox(
    new api.Problem(
      502,
      `What is new there does not show, for it cannot be read: ${texts.join("; ")}`,
    ),
  );

/** `errno` is a number here; what to do is told by its name. */
function failureRow(failure) {
  const names = {
    5: "EIO",
    16: "EBUSY",
    95: "EOPNOTSUPP",
    110: "ETIMEDOUT",
    116: "ESTALE",
    126: "ENOKEY",
  };
  const [, todo] = advice({ errno: names[failure.errno] ?? "EIO" });
  return h(
    "li",
    {},
    h(
      "div",
      { class: "row still" },
      icon("warning"),
      h(
        "span",
        { class: "grow" },
        h("strong", {}, diskName(failure)),
        h("span", { class: "muted" }, nameOf(failure.backup_id, { class: "id" })),
        h("span", { class: "reason" }, failure.reason),
        h("span", { class: "muted" }, todo),
      ),
      h("span", { class: "end" }, timeOf(failure.at, when(failure.at), exactTime(failure.at))),
    ),
  );
}
