// Making elements.
//
// Owns the one way in which text gets into the document: as text nodes. Nothing in this page sets
// innerHTML, so a name or a file's content is never read as markup.

import { pieces, plain } from "./names.js";

/**
 * Make an element. `props`: `class`, `on...` handlers, properties of the element, and attributes
 * (those with a dash, `role`, `for`). Null, undefined and false are left out.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) set(element, key, value);
  fill(element, ...children);
  return element;
}

function set(element, key, value) {
  if (value === null || value === undefined || value === false) return;
  if (key === "class") element.className = value;
  else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
  else if (key.includes("-") || key === "role" || key === "for" || key === "form")
    element.setAttribute(key, value === true && !key.startsWith("aria-") ? "" : String(value));
  else element[key] = value;
}

/** Put children (elements, text, lists of them) in place of what is there. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(present));
  return element;
}

const present = (child) => child !== null && child !== undefined && child !== false;

/** A name from a guest, set apart from the reading direction around it. */
export function nameOf(name, props = {}) {
  return h(
    "bdi",
    props,
    pieces(name).map((piece) =>
      piece.hidden
        ? h("span", { class: "hidden-sign", title: "not printable" }, piece.text)
        : piece.text,
    ),
  );
}

/** One of the signs of the sprite in index.html. It says nothing to a screen reader. */
export function icon(id) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${id}`);
  svg.append(use);
  return svg;
}

/** A time that a program can read, too. */
export function timeOf(iso, text, title) {
  return h("time", { dateTime: iso, title }, text);
}

/** Say something to a screen reader, without moving anything. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}

export { plain };
