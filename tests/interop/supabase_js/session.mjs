import assert from 'node:assert/strict'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'

import {
  ask, connect, connectAsUser, connectWithToken, context, credentials, flowing, hear, ok, say, sayTo, subscribed, unique,
} from './harness.mjs'

const CONFIG = { private: true, broadcast: { ack: true } }
const SONGS = { event: 'INSERT', schema: 'public', table: 'songs' }

/** Somebody in a private room, with their rows coming in. */
async function member(options) {
  const { supabase } = await connectAsUser(options)
  const channel = supabase.channel(unique('open'), { config: CONFIG })
  const rows = hear(channel, 'postgres_changes', SONGS)
  const statuses = await flowing(channel)
  return { supabase, channel, rows, statuses }
}

const addSong = async (supabase, title) => ok(await supabase.from('songs').insert({ title }).select().single())

/** A token counts whole seconds: one of the same second would be the same, and nothing would be sent. */
async function anotherSecond() {
  const second = Math.floor(Date.now() / 1000)
  while (Math.floor(Date.now() / 1000) === second) await new Promise((resolve) => setTimeout(resolve, 20))
}

/** Keeps the session in a file, and nothing else. */
const storageIn = (file, storageKey) => ({
  getItem: (key) => (key === storageKey && existsSync(file) ? readFileSync(file, 'utf8') : null),
  setItem: (key, value) => key === storageKey && writeFileSync(file, value),
  removeItem: (key) => key === storageKey && rmSync(file, { force: true }),
})

export default {
  // A session that somebody else keeps in a file: it is restored, used, and refreshed in its place.
  async from_a_file() {
    const storageKey = 'session'
    const storage = storageIn(context.file, storageKey)
    const supabase = connect({ auth: { persistSession: true, autoRefreshToken: false, storage, storageKey } })
    const { session } = ok(await supabase.auth.getSession())
    assert.equal(session.user.id, context.user)
    assert.equal(ok(await supabase.auth.getUser()).user.id, context.user)
    await anotherSecond()
    const { session: refreshed } = ok(await supabase.auth.refreshSession())
    assert.notEqual(refreshed.refresh_token, session.refresh_token)
  },

  // Signing up, out, and in again.
  async sign_up_out_and_in() {
    const supabase = connect()
    const who = credentials()
    const { user } = ok(await supabase.auth.signUp(who))
    assert.equal((await supabase.auth.signOut()).error, null)
    assert.equal(ok(await supabase.auth.getSession()).session, null)
    const { error } = await supabase.auth.signInWithPassword({ ...who, password: 'wrong' })
    assert.equal(error.code, 'invalid_credentials')
    ok(await supabase.auth.signInWithPassword(who))
    assert.equal(ok(await supabase.auth.getUser()).user.id, user.id)
  },

  // A session refreshed while its channel is joined: the channel stays, and everything goes on.
  async refreshed_while_joined() {
    const { supabase, channel, rows } = await member()
    const before = ok(await supabase.auth.getSession()).session.access_token
    await anotherSecond()
    const { session } = ok(await supabase.auth.refreshSession())
    assert.notEqual(session.access_token, before)
    assert.equal(await say(channel, { n: 1 }), 'ok')
    const row = await addSong(supabase, 'after')
    assert.deepEqual((await rows.next()).new, row)
    assert.equal(channel.state, 'joined')
  },

  // Who refreshes their token outlives the first one; who does not is told, and put out.
  async outlives_its_token() {
    const sub = crypto.randomUUID()
    const token = (seconds) => ask('token', { role: 'authenticated', sub }, seconds)
    const first = await token(5)
    const lasting = await token(600)
    const topic = unique('open')

    let current = first
    const careful = await connectWithToken(async () => current, { realtime: { heartbeatIntervalMs: 200 } })
    const careless = await connectWithToken(async () => first)
    const [lives, ends] = [careful, careless].map((supabase) => supabase.channel(topic, { config: CONFIG }))
    const inbox = hear(lives, 'broadcast')
    const system = hear(ends, 'system', {})
    const [, statuses] = await Promise.all([lives, ends].map(subscribed))
    current = lasting

    const { status, message } = await system.next()
    assert.equal(status, 'error')
    assert.match(message, /^Token has expired \d+ seconds ago/)
    assert.equal((await statuses.next()).status, 'CLOSED')

    const speaker = (await connectWithToken(async () => lasting)).channel(topic, { config: CONFIG })
    await subscribed(speaker)
    await sayTo([inbox], speaker, { still: 'there' })
    assert.equal(lives.state, 'joined')
  },

  // Somebody else signs in on the same client: from then on the channel sees their rows.
  async somebody_else() {
    const other = await connectAsUser()
    const { refresh_token: refresh, access_token: access } = ok(await other.supabase.auth.getSession()).session
    const { supabase, channel, rows } = await member()
    const mine = await addSong(supabase, 'mine')
    assert.deepEqual((await rows.next()).new, mine)
    const first = ok(await supabase.auth.getSession()).session.access_token
    const system = hear(channel, 'system', {})
    ok(await supabase.auth.setSession({ access_token: access, refresh_token: refresh }))
    // Messages of a channel are handled in their order: when this is answered, the server has the new token.
    assert.equal(await say(channel, {}), 'ok')
    await addSong(connect({ accessToken: async () => first }), 'not for these eyes any more')
    assert.equal((await system.until(({ extension }) => extension === 'postgres_changes')).status, 'ok')
    const theirs = await addSong(supabase, 'theirs')
    assert.deepEqual((await rows.next()).new, theirs)
  },

  // Who signs out falls back to the key, which may not be where they were: the channel says so and ends.
  async signed_out() {
    const { supabase, channel, statuses } = await member({ key: context.anon })
    const system = hear(channel, 'system', {})
    assert.equal((await supabase.auth.signOut()).error, null)
    assert.match((await system.next()).message, /permission|Unauthorized/)
    assert.equal((await statuses.next()).status, 'CLOSED')
  },

  // Who signs out can sign in and join again, on the same client.
  async signed_out_and_in_again() {
    const who = credentials()
    const supabase = connect()
    ok(await supabase.auth.signUp(who))
    await subscribed(supabase.channel(unique('open'), { config: CONFIG }))
    assert.equal((await supabase.auth.signOut()).error, null)
    await supabase.removeAllChannels()
    ok(await supabase.auth.signInWithPassword(who))
    const channel = supabase.channel(unique('open'), { config: CONFIG })
    await subscribed(channel)
    assert.equal(await say(channel, {}), 'ok')
  },
}
