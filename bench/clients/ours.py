"""One run of our client, for `bench/client.py`, which says what the runs are."""

from __future__ import annotations

import asyncio
import gc
import sys
from importlib import import_module

from backbeat.client import ClientSettings, RealtimeClient

TALK = {"x": 0.25, "y": 0.75, "user": "somebody", "text": "what people draw on a board together"}
AT_ONCE = ClientSettings(joins_per_second=1_000_000)


async def say(word: str) -> None:
    """Tell the bench something, and wait until it answers."""
    gc.collect()
    print(word, flush=True)
    await asyncio.to_thread(sys.stdin.readline)


class Counter:
    """Counts what comes.

    Args:
        count: how much is expected.
    """

    def __init__(self, count: int) -> None:
        self._missing = count
        self.done = asyncio.Event()

    def __call__(self, _: object) -> None:
        """Count one."""
        self._missing -= 1
        if not self._missing:
            self.done.set()


async def receive(client: RealtimeClient, topic: str, count: int) -> None:
    """Receive so many broadcasts in a handler."""
    counter = Counter(count)
    channel = client.channel(topic)
    channel.on_broadcast("said", counter)
    await channel.subscribe()
    await say("ready")
    await counter.done.wait()


async def stream(client: RealtimeClient, topic: str, count: int) -> None:
    """Receive so many broadcasts in an `async for`."""
    channel = client.channel(topic)
    events = channel.broadcasts("said")

    async def take() -> None:
        counter = Counter(count)
        async for event in events:
            counter(event)
            if counter.done.is_set():
                return

    await channel.subscribe()
    # The first messages are here before the bench has said that it is time.
    taking = asyncio.create_task(take())
    await say("ready")
    await taking


async def talk(client: RealtimeClient, topic: str, count: int) -> None:
    """Send so many broadcasts to itself, each when the one before is back."""
    channel = client.channel(topic, receive_own=True)
    back = asyncio.Event()
    channel.on_broadcast("said", lambda _: back.set())
    await channel.subscribe()
    await say("ready")
    for _ in range(count):
        back.clear()
        await channel.send("said", TALK)
        await back.wait()


async def join(client: RealtimeClient, topic: str, count: int) -> None:
    """Join so many channels at once."""
    await client.connect()
    await say("ready")
    await asyncio.gather(*(client.channel(f"{topic}-{n}").subscribe() for n in range(count)))


async def main(url: str, key: str, what: str, topic: str, count: str) -> None:
    """Run, and wait to be looked at."""
    runs = {"receive": receive, "stream": stream, "talk": talk, "join": join}
    async with RealtimeClient(url, key, settings=AT_ONCE) as client:
        await runs[what](client, topic, int(count))
        await say("done")


if __name__ == "__main__":
    run = import_module("uvloop").run if sys.argv[1] == "uvloop" else asyncio.run
    run(main(*sys.argv[2:]))
