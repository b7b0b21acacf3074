/** Everything that touches the page. Nothing in here knows where rows come from. */

import { h, reconcile } from "./dom.js";
import { explain } from "./journal.js";
import { LISTS } from "./lists.js";
import { ROWS } from "./rows.js";

const TOASTS_SHOWN = 5;
const TOAST_LASTS = 7000;

const byId = (id) => document.getElementById(id);

/** A colour that is always the same for the same name. */
const hue = (name) => [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 0);

/** The letter is drawn by the style sheet: it is decoration, not a part of the text around it. */
const avatar = (name) =>
  h("span", {
    class: "avatar",
    style: `--hue: ${hue(name)}`,
    dataset: { letter: name.slice(0, 1) },
    "aria-hidden": "true",
  });

export class View {
  /** Rows are objects that are replaced, never changed: the element of an unchanged row can be used again. */
  #elements = new WeakMap();

  /**
   * @param {Object} actions
   * @param {(email: string, password: string) => Promise<void>} actions.signIn
   * @param {() => Promise<void>} actions.signOut
   * @param {(bandId: string) => void} actions.chooseBand
   * @param {(table: string, values: Object) => Promise<void>} actions.add
   * @param {(table: string, id: string, values: Object) => Promise<void>} actions.edit
   * @param {(table: string, id: string) => Promise<void>} actions.remove
   * @param {{email: string, password: string, name: string}[]} users who may come in with one click
   */
  constructor(actions, users) {
    this.actions = actions;
    byId("rig").append(...LISTS.map(({ table }) => h("i", { dataset: { list: table } })));
    this.#buildDoor(users);
    byId("sign-out").addEventListener("click", () => actions.signOut());
    byId("band-choice").addEventListener("change", (event) => actions.chooseBand(event.target.value));
  }

  /** Show the sign-in form. */
  showDoor(problem = "") {
    document.body.dataset.view = "door";
    byId("editor").close();
    byId("sign-in-problem").textContent = problem;
  }

  /**
   * Show a band: its name, empty lists, and the choice of another one when there are several.
   *
   * @param {{id: string, name: string}[]} bands
   * @param {{id: string, name: string}} [band] which of them; none when there are none
   * @param {import("./store.js").BandStore} [store] its rows
   */
  showBand(bands, band, store) {
    this.store = store;
    document.body.dataset.view = "band";
    byId("band-name").textContent = band?.name ?? "No band yet";
    byId("choose").hidden = bands.length < 2;
    byId("band-choice").replaceChildren(
      ...bands.map(({ id, name }) => h("option", { value: id, selected: id === band.id }, name)),
    );
    byId("lists").replaceChildren(...(band ? LISTS.map((list) => this.#buildList(list)) : [this.#buildNoBand()]));
    for (const { table } of LISTS) this.showChannel(table, false);
    this.showPeople([], new Set());
  }

  showAccount(name) {
    byId("account-name").textContent = name;
  }

  /** @param {"live"|"connecting"|"offline"} state */
  showConnection(state, reason = "") {
    const element = byId("connection");
    const words = { live: "Live", connecting: "Connecting…", offline: "Offline" };
    element.dataset.state = state;
    element.title = reason;
    element.querySelector(".connection-text").textContent = reason ? `${words[state]}: ${reason}` : words[state];
  }

  /** The stage light of a list burns while its channel delivers. */
  showChannel(table, up) {
    document.querySelector(`#rig [data-list="${table}"]`)?.toggleAttribute("data-up", up);
    byId(`card-${table}`)?.toggleAttribute("data-up", up);
  }

  /** Somebody else changed something in this list: its stage light flares up. */
  flare(table) {
    const light = document.querySelector(`#rig [data-list="${table}"]`);
    light?.animate([{ opacity: 1 }, {}], { duration: 1200, easing: "ease-out" });
  }

  showPeople(members, online) {
    const here = (member) => online.has(member.user_id);
    const person = (member) => {
      const name = member.display_name;
      const state = here(member) ? "online" : "offline";
      return h(
        "li",
        { "data-testid": `${state}-${name.toLowerCase()}`, "data-state": state },
        avatar(name),
        h("span", {}, name, h("small", {}, member.instrument), h("span", { class: "unseen" }, state)),
      );
    };
    const ordered = members.toSorted((a, b) => here(b) - here(a) || a.display_name.localeCompare(b.display_name));
    byId("people").replaceChildren(...ordered.map(person));
  }

  /** @param {Object} list one of LISTS */
  showList(list) {
    const rows = this.store.rows(list.table).sort(list.compare);
    reconcile(
      byId(`list-${list.table}`),
      rows.map((row) => this.#rowElement(list, row)),
    );
    byId(`card-${list.table}`).toggleAttribute("data-empty", rows.length === 0);
    byId(`count-${list.table}`).textContent = rows.length;
  }

  /** Forget the elements of these rows: what they show depends on something that changed. */
  redraw(rows) {
    for (const row of rows) this.#elements.delete(row);
  }

  /** Draw attention to a row that somebody else wrote. */
  highlight(table, id) {
    byId(`list-${table}`)
      ?.querySelector(`[data-id="${CSS.escape(id)}"]`)
      ?.classList.add("fresh");
  }

  /** @param {string} [actor] whose name stands on the avatar; without one it is an error */
  toast(text, actor) {
    const toast = h(
      "p",
      { class: "toast", "data-testid": "toast", "data-kind": actor ? "change" : "error" },
      actor && avatar(actor),
      text,
    );
    const toasts = byId("toasts");
    toasts.append(toast);
    while (toasts.childElementCount > TOASTS_SHOWN) toasts.firstElementChild.remove();
    setTimeout(() => toast.remove(), TOAST_LASTS);
  }

  #buildDoor(users) {
    const form = byId("sign-in-form");
    const enter = async (email, password) => {
      byId("sign-in-problem").textContent = "";
      byId("door").inert = true;
      try {
        await this.actions.signIn(email, password);
      } catch (error) {
        byId("sign-in-problem").textContent = error.message;
      } finally {
        byId("door").inert = false;
      }
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      enter(form.elements.email.value, form.elements.password.value);
    });
    byId("quick").replaceChildren(
      ...users.map(({ name, email, password }) =>
        h(
          "button",
          { type: "button", "data-testid": `user-${name.toLowerCase()}`, onclick: () => enter(email, password) },
          avatar(name),
          h("span", {}, name, h("small", {}, email)),
        ),
      ),
    );
  }

  #buildNoBand() {
    return h("p", { class: "nothing", "data-testid": "no-band" }, "You are in no band. Ask its leader to add you.");
  }

  #buildList(list) {
    const { table, label, one, empty } = list;
    return h(
      "section",
      {
        class: "card list",
        id: `card-${table}`,
        dataset: { list: table },
        "data-testid": `card-${table}`,
        "aria-labelledby": `title-${table}`,
      },
      h(
        "header",
        {},
        h("h2", { id: `title-${table}` }, label),
        h("span", { class: "count", id: `count-${table}` }, "0"),
        h(
          "button",
          {
            type: "button",
            class: "add",
            "data-testid": `add-${table}`,
            "aria-label": `Add a ${one}`,
            onclick: () => this.#edit(list),
          },
          "Add",
        ),
      ),
      h("ul", { id: `list-${table}`, "data-testid": `list-${table}` }),
      h("p", { class: "nothing" }, empty),
    );
  }

