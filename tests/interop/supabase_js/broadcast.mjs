import assert from 'node:assert/strict'

import { connect, context, hear, say, sayTo, subscribed, unique } from './harness.mjs'

async function pair(config = {}, versions = []) {
  const topic = unique('room')
  const channels = [0, 1].map((n) => connect({ ...(versions[n] && { vsn: versions[n] }) }).channel(topic, { config }))
  const inboxes = channels.map((channel) => hear(channel, 'broadcast'))
  await Promise.all(channels.map(subscribed))
  return { channels, inboxes }
}

export default {
  // What one says the other hears, and nobody hears themselves.
  async both_ways() {
    const { channels, inboxes } = await pair()
    await sayTo([inboxes[1]], channels[0], { n: 1 })
    // Had the first heard themselves, that would be here before the answer.
    await sayTo([inboxes[0]], channels[1], { n: 2 })
  },

  // A message arrives as it was sent: event, type, and a payload with everything JSON can hold.
  async unchanged() {
    const { channels, inboxes } = await pair()
    const payload = { text: 'naïve 🎸 \u2028 "quoted"', deep: [{ a: [null, true, 1.5, -0.001, 9007199254740991] }], empty: {} }
    await say(channels[0], payload, 'Ünïcode 🎶')
    assert.deepEqual(await inboxes[1].next(), { type: 'broadcast', event: 'Ünïcode 🎶', payload })
  },

  // With `self` the sender hears themselves.
  async oneself() {
    const { channels, inboxes } = await pair({ broadcast: { self: true } })
    await sayTo(inboxes, channels[0], { n: 1 })
  },

  // With `ack` sending is answered.
  async acknowledged() {
    const { channels, inboxes } = await pair({ broadcast: { ack: true } })
    await sayTo([inboxes[1]], channels[0], { n: 1 })
  },

  // Many messages, if fewer than one may send in a second, arrive all, once, and in order.
  async in_order() {
    const { channels, inboxes } = await pair()
    for (let n = 0; n < 80; n++) say(channels[0], { n })
    for (let n = 0; n < 80; n++) assert.deepEqual((await inboxes[1].next()).payload, { n })
  },

  // A client of version 1 and one of version 2 understand each other.
  async between_versions() {
    const { channels, inboxes } = await pair({}, ['1.0.0', '2.0.0'])
    await sayTo([inboxes[1]], channels[0], { text: 'from one 🎸' })
    await sayTo([inboxes[0]], channels[1], { text: 'from two 🎸' })
  },

  // Bytes arrive as bytes; version 1 cannot carry them, and its clients go on without.
  async binary() {
    const { channels, inboxes } = await pair({ broadcast: { ack: true } }, ['2.0.0', context.vsn])
    const bytes = Uint8Array.from({ length: 256 }, (_, n) => n)
    assert.equal(await say(channels[0], bytes.buffer, 'bytes'), 'ok')
    assert.equal(await say(channels[0], { n: 1 }, 'text'), 'ok')
    if (context.vsn === '2.0.0') {
      const { event, payload } = await inboxes[1].next()
      assert.equal(event, 'bytes')
      assert.ok(payload instanceof ArrayBuffer)
      assert.deepEqual(new Uint8Array(payload), bytes)
    }
    assert.equal((await inboxes[1].next()).event, 'text')
  },

  // One socket carries many channels, and each hears its own.
  async many_channels() {
    const [speaker, listener] = [connect(), connect()]
    const topics = Array.from({ length: 20 }, () => unique('room'))
    const heard = topics.map((topic) => listener.channel(topic)).map((channel) => ({ channel, inbox: hear(channel, 'broadcast') }))
    await Promise.all(heard.map(({ channel }) => subscribed(channel)))
    const speakers = topics.map((topic) => speaker.channel(topic))
    await Promise.all(speakers.map(subscribed))
    for (const [n, channel] of speakers.entries()) say(channel, { n })
    for (const [n, { inbox }] of heard.entries()) assert.deepEqual((await inbox.next()).payload, { n })
  },

  // A channel that was left hears nothing more; joined anew, it hears again.
  async left_and_joined_anew() {
    const { channels, inboxes } = await pair({ broadcast: { ack: true } })
    const listener = channels[1].socket
    assert.equal(await listener.removeChannel(channels[1]), 'ok')
    // Nothing orders what two sockets send: it has been sent to all who are there once it is answered.
    assert.equal(await say(channels[0], { n: 1 }), 'ok')
    const anew = listener.channel(channels[1].subTopic)
    const inbox = hear(anew, 'broadcast')
    await subscribed(anew)
    await sayTo([inbox], channels[0], { n: 2 })
    await sayTo([inboxes[0]], anew, { n: 3 })
  },
}
