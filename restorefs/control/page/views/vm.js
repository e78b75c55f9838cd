// The backups of one machine by time, newest first, by month and day.

import * as api from "../api.js";
import { h, icon, nameOf, plain, timeOf } from "../dom.js";
import {
  clock,
  counted,
  day,
  dayInWords,
  exactTime,
  monthInWords,
  relative,
  zone,
} from "../format.js";
import { backupLink, link, go } from "../router.js";

const PAGE = 200;

export async function show(route, signal) {
  const [vm] = route.parts;
  const days = h("div", { class: "days" });
  const summary = h("p", { class: "muted" });
  const more = h(
    "button",
    { type: "button", hidden: true, onclick: () => load() },
    "Show older ones",
  );
  let offset = 0;
  const until = route.params.until && endOfDay(route.params.until);

  async function load() {
    const answer = await api.backups({ vm, sort: "-created", until, offset, limit: PAGE }, signal);
    if (answer.total_count === 0 && !until)
      throw new api.Problem(404, `there is no backup of a machine '${vm}'`);
    offset += answer.backups.length;
    answer.backups.forEach((backup, index) =>
      add(days, backup, !until && offset === answer.backups.length && index === 0),
    );
    more.hidden = offset >= answer.total_count;
    const which = until ? ` up to ${route.params.until}` : "";
    summary.textContent = `${counted(answer.total_count, "backup")}${which}, newest first. Times are in ${zone()}.`;
  }

  await load();
  const picker = h("input", {
    type: "date",
    value: route.params.until ?? "",
    "aria-label": "Show backups up to this day",
    onchange: () => go(link("vm", [vm], { until: picker.value })),
  });
  const element = h(
    "section",
    { class: "page" },
    h(
      "div",
      { class: "head" },
      h("h1", {}, nameOf(vm)),
      h("label", { class: "tools" }, "Up to ", picker),
    ),
    summary,
    days,
    more,
  );
  return {
    title: plain(vm),
    element,
    crumbs: [
      ["All machines", "#/"],
      [nameOf(vm), null],
    ],
  };
}

/** Put a backup below its month and day, which are made when it is their first. */
function add(days, backup, newest) {
  const at = backup.created_at;
  const month = at ? monthInWords(at) : "At an unknown time";
  if (days.dataset.month !== month) {
    days.dataset.month = month;
    days.append(h("h2", {}, month), h("div", { class: "month" }));
  }
  const panel = days.lastElementChild;
  const date = at ? day(at) : "";
  if (days.dataset.day !== date || !panel.hasChildNodes()) {
    days.dataset.day = date;
    const heading = at ? h("h3", {}, timeOf(date, dayInWords(at))) : null;
    panel.append(h("div", { class: "day" }, heading, h("ul", {})));
  }
  panel.lastElementChild.lastElementChild.append(row(backup, newest));
}

function row(backup, newest) {
  const at = backup.created_at;
  const disks = counted(backup.disk_indexes.length, "disk");
  return h(
    "li",
    {},
    h(
      "a",
      { class: "chip", href: backupLink(backup.backup_id), title: plain(backup.backup_id) },
      icon("backup"),
      h("strong", {}, at ? timeOf(at, clock(at), exactTime(at)) : nameOf(backup.backup_id)),
      h("span", { class: "muted" }, newest && at ? `${disks}, newest, ${relative(at)}` : disks),
    ),
  );
}

/** The last second of a day in the reader's time zone, as the API writes times. */
function endOfDay(date) {
  const end = new Date(`${date}T23:59:59`);
  return Number.isNaN(end.valueOf()) ? undefined : end.toISOString().replace(/\.\d+Z$/, "Z");
}
