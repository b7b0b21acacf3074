"""One run of `realtime` from PyPI, for `bench/client.py`, which says what the runs are."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

from realtime import AsyncRealtimeClient  # type: ignore[import-not-found]

TALK = {"x": 0.25, "y": 0.75, "user": "somebody", "text": "what people draw on a board together"}
HEARS_ITSELF = {"config": {"broadcast": {"ack": False, "self": True}, "presence": None, "private": False}}


async def say(word: str) -> None:
    """Tell the bench something, and wait until it answers."""
    gc.collect()
    print(word, flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def receive(client: Any, topic: str, count: int) -> None:
    """Receive so many broadcasts in a callback."""
    missing, done = count, asyncio.Event()

    def counted(_: object) -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            done.set()

    channel = client.channel(topic)
    await channel.on_broadcast("said", counted).subscribe()
    await say("ready")
    await done.wait()


async def talk(client: Any, topic: str, count: int) -> None:
    """Send so many broadcasts to itself, each when the one before is back."""
    back = asyncio.Event()
    channel = client.channel(topic, HEARS_ITSELF)
    await channel.on_broadcast("said", lambda _: back.set()).subscribe()
    await say("ready")
    for _ in range(count):
        back.clear()
        await channel.send_broadcast("said", TALK)
        await back.wait()


async def join(client: Any, topic: str, count: int) -> None:
    """Join so many channels at once."""
    await client.connect()
    await say("ready")
    await asyncio.gather(*(client.channel(f"{topic}-{n}").subscribe() for n in range(count)))


async def main(url: str, key: str, what: str, topic: str, count: str) -> None:
    """Run, and wait to be looked at."""
    runs = {"receive": receive, "talk": talk, "join": join}
    client = AsyncRealtimeClient(url, key)
    await runs[what](client, topic, int(count))
    await say("done")
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
