"""The lobby of a game: who is here, who is ready, and the start when all are.

backbeat dev                       # in one terminal
python examples/lobby.py eric      # in another: press Enter when you are ready
python examples/lobby.py mike      # and one more

Presence carries the state of each player: whoever comes gets all of it, and whoever vanishes, also by losing
the connection, is taken out by the server. The start is a broadcast: it happens once, to whoever is here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
from collections.abc import Mapping
from typing import Any

from backbeat import Broadcast, Presence, RealtimeClient
from backbeat.client.channel import Channel
from backbeat.client.events import BroadcastEvent, PresenceSync
from backbeat.local.project import DEFAULT_PUBLISHABLE_KEY

ENOUGH = 2


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--url", default="http://127.0.0.1:54321")
    parser.add_argument("--key", default=DEFAULT_PUBLISHABLE_KEY)
    return parser.parse_args()


async def wait_for_start(lobby: Channel, name: str) -> list[str]:
    """Show who is here until the game starts.

    Returns:
        The players, in the order of their turns.
    """
    async with lobby.events(Presence(), Broadcast("start")) as events:
        await lobby.subscribe()
        await lobby.presence.track({"ready": False})
        async for event in events:
            match event:
                case BroadcastEvent(payload={"turns": turns}):
                    return list(turns)
                case PresenceSync(state=state):
                    players = {player: is_ready(metas) for player, metas in sorted(state.items())}
                    print("  ".join(f"{'●' if ready else '○'} {who}" for who, ready in players.items()))
                    # Somebody has to give the word, and everybody knows who: the first of those who are here.
                    if len(players) >= ENOUGH and all(players.values()) and name == min(players):
                        turns = random.sample(list(players), len(players))
                        await lobby.send("start", {"turns": turns})
    raise RuntimeError("the lobby was left")


def is_ready(metas: tuple[Mapping[str, Any], ...]) -> bool:
    """Whether a player, who may be here more than once, is ready everywhere."""
    return all(meta.get("ready") is True for meta in metas)


async def press_enter(lobby: Channel) -> None:
    """Say that we are ready when Enter is pressed."""
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    if await lines.readline():
        await lobby.presence.track({"ready": True})


async def play(name: str, url: str, key: str) -> None:
    """Be in the lobby until the game starts."""
    async with RealtimeClient(url, key) as client:
        # `receive_own`: whoever gives the word hears it like the others, at the same place in the order.
        lobby = client.channel("lobby", presence_key=name, receive_own=True)
        async with asyncio.TaskGroup() as group:
            pressing = group.create_task(press_enter(lobby))
            turns = await wait_for_start(lobby, name)
            pressing.cancel()
    print(f"The game starts: {', '.join(turns)}.")


if __name__ == "__main__":
    given = parse()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(play(given.name, given.url, given.key))
