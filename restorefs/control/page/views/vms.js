// All machines that have backups, by name.

import * as api from "../api.js";
import { announce, fill, h, icon, nameOf, timeOf } from "../dom.js";
import { counted, exactTime, relative, when } from "../format.js";
import { here, link, note, vmLink } from "../router.js";

const PAGE = 100;

export async function show(route, signal) {
  const list = h("ul", { class: "rows" });
  const summary = h("p", { class: "muted" });
  const more = h(
    "button",
    { type: "button", hidden: true, onclick: () => load(list.children.length) },
    "Show more",
  );
  const field = h("input", {
    type: "search",
    placeholder: "Filter by name",
    "aria-label": "Filter machines by name",
    value: route.params.q ?? "",
  });
  let asked = 0;

  async function load(offset) {
    const mine = ++asked;
    const { vms, total_count: total } = await api.vms(
      { q: field.value.trim() || undefined, offset, limit: PAGE },
      signal,
    );
    if (mine !== asked) return;
    if (offset === 0) list.replaceChildren();
    list.append(...vms.map(row));
    more.hidden = list.children.length >= total;
    fill(summary, total === 0 ? nothing() : counted(total, "machine"));
  }

  const nothing = () =>
    field.value.trim() ? "No machine has a name like that." : "There are no backups yet.";
  let waiting;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      note(link("", [], { ...here().params, q: field.value.trim() }));
      await load(0).catch(ignoreAbort);
      announce(summary.textContent);
    }, 150);
  });
  await load(0);
  const element = h(
    "section",
    { class: "page" },
    h("div", { class: "head" }, h("h1", {}, "Machines"), h("div", { class: "tools" }, field)),
    summary,
    list,
    more,
  );
  return { title: "Machines", element, crumbs: [] };
}

function row({ vm_name: name, backups, first_at: first, latest_at: latest }) {
  const since = backups > 1 && first ? `, since ${when(first).slice(0, 10)}` : "";
  return h(
    "li",
    {},
    h(
      "a",
      { class: "row", href: vmLink(name) },
      icon("machine"),
      h(
        "span",
        { class: "grow" },
        h("strong", {}, nameOf(name)),
        h("span", { class: "muted" }, counted(backups, "backup") + since),
      ),
      latest &&
        h(
          "span",
          { class: "end" },
          timeOf(latest, when(latest), exactTime(latest)),
          h("span", { class: "muted" }, relative(latest)),
        ),
    ),
  );
}

const ignoreAbort = (error) => {
  if (error.name !== "AbortError") throw error;
};
