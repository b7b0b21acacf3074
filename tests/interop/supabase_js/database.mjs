import assert from 'node:assert/strict'

import { ask, connect, connectAsUser, context, hear, ok, subscribed, unique } from './harness.mjs'

/** Joins, and waits until what the database sends will arrive. */
async function ready(channel) {
  const system = hear(channel, 'system', {})
  await subscribed(channel)
  assert.equal((await system.until(({ extension }) => extension === 'system')).status, 'ok')
}

const config = (more = {}) => ({ config: { private: true, broadcast: { replication_ready: true, ...more } } })

async function member(topic) {
  const { supabase, user } = await connectAsUser()
  const channel = supabase.channel(topic ?? `open-${user.id}`, config())
  const inbox = hear(channel, 'broadcast')
  await ready(channel)
  return { supabase, user, channel, inbox }
}

export default {
  // What SQL sends reaches a private channel, with the id of the message.
  async sent() {
    const topic = unique('open')
    const { inbox } = await member(topic)
    await ask('sql', `select realtime.send('{"n": 1}', 'sql', '${topic}', true)`)
    const { event, payload, meta } = await inbox.next()
    assert.equal(event, 'sql')
    assert.deepEqual(payload, { n: 1, id: payload.id })
    assert.equal(meta.id, payload.id)
  },

  // What SQL sends to a public topic reaches a public channel.
  async sent_in_public() {
    const topic = unique('room')
    const channel = connect().channel(topic, { config: { broadcast: { replication_ready: true } } })
    const inbox = hear(channel, 'broadcast')
    await ready(channel)
    await ask('sql', `select realtime.send('{"n": 1}', 'sql', '${topic}', false)`)
    assert.equal((await inbox.next()).payload.n, 1)
  },

  // Bytes that SQL sends arrive as bytes; version 1 cannot carry them, and its clients go on without.
  async sent_binary() {
    const topic = unique('open')
    const { inbox } = await member(topic)
    await ask('sql', `select realtime.send_binary('\\x00ff10', 'bytes', '${topic}')`)
    await ask('sql', `select realtime.send('{}', 'text', '${topic}')`)
    if (context.vsn === '2.0.0') {
      const { event, payload } = await inbox.next()
      assert.equal(event, 'bytes')
      assert.deepEqual(new Uint8Array(payload), Uint8Array.of(0, 255, 16))
    }
    assert.equal((await inbox.next()).event, 'text')
  },

  // A trigger announces what happens to a row.
  async triggered() {
    const { supabase, inbox } = await member()
    const row = ok(await supabase.from('songs').insert({ title: 'first' }).select().single())
    ok(await supabase.from('songs').update({ title: 'second' }).eq('id', row.id))
    ok(await supabase.from('songs').delete().eq('id', row.id))
    const updated = { ...row, title: 'second' }
    const expected = [['INSERT', row, null], ['UPDATE', updated, row], ['DELETE', null, updated]]
    for (const [operation, record, old] of expected) {
      const { event, payload } = await inbox.next()
      assert.equal(event, operation)
      assert.deepEqual([payload.operation, payload.record, payload.old_record], [operation, record, old])
      assert.deepEqual([payload.schema, payload.table], ['public', 'songs'])
    }
  },

  // Who joins later has the stored messages replayed, oldest first, and told from live ones.
  async replayed() {
    const topic = unique('open')
    const since = Date.now() - 60_000
    for (const n of [1, 2, 3]) await ask('sql', `select realtime.send('{"n": ${n}}', 'sql', '${topic}')`)
    const { supabase } = await connectAsUser()
    const channel = supabase.channel(topic, config({ replay: { since, limit: 2 } }))
    const inbox = hear(channel, 'broadcast')
    await ready(channel)
    await ask('sql', `select realtime.send('{"n": 4}', 'sql', '${topic}')`)
    for (const [n, replayed] of [[2, true], [3, true], [4, undefined]]) {
      const { payload, meta } = await inbox.next()
      assert.deepEqual([payload.n, meta.replayed], [n, replayed])
    }
  },
}
