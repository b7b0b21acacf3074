// node `ws`, as its documentation shows a broadcast: parse, look up the room, one `send` for each member.
//
//     node ws.mjs PORT FOLDER     FOLDER has the node_modules to use; port 0 takes a free one, and it is printed

import { createRequire } from 'node:module'

const { WebSocketServer } = createRequire(process.argv[3])('ws')
const rooms = new Map()
const server = new WebSocketServer({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096, perMessageDeflate: false })

server.on('listening', () => console.log(server.address().port))
server.on('connection', (socket) => {
  const mine = new Set()
  socket.on('message', (data) => {
    const [joinRef, ref, topic, event, payload] = JSON.parse(data)
    if (event === 'broadcast') {
      const text = JSON.stringify([null, null, topic, event, payload])
      for (const member of rooms.get(topic) ?? []) if (member !== socket) member.send(text)
      return
    }
    if (event === 'phx_join') {
      if (!rooms.has(topic)) rooms.set(topic, new Set())
      rooms.get(topic).add(socket)
      mine.add(topic)
    }
    socket.send(JSON.stringify([joinRef, ref, topic, 'phx_reply', { status: 'ok', response: {} }]))
  })
  socket.on('close', () => mine.forEach((topic) => rooms.get(topic).delete(socket)))
})
