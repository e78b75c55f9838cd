// A list of any length, of which only the rows in sight are in the document.
//
// Owns rows, scrolling, the keyboard and what a screen reader is told: an ARIA grid that keeps the
// focus itself and names its active row (aria-activedescendant), so that the focus is never lost
// with a row that scrolls away. Knows nothing of files: it is given Pages and makes cells by a
// function.

import { h } from "./dom.js";
import { Selection } from "./selection.js";

const AROUND = 8; // rows drawn above and below what is in sight
const TALLEST = 15_000_000; // px; browsers cut off what is higher
const TYPING_MS = 800;

/**
 * @typedef {object} Options
 * @property {string} label
 * @property {{id: string, text: string, sort?: string, first?: "-"}[]} columns
 * @property {(item: any, index: number) => (Node|string)[]} cells  one for each column
 * @property {(item: any) => string} name  as it is read aloud
 * @property {(item: any) => void} open
 * @property {() => void} up
 * @property {() => void} changed  the selection has changed
 * @property {(sort: string) => void} sort
 * @property {(text: string) => Promise<number|null>} find  the first row whose name begins so
 */

export class Grid {
  /** @param {Options} options */
  constructor(options) {
    this._options = options;
    this._rows = new Map(); // index -> element
    this._pages = null;
    this._typed = "";
    this._typedAt = 0;
    this._drawing = 0;
    this.active = 0;
    this.anchor = 0;
    this.selection = new Selection();
    this._head = h("div", { role: "row", class: "grid-row grid-head", "aria-rowindex": 1 });
    this._body = h("div", { role: "rowgroup", class: "grid-body" });
    this.element = h(
      "div",
      {
        role: "grid",
        class: "grid",
        tabIndex: 0,
        "aria-label": options.label,
        "aria-multiselectable": "true",
        onkeydown: (event) => this._onKey(event),
        onscroll: () => this._later(),
        onfocus: () => this._later(),
      },
      h("div", { role: "rowgroup", class: "grid-top" }, this._head),
      this._body,
    );
    this._watch = new ResizeObserver(() => this._later());
    this._watch.observe(this.element);
  }

  close() {
    this._watch.disconnect();
    cancelAnimationFrame(this._drawing);
  }

  /** Show a list from a row on; `sort` is marked in the head, `selected` are numbers of rows. */
  show(pages, sort, { active = 0, top = 0, selected = [] } = {}) {
    this._pages = pages;
    this.active = this.anchor = active;
    this.selection.these(selected);
    this._clear();
    this._drawHead(sort);
    this.refresh();
    this._selectionChanged();
    this.scrollTo(top);
  }

  /** Scroll so far down, or further, so that the active row is in sight. */
  scrollTo(top) {
    this._draw(); // only what has its height can be scrolled
    this.element.scrollTop = top;
    this.reveal();
  }

  /** Draw anew what has come. */
  refresh() {
    this._clear();
    this.active = Math.max(0, Math.min(this.active, this.length - 1));
    this.element.setAttribute("aria-rowcount", this._pages.total === null ? -1 : this.length + 1);
    this._draw();
  }

  get length() {
    return this._pages?.total ?? 0;
  }

  /** What is active, if it is here. */
  get item() {
    return this._pages?.at(this.active);
  }

  // --- rows ---------------------------------------------------------------------------------------

  _clear() {
    this._rows.clear();
    this._body.replaceChildren();
  }

  _later() {
    cancelAnimationFrame(this._drawing);
    this._drawing = requestAnimationFrame(() => this._draw());
  }

  _measure() {
    const row = parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 36;
    const seen = Math.max(1, this.element.clientHeight - this._head.offsetHeight);
    const whole = row * this.length;
    const height = Math.min(whole, TALLEST);
    // Of a list that is higher than a browser can scroll, each px of the scroll bar is several.
    const scale = height > seen ? (whole - seen) / (height - seen) : 1;
    return { row, seen, height, scale, top: this.element.scrollTop };
  }

