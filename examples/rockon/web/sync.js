/** The realtime half of a band: one channel per list, one private channel for the people. */

import { explain } from "./journal.js";

/** Pauses before a channel that the server closed is opened again, in milliseconds. The last one repeats. */
const REOPEN_AFTER = [1000, 2000, 5000, 10000];

/**
 * Put the signed-in user's token at the socket, and return only when it is there.
 *
 * A join carries whatever token the client holds when the channel is subscribed. Without this step the first join after
 * a page refresh goes out before the session has been restored: the server takes it for an anonymous one, row level
 * security hides every row, and the page looks connected and stays silent.
 *
 * `setAuth()` is called without an argument on purpose. supabase-js gave the socket a callback that returns the token of
 * the current session; without an argument that callback is asked, now and again with every heartbeat, so a refreshed
 * token follows by itself. `setAuth(token)` would pin this one token in some versions, until it expires.
 *
 * @throws {Error} when nobody is signed in, or the socket holds another token than the session
 */
export async function bringTokenToSocket(supabase) {
  await supabase.realtime.setAuth();
  const { data, error } = await supabase.auth.getSession();
  if (error) throw error;
  if (!data.session) throw new Error("nobody is signed in");
  if (supabase.realtime.accessTokenValue !== data.session.access_token) {
    throw new Error("the realtime socket does not hold the token of the session");
  }
}

export class BandSync {
  #entries = new Map();
  #removers = new Map();
  #stopped = false;
  #connected = false;

  /**
   * @param {import("@supabase/supabase-js").SupabaseClient} supabase
   * @param {Object} band
   * @param {string} band.id
   * @param {string} band.me the id of the signed-in user
   * @param {string[]} band.tables
   * @param {Object} listener
   * @param {(table: string, type: string, payload: Object, actor: string|undefined) => void} listener.onChange
   * @param {(table: string) => void} listener.onStreaming changes of this table flow from now on
   * @param {(topic: string, up: boolean) => void} listener.onChannel
   * @param {(userIds: Set<string>) => void} listener.onOnline
   * @param {(state: "live"|"connecting"|"offline", reason: string) => void} listener.onConnection
   * @param {import("./journal.js").Journal} journal
   */
  constructor(supabase, band, listener, journal) {
    this.supabase = supabase;
    this.band = band;
    this.listener = listener;
    this.journal = journal;
  }

