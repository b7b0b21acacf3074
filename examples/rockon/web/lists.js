/**
 * The four lists of a band, as data: the form that edits a row, how a row is called in a toast, how a list is ordered.
 * Everything that differs between songs and shows stands here or in `rows.js`, and nowhere else.
 */

const byText = (column) => (a, b) => a[column].localeCompare(b[column]);
const byDate = (a, b) => a.date.localeCompare(b.date);

const KEYS = ["C", "Cm", "D", "Dm", "E", "Em", "F", "Fm", "G", "Gm", "A", "Am", "B♭", "Bm"];

export const LISTS = [
  {
    table: "songs",
    label: "Songs",
    one: "song",
    empty: "No songs yet. Somebody hum something.",
    name: "title",
    compare: byText("title"),
    fields: [
      { name: "title", label: "Title", required: true },
      { name: "artist", label: "Artist" },
      { name: "key", label: "Key", suggestions: KEYS },
      { name: "bpm", label: "Tempo (bpm)", type: "number", min: 20, max: 400 },
    ],
  },
  {
    table: "setlists",
    label: "Setlists",
    one: "setlist",
    empty: "No setlist yet. Play it by ear.",
    name: "title",
    compare: byText("title"),
    fields: [
      { name: "title", label: "Title", required: true },
      { name: "notes", label: "Notes" },
      { name: "song_ids", label: "Songs, in the order you pick them", type: "songs" },
    ],
  },
  {
    table: "shows",
    label: "Shows",
    one: "show",
    empty: "No shows booked. Call the venue.",
    name: "venue",
    compare: byDate,
    fields: [
      { name: "venue", label: "Venue", required: true },
      { name: "city", label: "City" },
      { name: "date", label: "Date", type: "date", required: true },
      { name: "doors", label: "Doors", type: "time" },
    ],
  },
  {
    table: "practice_sessions",
    label: "Practice",
    one: "practice session",
    empty: "No practice planned. Brave.",
    name: "place",
    compare: byDate,
    fields: [
      { name: "place", label: "Place", required: true },
      { name: "focus", label: "What we work on" },
      { name: "date", label: "Date", type: "date", required: true },
      { name: "starts", label: "Starts", type: "time" },
    ],
  },
];
