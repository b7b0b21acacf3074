/** What a row of each list looks like inside. The frame around it, with its buttons, is made in `view.js`. */

import { h } from "./dom.js";

/** The parts of a date (`2026-03-01`). Taken as a day of the calendar: noon keeps it that day in every time zone. */
function dateBlock(date) {
  const day = new Date(`${date}T12:00`);
  const part = (options) => day.toLocaleDateString("en", options);
  return h(
    "time",
    { class: "date", datetime: date },
    h("span", {}, part({ weekday: "short" })),
    h("b", {}, part({ day: "numeric" })),
    h("span", {}, part({ month: "short" })),
  );
}

/** `20:00:00` → `20:00`. */
const minutes = (time) => time?.slice(0, 5);

const text = (title, ...details) =>
  h("div", { class: "text" }, h("strong", {}, title), h("span", {}, details.filter(Boolean).join(" · ")));

/**
 * The inside of one row.
 *
 * @type {Object<string, (row: Object, store: import("./store.js").BandStore) => Node[]>}
 */
export const ROWS = {
  songs: ({ title, artist, key, bpm }) => [
    h("span", { class: "key", "aria-label": key ? `Key ${key}` : "No key" }, key || "–"),
    text(title, artist, bpm && `${bpm} bpm`),
    // A light that blinks at the tempo of the song.
    bpm && h("i", { class: "tempo", style: `--beat: ${60 / bpm}s`, "aria-hidden": "true" }),
  ],

  setlists: ({ title, notes, song_ids: ids }, store) => [
    h(
      "div",
      { class: "text" },
      h("strong", {}, title),
      h("span", {}, notes || ""),
      h(
        "ol",
        { class: "order" },
        ...ids
          .map((id) => store.row("songs", id))
          .filter(Boolean)
          .map((song) => h("li", {}, song.title)),
      ),
    ),
  ],

  shows: ({ venue, city, date, doors }) => [dateBlock(date), text(venue, city, doors && `doors ${minutes(doors)}`)],

  practice_sessions: ({ place, focus, date, starts }) => [dateBlock(date), text(place, minutes(starts), focus)],
};
