import assert from 'node:assert/strict'

import { ask, connect, connectAsUser, context, flowing, hear, ok, subscribed, unique } from './harness.mjs'

const changes = (channel, filter) => hear(channel, 'postgres_changes', { event: '*', schema: 'public', ...filter })

/** What a change is about, in one line. */
const brief = ({ eventType, new: row, old }) => [eventType, row, old]

export default {
  // Insert, update and delete reach who asked for them, filtered by a column, and nothing else does.
  async events() {
    const [paper, other] = [unique('paper'), unique('paper')]
    const filter = { table: 'news', filter: `paper=eq.${paper}` }
    const supabase = connect()
    const channel = supabase.channel(unique('room'))
    const each = ['INSERT', 'UPDATE', 'DELETE'].map((event) => changes(channel, { ...filter, event }))
    const all = changes(channel, filter)
    await flowing(channel)

    const insert = async (row) => ok(await supabase.from('news').insert(row).select().single())
    const decoy = await insert({ paper: other, headline: 'decoy' })
    const row = await insert({ paper, headline: 'first' })
    ok(await supabase.from('news').update({ headline: 'decoy again' }).eq('id', decoy.id))
    ok(await supabase.from('news').update({ headline: 'second' }).eq('id', row.id))
    ok(await supabase.from('news').delete().eq('id', decoy.id))
    ok(await supabase.from('news').delete().eq('id', row.id))

    const updated = { ...row, headline: 'second' }
    const expected = [['INSERT', row, {}], ['UPDATE', updated, row], ['DELETE', {}, updated]]
    for (const change of expected) assert.deepEqual(brief(await all.next()), change)
    for (const [n, change] of expected.entries()) assert.deepEqual(brief(await each[n].next()), change)
  },

  // A change says where and when it happened.
  async envelope() {
    const paper = unique('paper')
    const supabase = connect()
    const channel = supabase.channel(unique('room'))
    const inbox = changes(channel, { table: 'news', filter: `paper=eq.${paper}` })
    await flowing(channel)
    ok(await supabase.from('news').insert({ paper }))
    const { schema, table, errors, commit_timestamp } = await inbox.next()
    assert.deepEqual({ schema, table, errors }, { schema: 'public', table: 'news', errors: null })
    assert.ok(Math.abs(Date.parse(commit_timestamp) - Date.now()) < 60_000, commit_timestamp)
  },

  // Everybody gets the rows that the policies show them.
  async own_rows() {
    const [eric, mike] = await Promise.all([1, 2].map(async () => {
      const { supabase } = await connectAsUser()
      const channel = supabase.channel(unique('room'))
      const inbox = changes(channel, { table: 'songs', event: 'INSERT' })
      await flowing(channel)
      return { supabase, inbox }
    }))
    const insert = async ({ supabase }, title) => ok(await supabase.from('songs').insert({ title }).select().single())
    const rows = [await insert(eric, 'by eric'), await insert(mike, 'by mike'), await insert(eric, 'by eric again')]
    assert.deepEqual((await eric.inbox.next()).new, rows[0])
    assert.deepEqual((await eric.inbox.next()).new, rows[2])
    assert.deepEqual((await mike.inbox.next()).new, rows[1])
  },

  // Nobody who is not signed in gets a row that a policy keeps for those who are.
  async strangers() {
    const stranger = connect({ key: context.anon })
    const channel = stranger.channel(unique('room'))
    const heard = changes(channel, { event: 'INSERT' })
    await flowing(channel)
    const { supabase } = await connectAsUser()
    ok(await supabase.from('songs').insert({ title: 'mine' }))
    const paper = unique('paper')
    ok(await supabase.from('news').insert({ paper }))
    await heard.until(({ table, new: row }) => {
      assert.notEqual(table, 'songs')
      return row.paper === paper
    })
  },

  // Of a deleted row that policies guard, the primary key is told and no more.
  async deleted_rows() {
    const { supabase } = await connectAsUser()
    const channel = supabase.channel(unique('room'))
    const inbox = changes(channel, { table: 'songs', event: 'DELETE' })
    await flowing(channel)
    const { id } = ok(await supabase.from('songs').insert({ title: 'short' }).select().single())
    ok(await supabase.from('songs').delete().eq('id', id))
    const { old } = await inbox.until((change) => change.old.id === id)
    assert.deepEqual(old, { id })
  },

  // A row is the same whether it comes as a change or is read over REST.
  async values() {
    const supabase = connect()
    const channel = supabase.channel(unique('room'))
    const id = Math.floor(Math.random() * 2 ** 31)
    const inbox = changes(channel, { table: 'samples', filter: `id=eq.${id}` })
    await flowing(channel)
    const sample = {
      id, big: 2 ** 52, exact: 12.25, rough: -0.125, yes: true, words: `it's "so" \\ 🎸\n`,
      at: '2026-02-03T04:05:06.789+00:00', document: { deep: [1, null, { a: 'b' }] }, numbers: [1, null, 3],
      names: ['a,b', 'c "d"', '{}'], nothing: null,
    }
    const row = ok(await supabase.from('samples').insert(sample).select().single())
    assert.deepEqual(row, sample)
    assert.deepEqual((await inbox.next()).new, row)
  },

  // Whoever asks for big numbers as text gets every digit; who does not gets what JavaScript makes of a number.
  async big_numbers() {
    const supabase = connect()
    const id = Math.floor(Math.random() * 2 ** 31)
    const filter = { table: 'samples', filter: `id=eq.${id}` }
    const [exact, rounded] = await Promise.all([{ big_numbers: 'text' }, {}].map(async (wish) => {
      const channel = supabase.channel(unique('room'))
      const inbox = changes(channel, { ...filter, ...wish })
      await flowing(channel)
      return inbox
    }))
    const [big, fraction] = ['9007199254740993', '0.12345678901234567890']
    await ask('sql', `insert into samples (id, big, exact) values (${id}, ${big}, ${fraction})`)
    const { new: row } = await exact.next()
    assert.deepEqual([row.id, row.big, row.exact], [id, big, fraction])
    assert.equal(BigInt(row.big), 2n ** 53n + 1n)
    const { new: other } = await rounded.next()
    assert.deepEqual([other.big, other.exact], [2 ** 53, 0.12345678901234568])
  },

  // A table that nobody publishes is an error that says so, and the channel lives.
  async unpublished() {
    await ask('sql', 'create table if not exists secrets (id int primary key)')
    const supabase = connect()
    const channel = supabase.channel(unique('room'), { config: { broadcast: { self: true } } })
    changes(channel, { table: 'secrets' })
    const system = hear(channel, 'system', {})
    const said = hear(channel, 'broadcast')
    await subscribed(channel)
    const { status, extension, message } = await system.next()
    assert.deepEqual({ status, extension }, { status: 'error', extension: 'postgres_changes' })
    assert.match(message, /^Unable to subscribe to changes with given parameters\./)
    await channel.send({ type: 'broadcast', event: 'said', payload: {} })
    await said.next()
  },
}
