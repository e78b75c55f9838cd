// Which rows of a list are selected.
//
// Owns them as ranges of row numbers: all of 100,000 rows, and all but one, are as quick and as true
// as one row, whatever of the list is here. A number means a row of one list in one order; whoever
// shows another list says anew what is selected. Knows no item and no element.

export class Selection {
  constructor() {
    this.ranges = []; // [first, end), apart and in order
  }

  /** How many rows. */
  get count() {
    return this.ranges.reduce((sum, [first, end]) => sum + end - first, 0);
  }

  has(row) {
    return this.ranges.some(([first, end]) => first <= row && row < end);
  }

  /** Select the rows [first, end), and no others. */
  only(first, end) {
    this.ranges = [[first, end]].filter(notEmpty);
  }

  /** Select some rows, and no others. */
  these(rows) {
    this.ranges = rows.toSorted((a, b) => a - b).map((row) => [row, row + 1]);
  }

  /** Take a row in, or out if it is in. */
  toggle(row) {
    const rest = this.ranges.flatMap(([first, end]) =>
      first <= row && row < end
        ? [
            [first, row],
            [row + 1, end],
          ]
        : [[first, end]],
    );
    if (!this.has(row)) rest.push([row, row + 1]);
    this.ranges = rest.filter(notEmpty).sort(([a], [b]) => a - b);
  }
}

const notEmpty = ([first, end]) => first < end;
