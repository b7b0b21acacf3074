import assert from 'node:assert/strict'

import { connect, connectAsUser, context, hear, subscribed, unique } from './harness.mjs'

async function listener(supabase, topic, config = {}) {
  const channel = supabase.channel(topic, { config })
  const inbox = hear(channel, 'broadcast')
  await subscribed(channel)
  return inbox
}

export default {
  // Sending on a channel that is not joined goes over HTTP.
  async not_joined() {
    const topic = unique('room:with:colons')
    const inbox = await listener(connect(), topic)
    const channel = connect().channel(topic)
    assert.equal(await channel.send({ type: 'broadcast', event: 'said', payload: { n: 1 } }), 'ok')
    assert.deepEqual(await inbox.next(), { type: 'broadcast', event: 'said', payload: { n: 1 } })
  },

  // `httpSend` names topic and event in the path, whatever is in them.
  async http_send() {
    const topic = unique('röom/with spaces?')
    const inbox = await listener(connect(), topic)
    assert.deepEqual(await connect().channel(topic).httpSend('Ünïcode 🎶', { n: 1 }), { success: true })
    const { event, payload } = await inbox.next()
    assert.deepEqual({ event, payload }, { event: 'Ünïcode 🎶', payload: { n: 1 } })
  },

  // `httpSend` carries bytes; version 1 cannot receive them, and its clients go on without.
  async http_send_binary() {
    const topic = unique('room')
    const inbox = await listener(connect(), topic)
    const channel = connect().channel(topic)
    await channel.httpSend('bytes', Uint8Array.of(0, 255, 16))
    await channel.httpSend('text', { n: 1 })
    if (context.vsn === '2.0.0') {
      const { event, payload } = await inbox.next()
      assert.equal(event, 'bytes')
      assert.deepEqual(new Uint8Array(payload), Uint8Array.of(0, 255, 16))
    }
    assert.equal((await inbox.next()).event, 'text')
  },

  // A private topic takes what the policies let one say.
  async private_topic() {
    const { supabase } = await connectAsUser()
    const topic = unique('open')
    const inbox = await listener(supabase, topic, { private: true })
    const speaker = (await connectAsUser()).supabase.channel(topic, { config: { private: true } })
    // The session reaches the channel when it subscribes; a channel that never does is told.
    await speaker.socket.setAuth()
    assert.deepEqual(await speaker.httpSend('single', { n: 1 }), { success: true })
    assert.equal(await speaker.send({ type: 'broadcast', event: 'batch', payload: { n: 2 } }), 'ok')
    assert.equal((await inbox.next()).event, 'single')
    assert.equal((await inbox.next()).event, 'batch')
  },

  // Who may not speak is told.
  async refused() {
    const channel = connect({ key: context.anon }).channel(unique('open'), { config: { private: true } })
    await assert.rejects(channel.httpSend('said', { n: 1 }), /Unauthorized|Forbidden/)
  },
}
