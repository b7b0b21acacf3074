import { connect, context, hear, sayTo, subscribed } from './harness.mjs'

export default {
  // Meets a client in another language, asks it something, and goes when that was answered.
  async asks() {
    const supabase = connect()
    const channel = supabase.channel(context.topic, { config: { presence: { key: 'javascript' } } })
    const joins = hear(channel, 'presence', { event: 'join' })
    const answers = hear(channel, 'broadcast', { event: 'answer' })
    await subscribed(channel)
    await channel.track({ language: 'JavaScript 🟨' })
    await joins.until(({ key, newPresences }) => key === 'python' && newPresences[0].language === 'Python 🐍')
    for (let n = 0; n < 5; n++) await sayTo([answers], channel, { n, text: 'naïve 🎸' })
    await supabase.removeChannel(channel)
  },
}
