"""Row changes are written in order, and however many they are, everybody else has a turn in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog.testing
from tests.unit.server.conftest import SECRET, Server

from backbeat.postgres.changes import Delivery
from backbeat.postgres.database import Database
from backbeat.protocol.codec import V2
from backbeat.server.dispatcher import TURN, WRITE, Dispatcher
from backbeat.server.feed import Feed
from backbeat.server.metrics import Metrics
from backbeat.server.outbox import Outbox
from backbeat.server.settings import Settings
from backbeat.server.subscription import ChangeSubscription
from backbeat.tokens.claims import Claims

ENTRY = {"event": "*", "schema": "public", "table": "songs"}
CLAIMS = Claims.of({"role": "authenticated", "sub": "u1", "exp": 4e9})


class Turns:
    """Counts the turns of the event loop, and what is written in each."""

    def __init__(self) -> None:
        self.writes = [0]
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._next)

    def _next(self) -> None:
        self.writes.append(0)
        self._loop.call_soon(self._next)

    def count(self) -> None:
        """Count a write."""
        self.writes[-1] += 1


class Listener:
    """A subscription, and the changes that were written to it."""

    def __init__(self, server: Server, turns: Turns | None = None) -> None:
        self.frames: list[bytes] = []
        self.on_write: Callable[[], None] = turns.count if turns is not None else lambda: None
        line: Any = SimpleNamespace(send=self._write, serializer=V2)
        outbox = Outbox(line, "realtime:songs", "1", explain=False)
        self.subscription = ChangeSubscription(server.realtime, outbox, [ENTRY], [1])

    def _write(self, data: bytes) -> None:
        self.on_write()
        self.frames.append(data)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the changes that were written, in order."""
        data, numbers = b"".join(self.frames), []
        while data:
            size = data[1]
            numbers.append(json.loads(data[2 : 2 + size])[4]["data"])
            data = data[2 + size :]
        return numbers


def changes(listeners: list[Listener], *numbers: int) -> list[Delivery]:
    """Changes for everybody."""
    recipients: list[Any] = [(listener.subscription, (1,)) for listener in listeners]
    return [Delivery(b"%d" % number, recipients) for number in numbers]


@pytest.mark.parametrize(("listeners", "count"), [(3_000, 1), (3_000, 7), (3, 7_000)])
async def test_one_turn_writes_to_so_many_at_most(server: Server, listeners: int, count: int) -> None:
    """However many changes and subscribers there are, the next turn is near; and all of it is written."""
    turns = Turns()
    crowd = [Listener(server, turns) for _ in range(listeners)]
    metrics = Metrics()
    await Dispatcher(0.0).deliver(changes(crowd, *range(count)), metrics)
    assert max(turns.writes) <= TURN // WRITE
    assert len(turns.writes) >= listeners * count // TURN
    assert sum(turns.writes) == listeners
    assert metrics.changes_sent == listeners * count
    assert all(listener.numbers == [*range(count)] for listener in crowd)


async def test_whoever_leaves_meanwhile_gets_nothing_more(server: Server) -> None:
    """The first to be written to ends the last."""
    crowd = [Listener(server) for _ in range(1_000)]
    crowd[0].on_write = crowd[-1].subscription.stop
    await Dispatcher(0.0).deliver(changes(crowd, 1), Metrics())
    assert [len(listener.frames) for listener in crowd] == [1] * 999 + [0]


@pytest.mark.parametrize("delay", [0.0, 1e-6])
async def test_what_comes_later_is_written_later(server: Server, delay: float) -> None:
    """Also when changes are held back."""
    crowd = [Listener(server) for _ in range(2_000)]
    dispatcher, metrics = Dispatcher(delay), Metrics()
    releasing = asyncio.create_task(dispatcher.release(metrics))
    for number in range(5):
        await dispatcher.deliver(changes(crowd, number), metrics)
    while metrics.changes_sent < 10_000:
        await asyncio.sleep(0)
    await dispatcher.written()
    releasing.cancel()
    assert all(listener.numbers == [0, 1, 2, 3, 4] for listener in crowd)


async def test_who_cannot_be_written_to_costs_nobody_else_theirs(server: Server) -> None:
    """It is counted and logged."""

    def fail() -> None:
        raise OSError

    crowd = [Listener(server) for _ in range(3)]
    crowd[1].on_write = fail
    metrics = Metrics()
    with structlog.testing.capture_logs() as logs:
        await Dispatcher(0.0).deliver(changes(crowd, 1), metrics)
    assert [len(listener.frames) for listener in crowd] == [1, 0, 1]
    assert metrics.handler_failures == 1
    assert logs[0]["event"] == "changes not delivered"


async def test_a_subscription_is_confirmed_after_what_was_read_with_the_claims_before(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new token takes effect in one step: no change that only the old one could see follows the answer."""
    feed = Feed(Settings(database_url="", jwt_secret=SECRET), Database("postgresql://127.0.0.1:1/none"))
    feed.streaming.set()
    feed._realtime = server.realtime

    async def at_once(*_: object) -> None:
        """The subscriptions are replaced."""

    monkeypatch.setattr(feed._changes, "subscribe", at_once)
    crowd = [Listener(server) for _ in range(2_000)]
    delivering = asyncio.create_task(feed._deliver(changes(crowd, 1)))
    await asyncio.sleep(0)
    last = crowd[-1]
    assert not last.frames
    await feed.subscribe(last.subscription, [], CLAIMS)
    assert last.numbers == [1]
    await delivering
