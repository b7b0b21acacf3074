"""INV-4, INV-7, INV-15: nothing grows, and in the end nothing is left."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

from tests.unit.client.world import World, jwt

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.client.conftest import MakeClient

    from backbeat.testing import MemoryServer

TOLERANCE = 200
"""Objects that may come and go by themselves, with caches of the interpreter and the test runner."""


def growth(step: Callable[[], None], *, warm: int, times: int) -> int:
    """How many objects are left over by many steps, after a few that fill the caches."""
    for _ in range(warm):
        step()
    gc.collect()
    before = len(gc.get_objects())
    gc.disable()  # it is collected once, at the end
    try:
        for _ in range(times):
            step()
    finally:
        gc.enable()
    gc.collect()
    return len(gc.get_objects()) - before


def test_a_thousand_reconnects_leave_nothing_behind() -> None:
    """Channels, timers and objects are as many as before."""
    world = World(source=True, answer=jwt(lives=10_000_000))
    for topic in ("one", "two"):
        world.track(world.joined(topic, private=True, presence=True), {"x": 1})

    def reconnect() -> None:
        world.server.cut()
        world.advance(31)
        world.forget()

    timers: set[int] = set()

    def counted() -> None:
        reconnect()
        timers.add(len(world.timers))

    assert growth(counted, warm=30, times=1000) < TOLERANCE
    assert world.opens == 1031
    assert len(timers) <= 2
    assert {each.state.value for each in world.engine.channels.values()} == {"joined"}


def test_ten_thousand_channels_leave_nothing_behind() -> None:
    """Neither in the engine nor at the server."""
    world = World(token=jwt(), joins_per_second=100_000)
    numbers = iter(range(1_000_000))

    def come_and_go() -> None:
        world.remove(world.joined(f"room {next(numbers)}"))
        world.forget()

    assert growth(come_and_go, warm=20, times=10_000) < TOLERANCE
    assert world.engine.channels == {}
    assert not any(connection.channels for connection in world.server.connections)


async def test_channels_of_a_client_leave_nothing_behind(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """With handlers, streams, and what they heard."""
    client = make_client(joins_per_second=100_000)
    await client.connect()
    counts = []
    for _ in range(6):
        for number in range(50):
            channel = client.channel(f"room {number}")
            channel.on_broadcast("x", lambda _: None)
            stream = channel.broadcasts()
            await channel.subscribe()
            server.broadcast(channel.topic, "x", {})
            await stream.next(5)
            await client.remove(channel)
        server.received.clear()
        await asyncio.sleep(0)
        gc.collect()
        counts.append(len(gc.get_objects()))
    assert counts[-1] - counts[2] < TOLERANCE
    assert (client.stats().tasks, client.channels) == (2, ())


def test_what_waits_is_bounded() -> None:
    """However much is sent while nothing is joined, and however many stored messages come."""
    world = World(push_buffer=10)
    world.server.unreachable()
    channel, _ = world.subscribe()
    for _ in range(1000):
        world.broadcast(channel)
    assert world.membership(channel).pending == 10


def test_diffs_that_wait_for_a_state_are_bounded() -> None:
    """A server that never sends the state does not fill the memory."""
    world = World()
    channel = world.joined(presence=True)
    view = world.membership(channel)._delivery.presence
    view.expect_state()
    diff = b'{"joins":{"a":{"metas":[{"phx_ref":"1"}]}},"leaves":{}}'
    for _ in range(3000):
        view.take_diff(diff, 0.0)
    assert len(view._pending) == 1000


async def test_no_task_is_left_when_a_client_is_closed(server: MemoryServer, make_client: MakeClient) -> None:
    """Whatever it was doing: opening, joining, waiting for a token, calling a handler, backing off."""

    async def hang() -> str:
        await asyncio.get_running_loop().create_future()
        return ""

    before = asyncio.all_tasks()
    for prepare in ("hang", "unreachable", "handler", "token"):
        client = make_client(token=hang if prepare == "token" else None)
        channel = client.channel("room")
        server.hang_upgrades(prepare == "hang")
        server.unreachable(prepare == "unreachable")
        waiting = asyncio.create_task(channel.subscribe())
        if prepare == "handler":
            called = asyncio.Event()

            @channel.on_broadcast()
            async def handler(_: object, called: asyncio.Event = called) -> None:
                called.set()
                await asyncio.get_running_loop().create_future()

            await waiting
            server.broadcast("room", "x", {})
            await called.wait()
        await asyncio.sleep(0.01)
        await client.close()
        await asyncio.gather(waiting, return_exceptions=True)
        assert client.stats().tasks == 0
        assert asyncio.all_tasks() == before
        assert server.connections == []
