"""A chat on terminals: what one types, everybody in the room reads.

backbeat dev                              # in one terminal
python examples/chat.py eric              # in another
python examples/chat.py mike --room den   # `--room` for a room of its own; `lobby` without it

The channel is public: the API key is enough, and nobody signs in. Nothing is stored.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

from backbeat import RealtimeClient
from backbeat.client.events import BroadcastEvent, Interrupted, Resumed, StatusEvent
from backbeat.errors import BackbeatError
from backbeat.local.project import DEFAULT_PUBLISHABLE_KEY


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--room", default="lobby")
    parser.add_argument("--url", default="http://127.0.0.1:54321")
    parser.add_argument("--key", default=DEFAULT_PUBLISHABLE_KEY)
    return parser.parse_args()


async def chat(name: str, room: str, url: str, key: str) -> None:
    """Send what is typed, and print what others send, until the input ends."""
    async with RealtimeClient(url, key) as client:
        # `ack`: sending waits for the server's word that it took the message.
        channel = client.channel(room, ack=True)

        def heard(event: BroadcastEvent) -> None:
            print(f"{event.payload['from']}: {event.payload['text']}")

        def status(event: StatusEvent) -> None:
            match event:
                case Interrupted(error=error):
                    print(f"(away: {error})")
                case Resumed(downtime=seconds):
                    print(f"(back after {seconds:.0f} s)")

        channel.on_broadcast("line", heard)
        channel.on_status(status)
        async with channel:
            print(f"You are in {room}.")
            lines = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(lines)
            await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
            async for line in lines:
                try:
                    await channel.send("line", {"from": name, "text": line.decode().strip()})
                except BackbeatError as error:
                    print(f"(not sent: {error})")


if __name__ == "__main__":
    given = parse()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(chat(given.name, given.room, given.url, given.key))
