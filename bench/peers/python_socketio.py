"""python-socketio on uvicorn and uvloop, as its documentation shows a room.

python python_socketio.py PORT     0 takes a free one, and it is printed
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import socketio  # type: ignore[import-untyped]
import uvicorn
import uvloop

rooms = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], ping_timeout=60)


async def join(sid: str, topic: str) -> None:
    """Enter a room, and say so."""
    await rooms.enter_room(sid, topic)
    await rooms.emit("joined", topic, to=sid)


async def publish(sid: str, topic: str, payload: dict[str, Any]) -> None:
    """Send to everybody in the room but the sender."""
    await rooms.emit("broadcast", payload, room=topic, skip_sid=sid)


async def heartbeat(sid: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Answer: what is returned is sent as the acknowledgement."""
    del sid
    return payload


async def main() -> None:
    """Serve until killed."""
    for handler in (join, publish, heartbeat):
        rooms.on(handler.__name__, handler)
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(socketio.ASGIApp(rooms), log_level="error", lifespan="off")
    await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    uvloop.run(main())
