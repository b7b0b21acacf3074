import assert from 'node:assert/strict'

import { connect, connectAsUser, context, hear, say, sayTo, subscribe, subscribed, unique } from './harness.mjs'

const CONFIG = { private: true, broadcast: { ack: true } }

async function member(topic) {
  const { supabase, user } = await connectAsUser()
  const channel = supabase.channel(topic, { config: CONFIG })
  const inbox = hear(channel, 'broadcast')
  await subscribed(channel)
  return { supabase, user, channel, inbox }
}

export default {
  // Whom the policies let in speak with each other.
  async members() {
    const topic = unique('open')
    const [eric, mike] = [await member(topic), await member(topic)]
    await sayTo([mike.inbox], eric.channel, { n: 1 })
    await sayTo([eric.inbox], mike.channel, { n: 2 })
  },

  // Whom they do not let in are told so, with the text that clients match on.
  async refused() {
    for (const key of [context.key, context.anon]) {
      const topic = unique('open')
      const { status, reason } = await subscribe(connect({ key }).channel(topic, { config: CONFIG })).next()
      assert.equal(status, 'CHANNEL_ERROR')
      const text = `Unauthorized: You do not have permissions to read from this Channel topic: ${topic}`
      assert.ok(reason.startsWith(text), reason)
    }
  },

  // A topic that no policy knows is refused to members too, and their other channels do not mind.
  async refused_elsewhere() {
    const { supabase, channel, inbox } = await member(unique('open'))
    const elsewhere = supabase.channel(unique('closed'), { config: CONFIG })
    assert.equal((await subscribe(elsewhere).next()).status, 'CHANNEL_ERROR')
    const other = await member(channel.subTopic)
    await sayTo([inbox], other.channel, { n: 1 })
  },

  // Who may listen and not speak hears an error when they try, and goes on listening.
  async listeners() {
    const topic = unique('quiet')
    const listener = await member(topic)
    assert.equal(await say(listener.channel, { n: 1 }), 'error')
    const master = connect({ key: context.service }).channel(topic, { config: CONFIG })
    await subscribed(master)
    await sayTo([listener.inbox], master, { n: 2 })
  },

  // A private and a public channel of one name are two rooms.
  async apart_from_public() {
    const topic = unique('open')
    const [eric, mike] = [await member(topic), await member(topic)]
    const outside = [connect(), connect()].map((supabase) => supabase.channel(topic))
    const heard = hear(outside[1], 'broadcast')
    await Promise.all(outside.map(subscribed))
    await say(outside[0], { public: 1 })
    await sayTo([mike.inbox], eric.channel, { private: 1 })
    await sayTo([mike.inbox], eric.channel, { private: 2 })
    await say(outside[0], { public: 2 })
    assert.deepEqual((await heard.next()).payload, { public: 1 })
    assert.deepEqual((await heard.next()).payload, { public: 2 })
  },

  // Presence works in a private channel as in a public one.
  async presence() {
    const topic = unique('open')
    const { supabase } = await connectAsUser()
    const channel = supabase.channel(topic, { config: { ...CONFIG, presence: { key: 'ann' } } })
    const joins = hear(channel, 'presence', { event: 'join' })
    await subscribed(channel)
    assert.equal(await channel.track({ mood: 'calm' }), 'ok')
    const { key, newPresences } = await joins.next()
    assert.deepEqual([key, newPresences[0].mood], ['ann', 'calm'])
  },
}
