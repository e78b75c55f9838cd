// A long list of which only some pages are here.
//
// Owns what was fetched and what is under way: a page is asked for once, those far from what is
// looked at are forgotten, and whoever waits is told. Knows no element.

const SIZE = 200;
const KEPT = 100; // pages

export class Pages {
  /**
   * @param {(offset: number, limit: number) => Promise<{items: any[], total: number}>} load
   * @param {() => void} arrived  called when something came or failed
   */
  constructor(load, arrived) {
    this.total = null;
    this.problem = null;
    this._load = load;
    this._arrived = arrived;
    this._pages = new Map(); // number -> items, or the promise of them
  }

  /** Return an item, or undefined while it is not here. */
  at(index) {
    const page = this._pages.get(Math.floor(index / SIZE));
    return Array.isArray(page) ? page[index % SIZE] : undefined;
  }

  /** Have the items [first, last) come; resolves when they are here. */
  async want(first, last) {
    const asked = [];
    for (let number = Math.floor(first / SIZE); number * SIZE < last; number++)
      asked.push(this._page(number));
    await Promise.all(asked);
  }

  /** Yield what is here, as [index, item]. */
  *here() {
    for (const [number, page] of this._pages)
      if (Array.isArray(page))
        for (const [at, item] of page.entries()) yield [number * SIZE + at, item];
  }

  _page(number) {
    const page = this._pages.get(number);
    if (page !== undefined) return page;
    const coming = this._fetch(number);
    this._pages.set(number, coming);
    return coming;
  }

  async _fetch(number) {
    try {
      const { items, total } = await this._load(number * SIZE, SIZE);
      this.total = total;
      this._pages.delete(number); // to the end of the map: the newest
      this._pages.set(number, items);
      if (this._pages.size > KEPT) this._pages.delete(this._pages.keys().next().value);
    } catch (problem) {
      this._pages.delete(number);
      if (problem.name === "AbortError") return;
      this.problem = problem;
    }
    this._arrived();
  }
}
