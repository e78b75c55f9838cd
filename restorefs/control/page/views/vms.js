// All machines that have backups, by name.

import * as api from "../api.js";
import { announce, fill, h, icon, nameOf, timeOf } from "../dom.js";
import { counted, exactTime, relative, when } from "../format.js";
import { problemBox } from "../problem.js";
import { here, link, note, vmLink } from "../router.js";

const PAGE = 100;

export async function show(route, signal) {
  const list = h("ul", { class: "rows" });
  const summary = h("p", { class: "muted" });
  const heading = h("span", { class: "muted small", "aria-hidden": true }, "Newest backup");
  const message = h("div", {});
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
    heading.hidden = total === 0;
    fill(summary, total === 0 ? nothing() : counted(total, "machine"));
  }

  const nothing = () =>
    field.value.trim() ? "No machine has a name like that." : "There are no backups yet.";
  let waiting = null;
  let coming = null; // what is typed is on its way
  function filter() {
    clearTimeout(waiting);
    waiting = null;
    fill(message);
    note(link("", [], { ...here().params, q: field.value.trim() }));
    coming = load(0).then(
      () => announce(summary.textContent),
      (problem) => problem.name !== "AbortError" && fill(message, problemBox(problem, filter)),
    );
  }
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 150);
  });
  field.addEventListener("keydown", async (event) => {
    if (event.key !== "ArrowDown" && event.key !== "Enter") return;
    event.preventDefault();
    if (waiting !== null) filter();
    await coming;
    list.querySelector("a")?.focus();
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const links = [...list.querySelectorAll("a")];
    const next = links.indexOf(document.activeElement) + step;
    (next < 0 ? field : links[next])?.focus();
  });
  await load(0);
  const element = h(
    "section",
    { class: "page" },
    h("div", { class: "head" }, h("h1", {}, "Machines"), h("div", { class: "tools" }, field)),
    message,
    h("div", { class: "head over-rows" }, summary, heading),
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
          h("span", { class: "unseen" }, "newest"),
          timeOf(latest, when(latest), exactTime(latest)),
          h("span", { class: "muted" }, relative(latest)),
        ),
    ),
  );
}
