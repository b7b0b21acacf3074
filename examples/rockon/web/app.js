/** The page: who is signed in, which band is on stage, and what happens when somebody changes something. */

import { Journal } from "./journal.js";
import { LISTS } from "./lists.js";
import { BandStore } from "./store.js";
import { BandSync, bringTokenToSocket } from "./sync.js";
import { View } from "./view.js";

const TABLES = LISTS.map(({ table }) => table);
const VERBS = { INSERT: "added", UPDATE: "updated", DELETE: "removed" };
const SESSION_ENDED = "Your session has ended. Please sign in again.";
const TRY_AGAIN_AFTER = 2000;
const TIMINGS_KEPT = 500;

const journal = new Journal(document.getElementById("log"));
const config = await (await fetch("/config.json")).json();

// supabase-js as it comes: it keeps the session in localStorage and refreshes it, so a reload finds it again.
const supabase = window.supabase.createClient(config.url, config.anonKey);
const view = new View({ signIn, signOut, chooseBand, add, edit, remove }, config.users);

/** For the console and the tests: the client, the journal, and when each change was sent or received. */
const timings = [];
window.rockon = {
  supabase,
  log: journal.entries,
  timings,
  get channels() {
    return supabase.getChannels();
  },
};

/**
 * One stay of one person with one band. Whatever awaits asks afterwards whether this is still the stay it began in:
 * signing out, or choosing another band, in the middle of it makes the rest of it meaningless.
 */
let stay = null;

/** The form is at work: the next session is a fresh one. Any other was found in localStorage, or came from another tab. */
let signingIn = false;

// Who is signed in is learnt from these events and from nowhere else. The client holds its session lock while it calls
// listeners: what needs the client again has to wait until this function has returned. The name of an event does not
// tell a fresh session from a restored one: both come as SIGNED_IN, and so does every return of the focus to the tab.
supabase.auth.onAuthStateChange((event, session) => {
  const how = signingIn ? "fresh" : "restored";
  setTimeout(() => {
    if (event === "SIGNED_OUT") leave(SESSION_ENDED);
    else if (session === null) leave();
    else if (stay?.user.id !== session.user.id) enter(session.user, how);
    else if (event === "TOKEN_REFRESHED") journal.info("Realtime auth refreshed with the new user JWT");
  });
});

async function signIn(email, password) {
  signingIn = true;
  try {
    const { error } = await supabase.auth.signInWithPassword({ email, password });
    if (error) throw error;
  } finally {
    signingIn = false;
  }
}

async function signOut() {
  const { user } = stay;
  // Channels first: a joined channel keeps the rights of its token until the token expires.
  await leave();
  const { error } = await supabase.auth.signOut({ scope: "local" });
  if (error) {
    journal.failure("Could not sign out", error);
    view.toast(`Could not sign out: ${error.message}`);
    enter(user, "restored");
  }
}

function chooseBand(bandId) {
  enter(stay.user, "here already", bandId);
}

async function leave(problem = "") {
  const left = stay;
  stay = null;
  if (left || document.body.dataset.view === "loading") view.showDoor(problem);
  await left?.sync?.stop();
}

/**
 * Bring somebody on stage: token to the socket, then bands and members, then channels and lists.
 *
 * @param {Object} user
 * @param {"fresh"|"restored"|"here already"} how the session was made just now, found in localStorage, or is in use already
 * @param {string} [bandId] which of several bands
 */
async function enter(user, how, bandId) {
  const before = stay;
  const here = { user, members: [], sync: null, store: null };
  stay = here;
  view.showConnection("connecting");
  try {
    await before?.sync?.stop();
    if (how === "restored" && !(await isSessionAccepted())) {
      leave(SESSION_ENDED);
      return;
    }
    if (stay !== here) return;

    await bringTokenToSocket(supabase);
    if (how === "fresh") journal.info("Realtime auth configured with user JWT");
    if (how === "restored") journal.info("Realtime auth restored from session");

    const bands = await select(supabase.from("bands").select("id,name").order("name"));
    const band = bands.find(({ id }) => id === bandId) ?? bands[0];
    if (band) here.members = await select(supabase.from("band_members").select("*").eq("band_id", band.id));
    if (stay !== here) return;

    view.showAccount(nameOf(user.id) ?? user.email);
    here.store = band && new BandStore(supabase, band.id, TABLES);
    view.showBand(bands, band, here.store);
    if (band) startSync(here, band.id);
  } catch (error) {
    if (stay !== here) return;
    journal.failure("Failed to start real-time sync", error);
    view.showConnection("offline", error.message);
    await here.sync?.stop();
    setTimeout(() => stay === here && enter(user, how, bandId), TRY_AGAIN_AFTER);
  }
}

