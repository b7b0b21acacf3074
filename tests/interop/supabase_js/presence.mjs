import assert from 'node:assert/strict'

import { Inbox, connect, context, hear, subscribed, unique } from './harness.mjs'

/** Who is there, by key, without the references. */
function present(channel) {
  const metas = ([key, metas]) => [key, metas.map(({ presence_ref, ...meta }) => (assert.ok(presence_ref), meta))]
  return Object.fromEntries(Object.entries(channel.presenceState()).map(metas))
}

/** A member of a room: what they see after every sync, and who joins and leaves. */
async function member(topic, key, vsn = context.vsn) {
  const supabase = connect({ vsn })
  const channel = supabase.channel(topic, { config: { presence: { key } } })
  const seen = new Inbox(`what ${key} sees`)
  channel.on('presence', { event: 'sync' }, () => seen.put(present(channel)))
  const joins = hear(channel, 'presence', { event: 'join' })
  const leaves = hear(channel, 'presence', { event: 'leave' })
  await subscribed(channel)
  return { supabase, channel, seen, joins, leaves }
}

async function sees({ seen }, expected) {
  await seen.until((state) => JSON.stringify(state) === JSON.stringify(expected))
}

async function two(versions = []) {
  const topic = unique('room')
  const ann = await member(topic, 'ann', versions[0])
  const bob = await member(topic, 'bob', versions[1])
  for (const somebody of [ann, bob]) await sees(somebody, {})
  return { topic, ann, bob }
}

async function come_and_go({ ann, bob }) {
  assert.equal(await ann.channel.track({ mood: 'calm' }), 'ok')
  for (const somebody of [ann, bob]) await sees(somebody, { ann: [{ mood: 'calm' }] })
  const { key, newPresences } = await bob.joins.next()
  assert.deepEqual([key, newPresences[0].mood], ['ann', 'calm'])

  assert.equal(await ann.channel.untrack(), 'ok')
  for (const somebody of [ann, bob]) await sees(somebody, {})
  const left = await bob.leaves.next()
  assert.deepEqual([left.key, left.leftPresences[0].mood], ['ann', 'calm'])
}

export default {
  // Both see who tracks themselves, and that they no longer do.
  async come_and_go() {
    await come_and_go(await two())
  },

  // The same between clients of version 1 and 2.
  async between_versions() {
    await come_and_go(await two(['1.0.0', '2.0.0']))
    await come_and_go(await two(['2.0.0', '1.0.0']))
  },

  // Tracking again replaces what was tracked before, and both end up with one entry.
  async update() {
    const { ann, bob } = await two()
    await ann.channel.track({ mood: 'calm' })
    await ann.channel.track({ mood: 'wild' })
    for (const somebody of [ann, bob]) await sees(somebody, { ann: [{ mood: 'wild' }] })
    await ann.channel.untrack()
    for (const somebody of [ann, bob]) await sees(somebody, {})
  },

  // Who comes later sees at once who is there already.
  async latecomer() {
    const { topic, ann } = await two()
    await ann.channel.track({ mood: 'calm' })
    await sees(ann, { ann: [{ mood: 'calm' }] })
    const eve = await member(topic, 'eve')
    assert.deepEqual(await eve.seen.next(), { ann: [{ mood: 'calm' }] })
  },

  // Two clients with one key are two entries under it.
  async one_key_twice() {
    const topic = unique('room')
    const [phone, laptop] = [await member(topic, 'ann'), await member(topic, 'ann')]
    await phone.channel.track({ on: 'phone' })
    await sees(laptop, { ann: [{ on: 'phone' }] })
    await laptop.channel.track({ on: 'laptop' })
    await sees(phone, { ann: [{ on: 'phone' }, { on: 'laptop' }] })
    await phone.channel.untrack()
    await sees(laptop, { ann: [{ on: 'laptop' }] })
  },

  // Who leaves the channel is gone for the others.
  async leaving() {
    const { ann, bob } = await two()
    await ann.channel.track({ mood: 'calm' })
    await sees(bob, { ann: [{ mood: 'calm' }] })
    await ann.supabase.removeChannel(ann.channel)
    await sees(bob, {})
  },

  // Who disconnects is gone for the others.
  async disconnecting() {
    const { ann, bob } = await two()
    await ann.channel.track({ mood: 'calm' })
    await sees(bob, { ann: [{ mood: 'calm' }] })
    await ann.supabase.realtime.disconnect()
    await sees(bob, {})
  },
}