  _draw() {
    if (!this._pages || !this.element.isConnected) return;
    const { row, seen, height, scale, top } = this._measure();
    this._body.style.height = `${height}px`;
    const start = top * scale; // where in the whole list the window begins
    const first = Math.max(0, Math.floor(start / row) - AROUND);
    const last = Math.min(this.length, Math.ceil((start + seen) / row) + AROUND);
    for (const [index, element] of this._rows) {
      if ((index < first || index >= last) && index !== this.active) {
        element.remove();
        this._rows.delete(index);
      }
    }
    for (let index = first; index < last; index++) this._place(index, top + index * row - start);
    if (this.length && (this.active < first || this.active >= last)) {
      this._place(this.active, top + this.active * row - start);
    }
    this._mark();
    this._pages.want(first, Math.max(last, first + 1));
  }

  _place(index, y) {
    let element = this._rows.get(index);
    if (!element) {
      element = this._row(index);
      this._rows.set(index, element);
      // In the order of the list, which is the order in which a screen reader reads.
      const next = [...this._body.children].find((each) => Number(each.dataset.index) > index);
      this._body.insertBefore(element, next ?? null);
    }
    element.style.transform = `translateY(${y}px)`;
  }

  _row(index) {
    const item = this._pages.at(index);
    const row = h("div", {
      role: "row",
      class: "grid-row",
      id: `row-${index}`,
      "aria-rowindex": index + 2,
    });
    row.dataset.index = index;
    if (item === undefined) {
      row.append(h("span", { role: "gridcell", class: "cell-coming" }, "…"));
      return row;
    }
    const box = h("input", {
      type: "checkbox",
      tabIndex: -1,
      "aria-label": `Select ${this._options.name(item)}`,
    });
    row.append(h("span", { role: "gridcell", class: "cell-select" }, box));
    this._options.cells(item, index).forEach((content, at) => {
      const { id } = this._options.columns[at];
      row.append(h("span", { role: "gridcell", class: `cell-${id}` }, content));
    });
    const texts = [...row.children].map((cell) => cell.textContent).filter(Boolean);
    row.setAttribute("aria-label", texts.join(", "));
    // The grid keeps the focus: a row may scroll away.
    row.addEventListener("mousedown", (event) => {
      if (event.button === 0) event.preventDefault();
      this.element.focus({ preventScroll: true });
    });
    row.addEventListener("click", (event) => this._onClick(event, index, box));
    return row;
  }