  #rowElement(list, row) {
    const known = this.#elements.get(row);
    if (known) return known;
    const name = row[list.name];
    const button = (verb, act) =>
      h("button", {
        type: "button",
        class: `icon ${verb}`,
        "data-testid": verb,
        "aria-label": `${verb} ${name}`,
        title: verb,
        onclick: act,
      });
    const element = h(
      "li",
      { class: "row", dataset: { id: row.id }, "data-testid": `row-${list.table}` },
      ...ROWS[list.table](row, this.store),
      h(
        "span",
        { class: "tools" },
        button("edit", () => this.#edit(list, row)),
        button("delete", () => this.actions.remove(list.table, row.id)),
      ),
    );
    this.#elements.set(row, element);
    return element;
  }

  /** The form for a new row, or for an existing one. It stays open, with the reason, when the database says no. */
  #edit(list, row = {}) {
    const dialog = byId("editor");
    const problem = h("p", { class: "problem", role: "alert", "data-testid": "editor-problem" });
    const form = h(
      "form",
      { method: "dialog", "data-testid": `form-${list.table}`, dataset: { list: list.table } },
      h("h2", { id: "editor-title" }, row.id ? `Edit ${list.one}` : `Add a ${list.one}`),
      ...list.fields.map((field) =>
        field.type === "songs" ? this.#songPicker(field, row) : this.#input(list, field, row),
      ),
      problem,
      h(
        "footer",
        {},
        h(
          "button",
          { type: "button", class: "quiet", "data-testid": "cancel", onclick: () => dialog.close() },
          "Cancel",
        ),
        h("button", { type: "submit", class: "loud", "data-testid": "save" }, row.id ? "Save" : "Add"),
      ),
    );
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      form.inert = true;
      try {
        const values = this.#values(list, form);
        await (row.id ? this.actions.edit(list.table, row.id, values) : this.actions.add(list.table, values));
        dialog.close();
      } catch (error) {
        problem.textContent = explain(error);
      } finally {
        form.inert = false;
      }
    });
    dialog.replaceChildren(form);
    dialog.showModal();
  }

  #input({ table }, { name, label, suggestions, ...attributes }, row) {
    const listId = suggestions && `suggestions-${table}-${name}`;
    return h(
      "label",
      {},
      label,
      h("input", {
        name,
        value: row[name] ?? "",
        list: listId,
        autocomplete: "off",
        step: attributes.type === "time" ? 60 : null,
        ...attributes,
      }),
      suggestions && h("datalist", { id: listId }, ...suggestions.map((value) => h("option", { value }))),
    );
  }

  /** Checkboxes; the playing order is the order in which they were ticked, kept in a hidden input. */
  #songPicker({ name, label }, row) {
    const order = [...(row[name] ?? [])];
    const hidden = h("input", { type: "hidden", name });
    const songs = this.store.rows("songs").sort((a, b) => a.title.localeCompare(b.title));
    const boxes = songs.map(({ id, title }) => {
      const place = h("b", { "aria-hidden": "true" });
      const box = h("input", { type: "checkbox", value: id, checked: order.includes(id) });
      box.addEventListener("change", () => {
        if (box.checked) order.push(id);
        else order.splice(order.indexOf(id), 1);
        number();
      });
      return { id, place, element: h("label", {}, box, place, h("span", {}, title)) };
    });
    const number = () => {
      const existing = order.filter((id) => this.store.row("songs", id));
      hidden.value = existing.join(",");
      for (const { id, place } of boxes) place.textContent = existing.includes(id) ? existing.indexOf(id) + 1 : "";
    };
    number();
    return h("fieldset", { class: "picker" }, h("legend", {}, label), hidden, ...boxes.map(({ element }) => element));
  }

  #values(list, form) {
    const value = ({ name, type }) => {
      const text = form.elements[name].value.trim();
      if (type === "songs") return text ? text.split(",") : [];
      if (text === "") return null;
      return type === "number" ? Number(text) : text;
    };
    return Object.fromEntries(list.fields.map((field) => [field.name, value(field)]));
  }
}
