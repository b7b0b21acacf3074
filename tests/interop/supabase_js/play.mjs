// Plays one scenario: node play.mjs SCENARIO CONTEXT, or prints their names: node play.mjs --list
//
// The context is JSON: {"url": …, "key": …, "anon": …, "vsn": …}. While a scenario plays, it asks the test that started
// it for what a client cannot do, see `ask`. It ends with status 0, or prints what went wrong.

const FAMILIES = ['broadcast', 'presence', 'private', 'changes', 'session', 'reconnect', 'database', 'together', 'http']

const scenarios = {}
for (const family of FAMILIES) {
  const { default: played } = await import(`./${family}.mjs`)
  for (const [name, scenario] of Object.entries(played)) scenarios[`${family}.${name}`] = scenario
}

if (process.argv[2] === '--list') {
  console.log(JSON.stringify(Object.keys(scenarios)))
} else {
  const { play } = await import('./harness.mjs')
  await play(scenarios[process.argv[2]])
}
