// The frame around the views.
//
// Owns who is signed in, which view is shown, the breadcrumbs, and where the focus goes. A view is
//
//     show(route, signal) -> {title, crumbs, element, focus, update, close}   (or a promise of it)
//
// `crumbs`: [[text or element, href or null], ...]. `focus`: what gets the focus, else the heading.
// `update(route)`: shows another route of the same view in place and says true if it can.
// `close()`: gives up what the view holds. `signal` is aborted when the view is left.

import * as api from "./api.js";
import { announce, fill, h } from "./dom.js";
import { problemBox } from "./problem.js";
import { here, join } from "./router.js";
import * as attached from "./views/attached.js";
import * as backup from "./views/backup.js";
import { crumbsInto, crumbsOf } from "./views/backup.js";
import * as folder from "./views/folder.js";
import * as search from "./views/search.js";
import * as signin from "./views/signin.js";
import * as versions from "./views/versions.js";
import * as vm from "./views/vm.js";
import * as vms from "./views/vms.js";

const VIEWS = { "": vms, vm, backup, files: folder, search, versions, attached };
const main = document.getElementById("main");
const crumbs = document.getElementById("crumbs");

let shown = null; // {name, view, controller}
let signedIn = false;

async function navigate() {
  const route = here();
  if (shown?.name === route.name && (await shown.view?.update?.(route))) return;
  const controller = leave(route.name);
  const module = VIEWS[route.name];
  const busy = setTimeout(() => wait(controller), 150); // what is quick does not flicker
  let view;
  try {
    if (!module) throw new api.Problem(404, "This page has nothing at this address.");
    view = await module.show(route, controller.signal);
  } catch (problem) {
    if (problem.name === "AbortError") return;
    view = failed(problem, await crumbsTo(route));
  } finally {
    clearTimeout(busy);
  }
  if (controller.signal.aborted) view.close?.();
  else put(view, controller);
}

/** End the view that is shown; return the controller of the next one. */
function leave(name) {
  shown?.controller.abort();
  shown?.view?.close?.();
  const controller = new AbortController();
  shown = { name, view: null, controller };
  return controller;
}

function put(view, controller) {
  shown.view = view;
  shown.controller = controller;
  fill(main, view.element);
  document.title = view.title ? `${view.title} · restorefs` : "restorefs";
  showCrumbs(view.crumbs ?? []);
  for (const link of document.querySelectorAll("#main-nav a")) {
    const current = (link.dataset.view === "attached") === (shown.name === "attached");
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const target = view.focus ?? main.querySelector("h1") ?? main;
  if (target.tabIndex < 0) target.tabIndex = -1;
  target.focus({ preventScroll: true });
  window.scrollTo(0, 0);
  announce(view.title ?? "");
}

function wait(controller) {
  if (controller.signal.aborted) return;
  fill(main, h("p", { class: "busy", role: "status" }, "One moment …"));
}

/** How far the breadcrumbs of a view that cannot be shown are known. */
async function crumbsTo({ name, parts }) {
  const ofBackup = ["backup", "files", "search"].includes(name);
  const [id, disk, ...path] = parts;
  const found = ofBackup && (await api.backup(id).catch(() => null));
  if (!found) return [["All machines", "#/"]];
  return disk === undefined ? crumbsOf(found) : crumbsInto(found, disk, join(...path));
}

function failed(problem, crumbs) {
  if (!(problem instanceof api.Problem)) console.error(problem);
  const element = h(
    "section",
    { class: "page" },
    h("h1", {}, "This cannot be shown"),
    problemBox(problem, navigate),
  );
  return { title: "Cannot be shown", crumbs: [...crumbs, ["Cannot be shown", null]], element };
}

function showCrumbs(list) {
  crumbs.hidden = list.length === 0;
  const items = list.map(([text, href], index) => {
    const last = index === list.length - 1;
    return h(
      "li",
      {},
      href && !last
        ? h("a", { href }, text)
        : h("span", { "aria-current": last ? "page" : null }, text),
    );
  });
  fill(crumbs, h("ol", {}, items));
  crumbs.scrollLeft = crumbs.scrollWidth;
  showCut();
}

/** Say that some of the breadcrumbs are to the left of what is seen. */
function showCut() {
  crumbs.classList.toggle("cut", crumbs.scrollLeft > 0);
}

// --- who is signed in -----------------------------------------------------------------------------

function showSignIn() {
  if (!signedIn && shown?.name === "sign in") return;
  signedIn = false;
  frame(null);
  const controller = leave("sign in");
  put(signin.show(start), controller);
}

/** What of the frame depends on who is there. Only a token's session can be ended. */
function frame(me) {
  document.getElementById("main-nav").hidden = me === null;
  document.getElementById("sign-out").hidden = me?.kind !== "token" && me?.kind !== "session";
  document.getElementById("who").textContent =
    me && me.kind !== "insecure" && me.name ? me.name : "";
}

async function start() {
  try {
    const me = await api.whoAmI();
    if (me === null) return showSignIn();
    signedIn = true;
    frame(me);
  } catch (problem) {
    return put(failed(problem, []), leave("failed"));
  }
  return navigate();
}

/** End the session. Only then is the form shown: it must not look as if one had left. */
async function signOut() {
  main.querySelector("#still-signed-in")?.remove();
  try {
    await api.signOut();
  } catch (problem) {
    if (problem.status !== 401) return main.prepend(stillSignedIn(problem));
  }
  showSignIn();
}

function stillSignedIn({ status, message, errno }) {
  const problem = new api.Problem(status, `You are still signed in. ${message}`, errno);
  return h("div", { id: "still-signed-in" }, problemBox(problem, signOut));
}

document.getElementById("sign-out").addEventListener("click", signOut);
document
  .getElementById("skip")
  .addEventListener("click", () => (main.querySelector("h1") ?? main).focus());
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const field = main.querySelector("input[type=search]");
  if (field) {
    event.preventDefault();
    field.focus();
  }
});
crumbs.addEventListener("scroll", showCut);
window.addEventListener("resize", showCut);
api.whenSignedOut(showSignIn);
window.addEventListener("hashchange", () => signedIn && navigate());
start();
