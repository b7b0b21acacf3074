// What every scenario needs: clients, somewhere to put what they receive, and a word with the test.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { createInterface } from 'node:readline'

import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'

const PATIENCE_MS = 18_000
const LINES_KEPT = 80
const LINE_LENGTH = 300

export const context = JSON.parse(process.argv[3] ?? '{}')

const waitingFor = new Set()
const trace = []
const began = performance.now()

function note(...parts) {
  const text = parts.map((part) => (typeof part === 'string' ? part : JSON.stringify(part))).join(' ')
  trace.push(`${(performance.now() - began).toFixed(0).padStart(6)} ms  ${text.slice(0, LINE_LENGTH)}`)
  if (trace.length > LINES_KEPT) trace.shift()
}

function fail(error) {
  console.error(error?.stack ?? error)
  if (waitingFor.size) console.error(`Waiting for: ${[...waitingFor].join(', ')}`)
  console.error(`--- what the clients did\n${trace.join('\n')}`)
  process.exit(1)
}

/** Plays a scenario and ends the process. */
export async function play(scenario) {
  process.on('unhandledRejection', fail)
  process.on('uncaughtException', fail)
  setTimeout(() => fail(new Error(`Not done after ${PATIENCE_MS} ms`)), PATIENCE_MS)
  await scenario()
  process.exit(0)
}

async function waiting(what, promise) {
  waitingFor.add(what)
  try {
    return await promise
  } finally {
    waitingFor.delete(what)
  }
}

/** Things in the order they came. What is put in is taken out by whoever waits. */
export class Inbox {
  #name
  #items = []
  #arrived = () => {}

  constructor(name) {
    this.#name = name
  }

  put = (item) => {
    this.#items.push(item)
    this.#arrived()
  }

  /** Takes the next item. */
  async next() {
    while (!this.#items.length) {
      await waiting(`the next of ${this.#name}`, new Promise((resolve) => (this.#arrived = resolve)))
    }
    return this.#items.shift()
  }

  /** Takes items until one matches, and returns that. */
  async until(matches) {
    for (;;) {
      const item = await this.next()
      if (matches(item)) return item
      note(`${this.#name} went on after`, item)
    }
  }
}

const answers = new Inbox('answers of the test')
if (context.url) createInterface({ input: process.stdin }).on('line', (line) => answers.put(JSON.parse(line)))

/** Asks the test to do something: 'sql', 'token', 'cut', 'freeze', 'restart'. */
export async function ask(action, ...args) {
  note(`asking for ${action}`, args)
  process.stdout.write(`${JSON.stringify({ ask: action, with: args })}\n`)
  return (await waiting(`the test to ${action}`, answers.next())).answer
}

/** A name nobody else uses. */
export const unique = (name) => `${name}-${randomUUID()}`

/** A client as an application makes it. */
export function connect({ key = context.key, vsn = context.vsn, realtime = {}, ...options } = {}) {
  return createClient(context.url, key, {
    auth: { persistSession: false, autoRefreshToken: false },
    realtime: { transport: WebSocket, vsn, logger: note, ...realtime },
    ...options,
  })
}

/** Unwraps what supabase-js returns instead of throwing. */
export function ok({ data, error }) {
  if (error) throw error
  return data
}

export const credentials = () => ({ email: `${unique('user')}@example.com`, password: 'correct horse battery' })

/** A client of somebody who has just signed up. */
export async function connectAsUser(options) {
  const supabase = connect(options)
  const { user } = ok(await supabase.auth.signUp(credentials()))
  return { supabase, user }
}

/** A client that gets its tokens elsewhere, and has the first. */
export async function connectWithToken(accessToken, options) {
  const supabase = connect({ ...options, accessToken })
  // `subscribe` does not wait for it: a private channel would be asked for with the key alone.
  await supabase.realtime.setAuth()
  return supabase
}

/** Subscribes, and says what became of it. */
export function subscribe(channel) {
  const statuses = new Inbox(`statuses of ${channel.topic}`)
  channel.subscribe((status, error) => {
    note(`status of ${channel.topic}`, status, error?.message ?? '')
    statuses.put({ status, reason: error?.message })
  })
  return statuses
}

/** Subscribes and waits until that worked. */
export async function subscribed(channel) {
  const statuses = subscribe(channel)
  assert.deepEqual(await statuses.next(), { status: 'SUBSCRIBED', reason: undefined })
  return statuses
}

/** What a channel hears of a kind. */
export function hear(channel, type, filter = { event: '*' }) {
  const inbox = new Inbox(`${type} ${JSON.stringify(filter)} in ${channel.topic}`)
  channel.on(type, filter, inbox.put)
  return inbox
}

/** Subscribes to a channel with row changes and waits until they flow. */
export async function flowing(channel) {
  const system = hear(channel, 'system', {})
  const statuses = await subscribed(channel)
  const { status, message } = await system.until(({ extension }) => extension === 'postgres_changes')
  assert.deepEqual({ status, message }, { status: 'ok', message: 'Subscribed to PostgreSQL' })
  return statuses
}

/** Broadcasts something. */
export const say = (channel, payload, event = 'said') => channel.send({ type: 'broadcast', event, payload })

/** Broadcasts something and waits until the others have it. */
export async function sayTo(inboxes, channel, payload) {
  assert.equal(await say(channel, payload), 'ok')
  for (const inbox of inboxes) assert.deepEqual((await inbox.next()).payload, payload)
}
