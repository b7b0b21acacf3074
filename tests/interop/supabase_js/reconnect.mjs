import assert from 'node:assert/strict'

import { Inbox, ask, connect, connectWithToken, hear, sayTo, subscribed, unique } from './harness.mjs'

const QUICKLY = { reconnectAfterMs: () => 250 }

/** Somebody who listens to everything, and tracks themselves whenever they are let in. */
async function member(topic, paper, key, realtime) {
  const channel = connect({ realtime }).channel(topic, { config: { presence: { key } } })
  const said = hear(channel, 'broadcast')
  const rows = hear(channel, 'postgres_changes', { event: '*', schema: 'public', table: 'news', filter: `paper=eq.${paper}` })
  const seen = new Inbox(`what ${key} sees`)
  channel.on('presence', { event: 'sync' }, () => seen.put(Object.keys(channel.presenceState()).sort()))
  const system = hear(channel, 'system', {})
  const statuses = new Inbox(`statuses of ${key}`)
  channel.subscribe(async (status) => {
    statuses.put(status)
    if (status === 'SUBSCRIBED') await channel.track({ since: performance.now() })
  })

  async function arrived() {
    await statuses.until((status) => status === 'SUBSCRIBED')
    assert.equal((await system.until(({ extension }) => extension === 'postgres_changes')).status, 'ok')
  }
  return { channel, said, rows, seen, statuses, arrived }
}

async function everythingWorks(people, paper) {
  for (const { seen } of people) await seen.until((keys) => keys.join() === 'ann,bob')
  const [ann, bob] = people
  const n = performance.now()
  await sayTo([bob.said], ann.channel, { n })
  await sayTo([ann.said], bob.channel, { n })
  await ask('sql', `insert into news (paper, headline) values ('${paper}', '${n}')`)
  for (const { rows } of people) assert.equal((await rows.next()).new.headline, `${n}`)
}

/** Two people to whom everything works, then trouble, after which everything works again. */
async function overcome(trouble, realtime) {
  const [topic, paper] = [unique('room'), unique('paper')]
  const people = [await member(topic, paper, 'ann', realtime), await member(topic, paper, 'bob', realtime)]
  for (const somebody of people) await somebody.arrived()
  await everythingWorks(people, paper)
  const asked = ask(trouble)
  for (const { statuses } of people) assert.equal(await statuses.next(), 'CHANNEL_ERROR')
  await asked
  for (const somebody of people) await somebody.arrived()
  await everythingWorks(people, paper)
}

export default {
  // The connection breaks.
  async cut() {
    await overcome('cut')
  },

  // The connection goes silent: nothing arrives, nobody is told.
  async frozen() {
    await overcome('freeze', { ...QUICKLY, heartbeatIntervalMs: 500 })
  },

  // The server restarts.
  async restarted() {
    await overcome('restart', QUICKLY)
  },

  // A private channel is let in again with the token its session has by then.
  async private_channel() {
    const sub = crypto.randomUUID()
    const token = (seconds) => ask('token', { role: 'authenticated', sub }, seconds)
    let current = await token(600)
    const supabase = await connectWithToken(async () => current)
    const channel = supabase.channel(unique('open'), { config: { private: true, broadcast: { self: true } } })
    const said = hear(channel, 'broadcast')
    const statuses = await subscribed(channel)
    current = await token(900)
    await ask('cut')
    assert.equal((await statuses.next()).status, 'CHANNEL_ERROR')
    assert.equal((await statuses.next()).status, 'SUBSCRIBED')
    await sayTo([said], channel, { back: true })
  },
}