function startSync(here, bandId) {
  const whileHere =
    (listen) =>
    (...event) =>
      stay === here && listen(...event);
  here.sync = new BandSync(
    supabase,
    { id: bandId, me: here.user.id, tables: TABLES },
    {
      onConnection: whileHere((state, reason) => view.showConnection(state, reason)),
      onChannel: whileHere((topic, up) => view.showChannel(topic.replace(`-${bandId}`, ""), up)),
      onOnline: whileHere((online) => view.showPeople(here.members, online)),
      onStreaming: whileHere((table) => load(here, table)),
      onChange: whileHere((...change) => onChange(here, ...change)),
    },
    journal,
  );
  view.showPeople(here.members, new Set());
  here.sync.start();
  for (const table of TABLES) load(here, table);
}

/** A session from localStorage may have been ended elsewhere. Being unable to ask is no reason to sign anybody out. */
async function isSessionAccepted() {
  const { error } = await supabase.auth.getUser();
  if (!error) return true;
  if (error.name === "AuthRetryableFetchError") throw error;
  journal.failure("The stored session was not accepted", error);
  await supabase.auth.signOut({ scope: "local" });
  return false;
}

async function select(query) {
  const { data, error } = await query;
  if (error) throw error;
  return data;
}

/** Every time changes start to flow, first time or after an interruption, what was missed is read again. */
async function load(here, table) {
  try {
    await here.store.load(table);
    if (stay === here) show(here, table);
  } catch (error) {
    if (stay !== here) return;
    journal.failure(`Could not read ${table}`, error);
    setTimeout(() => stay === here && load(here, table), TRY_AGAIN_AFTER);
  }
}

function show(here, table) {
  view.showList(listOf(table));
  // A setlist shows the titles of its songs.
  if (table === "songs") {
    view.redraw(here.store.rows("setlists"));
    show(here, "setlists");
  }
}

function onChange(here, table, type, payload, actor) {
  const id = (type === "DELETE" ? payload.old : payload.new).id;
  const known = here.store.row(table, id);
  if (type === "DELETE") here.store.drop(table, id);
  else here.store.put(table, payload.new);
  remember({ event: "received", type, table, id, at: Date.now(), committed: Date.parse(payload.commit_timestamp) });

  if (type === "DELETE" && !known) return;
  show(here, table);
  if (actor === here.user.id) return;
  view.flare(table);
  view.highlight(table, id);
  const title = (type === "DELETE" ? known : payload.new)[listOf(table).name];
  const name = nameOf(actor) ?? "Somebody";
  view.toast(`${name} ${VERBS[type]} "${title}"`, name);
}

async function add(table, values) {
  remember({ event: "sent", type: "INSERT", table, at: Date.now() });
  wrote(
    table,
    await select(
      supabase
        .from(table)
        .insert({ ...values, band_id: stay.store.bandId })
        .select()
        .single(),
    ),
  );
}

async function edit(table, id, values) {
  remember({ event: "sent", type: "UPDATE", table, id, at: Date.now() });
  wrote(table, await select(supabase.from(table).update(values).eq("id", id).select().single()));
}

function wrote(table, row) {
  stay.store.put(table, row);
  show(stay, table);
}

async function remove(table, id) {
  const here = stay;
  try {
    await here.sync.announceRemoval(table, id);
    remember({ event: "sent", type: "DELETE", table, id, at: Date.now() });
    await select(supabase.from(table).delete().eq("id", id));
    here.store.drop(table, id);
    if (stay === here) show(here, table);
  } catch (error) {
    journal.failure(`Could not remove from ${table}`, error);
    view.toast(`Could not be removed: ${error.message}`);
  }
}

function listOf(table) {
  return LISTS.find((list) => list.table === table);
}

function nameOf(userId) {
  return stay.members.find((member) => member.user_id === userId)?.display_name;
}

function remember(timing) {
  timings.push(timing);
  if (timings.length > TIMINGS_KEPT) timings.shift();
}
