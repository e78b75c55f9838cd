// What downloads a file or an archive.
//
// Owns that its address is asked first whether there will be an answer: a problem is shown in the
// page, where a browser only says that it failed, or shows the problem's JSON instead of the page.

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { problemBox } from "./problem.js";

/** A link that downloads; what is wrong is shown in `place`. */
export function download(href, place, props, children) {
  const start = () => h("a", { href, download: "" }).click();
  const onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // into a window of its own
    event.preventDefault();
    asked(link, [href], place, start);
  };
  const link = h("a", { ...props, href, download: "", onclick }, children);
  return link;
}

/** An archive of a selection (api.archive): a link, or a form where it is too long for one. */
export function downloadArchive({ href, action, fields, asks }, place, props, children) {
  if (href) return download(href, place, props, children);
  // Into a frame that nobody sees: if there is a problem now, it does not take the page's place.
  const frame = h("iframe", { name: "download", hidden: true });
  const hidden = fields.map(([name, value]) => h("input", { type: "hidden", name, value }));
  const button = h("button", { type: "submit", ...props }, children);
  const onsubmit = (event) => {
    event.preventDefault();
    asked(button, asks, place, () => form.submit());
  };
  const attributes = { method: "post", action, target: frame.name, onsubmit };
  const form = h("form", attributes, hidden, button, frame);
  return form;
}

/** Start what all addresses have an answer for; else say why not. */
async function asked(control, asks, place, start) {
  if (control.ariaBusy === "true") return;
  control.ariaBusy = "true";
  fill(place);
  try {
    for (const each of asks) await api.ask(each);
    start();
  } catch (problem) {
    const again = () => asked(control, asks, place, start);
    fill(place, problemBox(problem, again));
  } finally {
    control.ariaBusy = null;
  }
}
