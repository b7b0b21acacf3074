/**
 * The rows of one band as this page knows them: loaded over REST, kept current by change events.
 *
 * The two can cross. A list is loaded, a change is committed and announced, and then the answer of the load arrives,
 * read before that commit: taken as it is, it would undo the change. So changes that arrive during a load are applied
 * at once *and* remembered, and played again over the answer. Applying one twice does no harm.
 */
export class BandStore {
  #rows = new Map();
  #during = new Map();

  /**
   * @param {import("@supabase/supabase-js").SupabaseClient} supabase
   * @param {string} bandId
   * @param {string[]} tables
   */
  constructor(supabase, bandId, tables) {
    this.supabase = supabase;
    this.bandId = bandId;
    for (const table of tables) this.#rows.set(table, new Map());
  }

  /** @returns {Object[]} the rows of a table, in no particular order */
  rows(table) {
    return [...this.#rows.get(table).values()];
  }

  /** @returns {Object|undefined} */
  row(table, id) {
    return this.#rows.get(table).get(id);
  }

  /**
   * Read a table again from the database. Of two loads under way the later one counts.
   *
   * @throws {PostgrestError}
   */
  async load(table) {
    const changes = [];
    this.#during.set(table, changes);
    const { data, error } = await this.supabase.from(table).select("*").eq("band_id", this.bandId);
    if (this.#during.get(table) !== changes) return;
    this.#during.delete(table);
    if (error) throw error;
    this.#rows.set(table, new Map(data.map((row) => [row.id, row])));
    for (const change of changes) change();
  }

  /** A row is there now, or has changed. */
  put(table, row) {
    this.#apply(table, () => this.#rows.get(table).set(row.id, row));
  }

  /** A row is gone. Ids of other bands' rows are expected here, and ignored. */
  drop(table, id) {
    this.#apply(table, () => this.#rows.get(table).delete(id));
  }

  #apply(table, change) {
    this.#during.get(table)?.push(change);
    change();
  }
}
