// Which lines of two texts differ.
//
// Owns the comparison: Myers' shortest edit script ("An O(ND) Difference Algorithm and Its
// Variations", 1986), with a bound on how far apart two texts may be. Pure: no element, no call.

const MOST_LINES = 20_000;
const MOST_EDITS = 2_000;

/**
 * Compare two texts line by line.
 *
 * @returns {{kind: "same"|"removed"|"added", text: string}[]|null}  null when they are too large or
 *     too different to compare here
 */
export function diffLines(before, after) {
  const a = linesOf(before);
  const b = linesOf(after);
  if (a.length > MOST_LINES || b.length > MOST_LINES) return null;
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end))
    end++;
  const middle = edits(a.slice(start, a.length - end), b.slice(start, b.length - end));
  if (middle === null) return null;
  const same = (text) => ({ kind: "same", text });
  return [...a.slice(0, start).map(same), ...middle, ...a.slice(a.length - end).map(same)];
}

function linesOf(text) {
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

function edits(a, b) {
  const most = Math.min(MOST_EDITS, a.length + b.length);
  const zero = most + 1; // where diagonal 0 is in `reach`, which says how far along `a` one gets
  const reach = new Int32Array(2 * most + 3);
  const trace = [];
  for (let d = 0; d <= most; d++) {
    trace.push(reach.slice(zero - d - 1, zero + d + 2));
    for (let k = -d; k <= d; k += 2) {
      const [left, right] = [reach[zero + k - 1], reach[zero + k + 1]];
      let x = goesDown(k, d, left, right) ? right : left + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      reach[zero + k] = x;
      if (x >= a.length && x - k >= b.length) return walkBack(trace, a, b);
    }
  }
  return null;
}

const goesDown = (k, d, left, right) => k === -d || (k !== d && left < right);

function walkBack(trace, a, b) {
  const script = [];
  let [x, y] = [a.length, b.length];
  for (let d = trace.length - 1; d >= 0; d--) {
    const k = x - y;
    const at = d + 1 + k; // in what was kept of this step
    const [left, right] = [trace[d][at - 1], trace[d][at + 1]];
    const down = goesDown(k, d, left, right);
    const stop = d === 0 ? 0 : down ? right : left + 1; // where the run of same lines begins
    while (x > stop) {
      script.push({ kind: "same", text: a[--x] });
      y--;
    }
    if (d === 0) break;
    if (down) script.push({ kind: "added", text: b[--y] });
    else script.push({ kind: "removed", text: a[--x] });
  }
  return script.reverse();
}

/**
 * Leave out what is the same, but for some lines around what is not; a gap is {kind: "gap", text}.
 */
export function withContext(script, around = 3) {
  const near = script.map(() => false);
  script.forEach((line, at) => {
    if (line.kind !== "same") near.fill(true, Math.max(0, at - around), at + around + 1);
  });
  const shown = [];
  script.forEach((line, at) => {
    if (near[at]) shown.push(line);
    else if (shown.at(-1)?.kind === "gap") shown.at(-1).lines++;
    else shown.push({ kind: "gap", lines: 1 });
  });
  return shown;
}
