// One run of `@supabase/realtime-js`, for `bench/client.py`, which says what the runs are.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const [modules, url, key, what, topic, count] = process.argv.slice(2)
const require = createRequire(modules)
const { RealtimeClient } = require('@supabase/realtime-js')

const TALK = { x: 0.25, y: 0.75, user: 'somebody', text: 'what people draw on a board together' }

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

async function say(word) {
  globalThis.gc()
  console.log(word)
  await lines.next()
}

const subscribed = (channel) =>
  new Promise((resolve, reject) =>
    channel.subscribe((status, error) =>
      status === 'SUBSCRIBED' ? resolve() : reject(error ?? new Error(status))
    )
  )

const client = new RealtimeClient(url, { params: { apikey: key }, transport: require('ws') })

const runs = {
  async receive() {
    let missing = count
    let done
    const all = new Promise((resolve) => (done = resolve))
    const channel = client.channel(topic).on('broadcast', { event: 'said' }, () => {
      if (!--missing) done()
    })
    await subscribed(channel)
    await say('ready')
    await all
  },

  async talk() {
    let back
    const channel = client
      .channel(topic, { config: { broadcast: { self: true } } })
      .on('broadcast', { event: 'said' }, () => back())
    await subscribed(channel)
    await say('ready')
    for (let n = 0; n < count; n++) {
      const returned = new Promise((resolve) => (back = resolve))
      await channel.send({ type: 'broadcast', event: 'said', payload: TALK })
      await returned
    }
  },

  async join() {
    await subscribed(client.channel(`${topic}-first`))
    await say('ready')
    await Promise.all(Array.from({ length: count }, (_, n) => subscribed(client.channel(`${topic}-${n}`))))
  },
}

await runs[what]()
await say('done')
process.exit(0)
