// A look at one file, over the list that it is in.
//
// What a guest's file holds is shown as text in a <pre>, or as an image from the API's sandboxed
// preview; nothing of it is ever taken as markup. HTML and SVG come from the API as plain text.

import * as api from "../api.js";
import { fill, h, icon, nameOf, plain } from "../dom.js";
import { download } from "../download.js";
import { exactSize, size, when } from "../format.js";
import { problemBox } from "../problem.js";
import { versionsLink } from "../router.js";

const SHOWN = 256 * 1024;

/**
 * Open the dialog. `file`: {mount, vm, disk, entry, signal}; of the entry only name and path must
 * be there. `closed` is called when it has been closed, however that was. Returns the dialog.
 */
export function preview(file, closed) {
  const { mount, entry } = file;
  const body = h("div", {
    class: "preview-body",
    tabIndex: 0,
    role: "region",
    "aria-label": "Content",
  });
  const facts = h("p", { class: "muted" }, factsOf(entry));
  const message = h("div", {});
  const controller = new AbortController();
  const dialog = h(
    "dialog",
    {
      class: "preview",
      "aria-labelledby": "preview-name",
      onclose: () => end(),
      onclick: (event) => event.target === dialog && dialog.close(),
    },
    h(
      "div",
      { class: "preview-frame" },
      h(
        "div",
        { class: "preview-head" },
        h("div", { class: "grow" }, h("h2", { id: "preview-name" }, nameOf(entry.name)), facts),
        h(
          "button",
          {
            type: "button",
            class: "quiet round",
            "aria-label": "Close",
            onclick: () => dialog.close(),
          },
          icon("close"),
        ),
      ),
      h(
        "div",
        { class: "tools" },
        readable(entry) &&
          download(api.downloadLink(mount, entry.path), message, { class: "button primary" }, [
            icon("download"),
            "Download",
          ]),
        h(
          "a",
          { class: "button", href: versionsLink(file.vm, file.disk, entry.path) },
          icon("versions"),
          "All versions",
        ),
      ),
      message,
      body,
    ),
  );
  const end = () => {
    controller.abort();
    dialog.remove();
    closed();
  };
  document.body.append(dialog);
  dialog.showModal();
  body.focus();
  load(file, body, controller.signal);
  return dialog;
}

const readable = (entry) =>
  entry.type === undefined ||
  entry.type === "file" ||
  (entry.type === "symlink" && entry.target_type === "file");

function factsOf(entry) {
  const parts = [];
  if (entry.type === "file")
    parts.push(
      entry.size < 1024 ? size(entry.size) : `${size(entry.size)} (${exactSize(entry.size)})`,
    );
  if (entry.target !== undefined) parts.push(`link to ${plain(entry.target)}`);
  if (entry.modified_time) {
    const whose = entry.type === "symlink" ? "the link itself: " : "";
    parts.push(`${whose}modified ${when(entry.modified_time, true)}`);
    parts.push(`mode ${entry.mode}`, `user ${entry.uid}`, `group ${entry.gid}`);
  }
  return parts.join(" · ");
}

async function load({ mount, entry }, body, signal) {
  if (entry.error) return fill(body, problemBox(new api.Problem(502, entry.error)));
  if (!readable(entry)) return fill(body, h("p", { class: "empty muted" }, without(entry)));
  if (entry.size === 0) return fill(body, h("p", { class: "empty muted" }, "This file is empty."));
  fill(body, h("p", { class: "busy", role: "status" }, "Reading …"));
  try {
    await showContent(mount, entry, body, signal);
  } catch (problem) {
    if (problem.name === "AbortError") return;
    if (problem.status === 415)
      fill(
        body,
        h(
          "p",
          { class: "empty muted" },
          "There is no preview of this kind of file. Download it to open it.",
        ),
      );
    else
      fill(
        body,
        problemBox(problem, () => load({ mount, entry }, body, signal)),
      );
  }
}

function without(entry) {
  if (entry.type === "symlink") return "This link leads to nothing inside its volume.";
  return "This is a device, a pipe or a socket: there is nothing in it to show or download.";
}

/** Whether a browser can show all of an image: it shows what comes first without a word. */
async function isWhole(image) {
  try {
    (await createImageBitmap(image)).close();
    return true;
  } catch {
    return false;
  }
}

function showImage(entry, image, whole, body) {
  const src = URL.createObjectURL(image);
  const done = () => URL.revokeObjectURL(src);
  const onerror = () => {
    done();
    fill(
      body,
      h("p", { class: "empty muted" }, "This image cannot be shown. Download it to open it."),
    );
  };
  fill(
    body,
    !whole &&
      h("p", { class: "note warn" }, icon("warning"), "This image is damaged: parts are missing."),
    h("img", { src, alt: `Preview of ${plain(entry.name)}`, onload: done, onerror }),
  );
}

async function showContent(mount, entry, body, signal) {
  const kind = await api.previewKind(mount, entry.path, signal);
  if (kind.startsWith("image/")) {
    const image = await api.previewImage(mount, entry.path, signal);
    const whole = await isWhole(image);
    if (!signal.aborted) showImage(entry, image, whole, body);
    return;
  }
  const { text, whole } = await api.previewText(mount, entry.path, SHOWN, signal);
  fill(
    body,
    !whole &&
      h(
        "p",
        { class: "note" },
        `Only the first ${size(SHOWN)} are shown. Download the file to see all of it.`,
      ),
    h("pre", { dir: "auto" }, text),
  );
}