  _mark() {
    for (const [index, element] of this._rows) {
      const chosen = this.selection.has(index);
      element.setAttribute("aria-selected", String(chosen));
      element.classList.toggle("active", index === this.active);
      const box = element.querySelector("input");
      if (box) box.checked = chosen;
    }
    if (this._rows.has(this.active))
      this.element.setAttribute("aria-activedescendant", `row-${this.active}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  _drawHead(sort) {
    const box = h("input", {
      type: "checkbox",
      "aria-label": "Select all",
      onchange: () => this._chooseAll(box.checked),
    });
    this._all = box;
    const cells = this._options.columns.map(({ id, text, sort: by, first = "" }) => {
      const at = sort.replace(/^-/, "") === by;
      const down = sort.startsWith("-");
      const next = at ? (down ? by : "-" + by) : first + by;
      const button =
        by &&
        h(
          "button",
          { type: "button", class: "sort", onclick: () => this._options.sort(next) },
          text,
        );
      return h(
        "span",
        {
          role: "columnheader",
          class: `cell-${id}`,
          "aria-sort": by && (at ? (down ? "descending" : "ascending") : "none"),
        },
        button || text,
      );
    });
    const heads = this._head.querySelectorAll("button");
    const focused = [...heads].indexOf(document.activeElement);
    this._head.replaceChildren(
      h("span", { role: "columnheader", class: "cell-select" }, box),
      ...cells,
    );
    if (focused >= 0) this._head.querySelectorAll("button")[focused]?.focus();
  }

  // --- moving -------------------------------------------------------------------------------------

  /** Make a row the active one, and bring it in sight. */
  move(index, extend = false) {
    if (!this.length) return;
    this.active = Math.max(0, Math.min(index, this.length - 1));
    if (extend) this._selectTo(this.active);
    else this.anchor = this.active;
    this.reveal();
  }

  /** Bring the active row in sight. */
  reveal() {
    const { row, seen, scale, top } = this._measure();
    const start = top * scale;
    const y = this.active * row;
    if (y < start) this.element.scrollTop = y / scale;
    else if (y + row > start + seen) this.element.scrollTop = (y + row - seen) / scale;
    this._draw();
  }

  _onKey(event) {
    if (event.target !== this.element || event.altKey) return;
    const page = Math.max(1, Math.floor(this._measure().seen / this._measure().row) - 1);
    const moves = {
      ArrowDown: this.active + 1,
      ArrowUp: this.active - 1,
      PageDown: this.active + page,
      PageUp: this.active - page,
      Home: 0,
      End: this.length - 1,
    };
    const ctrl = event.ctrlKey || event.metaKey;
    if (event.key in moves) this.move(moves[event.key], event.shiftKey);
    else if (event.key === "Enter" && this.item) this._options.open(this.item);
    else if (event.key === "Backspace") this._options.up();
    else if (event.key === " " && this.length) this.toggle(this.active);
    else if (event.key === "a" && ctrl) this._chooseAll(true);
    else if (event.key === "Escape" && this.selection.count) this._chooseAll(false);
    else if (event.key.length === 1 && event.key !== "/" && !ctrl) this._type(event.key);
    else return;
    event.preventDefault();
  }

  _onClick(event, index, box) {
    const item = this._pages.at(index);
    this.active = index;
    if (event.shiftKey) {
      event.preventDefault();
      this._selectTo(index);
    } else if (
      event.target === box ||
      event.target.closest(".cell-select") ||
      event.ctrlKey ||
      event.metaKey
    ) {
      if (event.target.closest("a")) return; // in a new tab
      if (event.target !== box) event.preventDefault();
      this.toggle(index);
    } else if (event.target.closest("a")) {
      event.preventDefault();
      this._options.open(item);
    } else {
      this.anchor = index;
    }
    this._mark();
  }

  async _type(char) {
    const now = performance.now();
    this._typed = (now - this._typedAt < TYPING_MS ? this._typed : "") + char;
    this._typedAt = now;
    const typed = this._typed;
    const index = await this._options.find(typed);
    if (index !== null && typed === this._typed) this.move(index);
  }

  // --- selecting ----------------------------------------------------------------------------------

  /** What is selected; what is not here is fetched. */
  async selected() {
    const pages = this._pages;
    const found = [];
    for (const [first, end] of this.selection.ranges) {
      await pages.want(first, end);
      for (let row = first; row < end; row++) found.push(pages.at(row));
    }
    return found.filter((item) => item !== undefined);
  }

  toggle(index) {
    this.selection.toggle(index);
    this.anchor = index;
    this._selectionChanged();
  }

  _selectTo(index) {
    this.selection.only(Math.min(this.anchor, index), Math.max(this.anchor, index) + 1);
    this._selectionChanged();
  }

  /** Select nothing. */
  clear() {
    this._chooseAll(false);
    this.element.focus();
  }

  _chooseAll(chosen) {
    this.selection.only(0, chosen ? this.length : 0);
    this._selectionChanged();
  }

  _selectionChanged() {
    const { count } = this.selection;
    this._all.checked = count > 0 && count === this.length;
    this._all.indeterminate = count > 0 && count < this.length;
    this._mark();
    this._options.changed();
  }
}
