// The form that exchanges a token for a session. The token is in no storage: the session is a
// cookie that scripts cannot read.

import * as api from "../api.js";
import { h } from "../dom.js";

export function show(signedIn) {
  const field = h("input", {
    type: "password",
    id: "token",
    name: "token",
    required: true,
    autocomplete: "current-password",
    "aria-describedby": "token-error",
  });
  // For the browser's own store of passwords.
  const user = h("input", {
    type: "text",
    hidden: true,
    name: "username",
    autocomplete: "username",
    value: "restorefs",
  });
  const error = h("p", { id: "token-error", class: "error", role: "alert" });
  const form = h(
    "form",
    {
      class: "signin panel",
      onsubmit: async (event) => {
        event.preventDefault();
        error.textContent = "";
        try {
          await api.signIn(field.value.trim());
        } catch (problem) {
          error.textContent = problem.status === 401 ? "This token is not known." : problem.message;
          field.select();
          return;
        }
        signedIn();
      },
    },
    h("h1", {}, "Sign in"),
    h("p", { class: "muted" }, "Find a file in the backups of your machines, and take it back."),
    h("label", { for: "token" }, "Token"),
    user,
    field,
    error,
    h("button", { type: "submit", class: "primary" }, "Sign in"),
    h(
      "p",
      { class: "muted small" },
      "Whoever runs restorefs makes tokens with “restorefs token add”.",
    ),
  );
  return { title: "Sign in", element: form, focus: field };
}
