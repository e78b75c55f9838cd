// Why something cannot be read, and what to do about it.
//
// Owns the advice. The reason itself is always the API's own words; only what a person can do is
// added here.

import { h, icon } from "./dom.js";

const BY_ERRNO = {
  ENOKEY: [
    "It is encrypted",
    "The key is not known here. Restore the whole disk to a machine, and unlock it there with its passphrase or key.",
  ],
  EOPNOTSUPP: [
    "It is not supported",
    "What is on it is recognised, but restorefs does not read it. Restore the whole disk, and take the file from there.",
  ],
  EBUSY: [
    "Too many disks are in use",
    "Try again in some minutes, or let go of one on the page “Attached disks”.",
  ],
  ETIMEDOUT: [
    "The storage takes too long",
    "Try again. If it stays so, tell whoever looks after the backup storage.",
  ],
  ESTALE: [
    "The backup is gone",
    "It was deleted meanwhile. Choose another one of the same machine.",
  ],
  ENOENT: [
    "It is not there",
    "It may have been deleted or renamed. Another backup of the machine may still have it.",
  ],
  EIO: [
    "It is damaged, or its storage is",
    "Try another backup of the same machine, and show this message to whoever looks after the backups: “restorefs check” tells more.",
  ],
};
const BY_STATUS = {
  0: [
    "No connection",
    "See whether the network is there, and the restorefs service runs. Then try again.",
  ],
  401: ["You are not signed in", "Sign in with a token."],
  403: ["Your token does not allow it", "Ask for a token that includes this machine."],
  404: BY_ERRNO.ENOENT,
  409: BY_ERRNO.EBUSY,
  410: BY_ERRNO.ESTALE,
  413: ["It is too much at once", "Choose fewer files, or download the folder."],
  422: ["It cannot be done", "Check what was asked for."],
  423: BY_ERRNO.ENOKEY,
  429: ["Too much is under way", "Wait for a download or search to end, and try again."],
  501: BY_ERRNO.EOPNOTSUPP,
  502: BY_ERRNO.EIO,
  504: BY_ERRNO.ETIMEDOUT,
};
const BUG = ["Something went wrong", "This is a fault of restorefs. The daemon's log says more."];

/** Return [what it is, what to do] for a Problem, or anything with `status` or `errno`. */
export function advice(problem) {
  return BY_ERRNO[problem.errno] ?? BY_STATUS[problem.status] ?? BUG;
}

/** A box that explains; with a button where trying again makes sense. */
export function problemBox(problem, retry = null) {
  const [what, todo] = advice(problem);
  return h(
    "div",
    { class: "box problem", role: "alert" },
    icon(problem.errno === "ENOKEY" || problem.status === 423 ? "lock" : "warning"),
    h(
      "div",
      {},
      h("p", { class: "what" }, what),
      h("p", { class: "reason" }, problem.message),
      h("p", { class: "todo" }, todo),
      retry && h("button", { type: "button", onclick: () => retry() }, "Try again"),
    ),
  );
}