  /** Open every channel. The token has to be at the socket already: see {@link bringTokenToSocket}. */
  start() {
    this.journal.info("Starting real-time WebSocket sync");
    for (const table of this.band.tables) {
      this.#open({
        topic: `${table}-${this.band.id}`,
        table,
        listen: (channel) => this.#listenToTable(channel, table),
      });
    }
    this.#open({
      topic: `band-${this.band.id}`,
      config: { private: true, presence: { key: this.band.me } },
      listen: (channel) => this.#listenToPeople(channel),
    });
    this.#report();
  }

  /** Leave every channel. */
  async stop() {
    this.#stopped = true;
    for (const entry of this.#entries.values()) clearTimeout(entry.reopening);
    await Promise.all([...this.#entries.values()].map((entry) => this.supabase.removeChannel(entry.channel)));
  }

  /**
   * Tell the others that it was me who removes a row, before it is removed. The DELETE event cannot say who did it, nor
   * what the row was called: under row level security it carries the primary key and nothing else.
   */
  async announceRemoval(table, id) {
    this.#removers.set(id, this.band.me);
    const { channel } = this.#entries.get(`band-${this.band.id}`);
    if (channel.state === "joined") {
      await channel.send({ type: "broadcast", event: "removing", payload: { table, id, by: this.band.me } });
    }
  }

  #open(entry) {
    Object.assign(entry, { up: false, failures: entry.failures ?? 0, reason: entry.reason ?? null, system: null });
    this.#entries.set(entry.topic, entry);
    entry.channel = this.supabase.channel(entry.topic, { config: entry.config ?? {} });
    entry.listen(entry.channel);
    entry.channel.on("system", {}, (message) => this.#onSystem(entry, message));
    entry.channel.subscribe((status, error) => this.#onStatus(entry, status, error));
  }

  #listenToTable(channel, table) {
    const change = (event) => ({ event, schema: "public", table });
    const ofBand = `band_id=eq.${this.band.id}`;
    const onChange = (payload) => this.#onChange(table, payload);
    channel
      .on("postgres_changes", { ...change("INSERT"), filter: ofBand }, onChange)
      .on("postgres_changes", { ...change("UPDATE"), filter: ofBand }, onChange)
      // No filter: a DELETE knows only its primary key, and `band_id` is not part of it.
      .on("postgres_changes", change("DELETE"), onChange);
  }

  #listenToPeople(channel) {
    channel
      .on("presence", { event: "sync" }, () => this.listener.onOnline(new Set(Object.keys(channel.presenceState()))))
      .on("broadcast", { event: "removing" }, ({ payload }) => this.#removers.set(payload.id, payload.by));
  }

  #onChange(table, payload) {
    const { eventType: type, errors } = payload;
    if (errors) {
      this.journal.error(`Channel error for ${table}-${this.band.id}: ${[errors].flat().join(", ")}`);
      return;
    }
    this.journal.info(`Received ${type} event for ${table}`);
    let actor = payload.new.updated_by;
    if (type === "DELETE") {
      actor = this.#removers.get(payload.old.id);
      this.#removers.delete(payload.old.id);
    }
    this.listener.onChange(table, type, payload, actor);
  }

  #onStatus(entry, status, error) {
    if (this.#stopped) return;
    if (status === "SUBSCRIBED") {
      this.journal.info(`Subscribed to ${entry.topic}`);
      entry.reason = null;
      if (entry.table) this.#report();
      else this.#onPeopleJoined(entry);
    } else if (status === "CHANNEL_ERROR") {
      this.#down(entry, explain(error));
    } else if (status === "TIMED_OUT") {
      this.#down(entry, `no answer to the join within ${this.supabase.realtime.timeout / 1000} s`);
    } else {
      // The client rejoins after an error or a lost connection, but forgets a channel that the server closed.
      this.#down(entry, `closed by the server: ${entry.system ?? "no reason given"}`);
      this.#reopenLater(entry);
    }
  }

  #onPeopleJoined(entry) {
    this.#up(entry);
    entry.channel.track({ since: new Date().toISOString() }).then((answer) => {
      if (answer !== "ok")
        this.journal.error(`Channel error for ${entry.topic}: presence was not accepted (${answer})`);
    });
  }

  /**
   * SUBSCRIBED only says that the channel was joined. Whether row changes will come is said by a system message a moment
   * later, and whoever does not listen for it never learns that they will not.
   */
  #onSystem(entry, { extension, status, message }) {
    entry.system = message;
    if (status !== "ok") {
      this.#down(entry, message);
    } else if (extension === "postgres_changes" && !entry.up) {
      this.#up(entry);
      this.listener.onStreaming(entry.table);
    }
  }

  #up(entry) {
    Object.assign(entry, { up: true, reason: null, failures: 0, system: null });
    this.listener.onChannel(entry.topic, true);
    this.#report();
  }

  #down(entry, reason) {
    // While a server restarts, every attempt fails the same way: said once.
    if (entry.reason !== reason) this.journal.error(`Channel error for ${entry.topic}: ${reason}`);
    Object.assign(entry, { up: false, reason });
    this.listener.onChannel(entry.topic, false);
    if (!entry.table) this.listener.onOnline(new Set());
    this.#report();
  }

  #reopenLater(entry) {
    const pause = REOPEN_AFTER[Math.min(entry.failures, REOPEN_AFTER.length - 1)];
    entry.failures += 1;
    entry.reopening = setTimeout(async () => {
      try {
        await bringTokenToSocket(this.supabase);
        if (!this.#stopped) this.#open(entry);
      } catch (error) {
        this.#down(entry, explain(error));
        if (!this.#stopped) this.#reopenLater(entry);
      }
    }, pause);
  }

  /** The lists make the page live; who is online is an extra, and its failure is told in the journal. */
  #report() {
    const lists = [...this.#entries.values()].filter((entry) => entry.table);
    const broken = lists.find((entry) => entry.reason);
    const connected = lists.every((entry) => entry.up);
    if (connected && !this.#connected) this.journal.info("Real-time sync connected");
    this.#connected = connected;
    if (connected) this.listener.onConnection("live", "");
    else if (broken) this.listener.onConnection("offline", broken.reason);
    else this.listener.onConnection("connecting", "");
  }
}
