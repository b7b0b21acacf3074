/** What realtime did, line by line: on the page for people, in `entries` for tests. Nothing that fails stays out of it. */

import { h } from "./dom.js";

const KEPT = 500;

export class Journal {
  /** @param {HTMLElement} list the `<ol>` that shows the lines */
  constructor(list) {
    this.entries = [];
    this.list = list;
    addEventListener("error", (event) => this.failure("Page error", event.error ?? event.message));
    addEventListener("unhandledrejection", (event) => this.failure("Page error", event.reason));
  }

  info(text) {
    this.#write("info", text);
  }

  error(text) {
    this.#write("error", text);
  }

  /** A caught value with everything it knows: what was attempted, the class, the message, and the cause below it. */
  failure(attempt, thrown) {
    this.error(`${attempt}: ${explain(thrown)}`);
  }

  #write(level, text) {
    const at = new Date();
    this.entries.push({ at: at.getTime(), level, text });
    if (this.entries.length > KEPT) this.entries.shift();

    const pinned = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 24;
    this.list.append(
      h(
        "li",
        { "data-testid": "log-entry", "data-level": level },
        h("time", { datetime: at.toISOString() }, at.toTimeString().slice(0, 8)),
        h("span", {}, text),
      ),
    );
    if (this.list.childElementCount > KEPT) this.list.firstElementChild.remove();
    if (pinned) this.list.scrollTop = this.list.scrollHeight;
  }
}

/**
 * One line for anything that can be thrown or returned as an error: an Error, a PostgREST or Auth error object, a string.
 *
 * @param {unknown} thrown
 * @returns {string}
 */
export function explain(thrown) {
  if (typeof thrown !== "object" || thrown === null) return String(thrown);
  const { name, code, message, details, hint, cause } = thrown;
  const head = [name === "Error" ? code : (name ?? code), message].filter(Boolean).join(": ");
  const more = [details, hint, cause instanceof Error && cause.message !== message && explain(cause)];
  return [head || JSON.stringify(thrown), ...more.filter(Boolean)].join(" · ");
}
