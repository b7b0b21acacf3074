"""More at once than may wait: whoever keeps up loses nothing, and lets others have their turn."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from backbeat.client import dispatcher
from backbeat.client.dispatcher import MAX_WAITING, TURN, Dispatcher
from backbeat.client.events import Heartbeat
from backbeat.client.selectors import Wish
from backbeat.client.streams import OverflowPolicy
from backbeat.client.tasks import Tasks

if TYPE_CHECKING:
    from tests.unit.client.conftest import MakeClient

    from backbeat.testing import MemoryServer


def unexpected(name: str, what: object) -> None:
    """Fail."""
    pytest.fail(f"{name}: {what}")


async def test_a_burst_is_heard_in_full(server: MemoryServer, make_client: MakeClient) -> None:
    """A handler and a stream that keep up get three times as much as may wait for them."""
    channel = make_client().channel("room")
    heard: list[int] = []
    channel.on_broadcast(handler=lambda event: heard.append(event.payload))
    stream = channel.events(overflow=OverflowPolicy.RAISE)
    await channel.subscribe()
    for n in range(3 * MAX_WAITING):
        server.broadcast("room", "x", n)
    async with asyncio.timeout(5):
        async for event in stream:
            if getattr(event, "payload", None) == 3 * MAX_WAITING - 1:
                break
    await channel.settled()
    assert heard == list(range(3 * MAX_WAITING))


async def test_handlers_that_never_wait_let_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after each event, but as soon as they took long enough."""
    clock = itertools.count(step=0.4 * TURN)
    monkeypatch.setattr(dispatcher, "monotonic", lambda: next(clock))
    order: list[str] = []
    handlers = Dispatcher("test", Tasks(unexpected), failed=unexpected, overflowed=unexpected)
    handlers.add(Wish(), lambda _: order.append("event"))
    for _ in range(6):
        handlers.put(Heartbeat(at=0.0, status="ok"), ())
    while len(handlers):
        await asyncio.sleep(0)
        order.append("other")
    assert order == ["event", "event", "event", "other"] * 2
