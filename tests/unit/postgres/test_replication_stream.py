"""What a stream says about time, when a gap began and how far it is behind, over connections made up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from backbeat.errors import StreamError
from backbeat.postgres.slots import Position
from backbeat.postgres.stream import ReplicationStream, StreamPhase, StreamState

NOW = 1_800_000_000.0


class Connection:
    """A connection that gives signs of life, but never reads any WAL, until it is lost."""

    slot = "s"
    has_gap = True

    def __init__(self, since: float) -> None:
        self.since = since
        self.complete_until = since
        self.position = Position("cluster", 1, 100)
        self.lost = asyncio.Event()

    async def read(self) -> Any:
        await self.lost.wait()
        raise StreamError("Lost.")

    async def aclose(self) -> None:
        """Nothing is open."""


class Postgres:
    """Connections one after the other, and the stream over them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *connections: Connection) -> None:
        self._next = list(connections)
        self.states: asyncio.Queue[StreamState] = asyncio.Queue()
        monkeypatch.setattr("backbeat.postgres.stream.Walsender.connect", self._connect)
        self.stream = ReplicationStream(
            "", ["p"], self._consume, on_state=self.states.put_nowait, backoff=(0.0, 0.0)
        )
        self._running = asyncio.create_task(self.stream.run())

    async def _connect(self, *_: Any, **__: Any) -> Connection:
        return self._next.pop(0)

    async def _consume(self, _: Any) -> None:
        raise AssertionError("nothing arrives")

    async def streaming(self) -> StreamState:
        """Wait until it streams again."""
        while (state := await self.states.get()).phase is not StreamPhase.STREAMING:
            pass
        return state

    async def stop(self) -> None:
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running


@pytest.mark.parametrize(
    ("mark", "gap_since"),
    [
        pytest.param(None, NOW, id="nobody looked"),
        pytest.param((1, 90, NOW + 20), NOW + 20, id="read up to there"),
        pytest.param((1, 110, NOW + 20), NOW, id="not read up to there"),
        pytest.param((2, 90, NOW + 20), NOW, id="in another history"),
    ],
)
async def test_a_gap_begins_where_postgres_had_certainly_read_everything(
    monkeypatch: pytest.MonkeyPatch, mark: tuple[int, int, float] | None, gap_since: float
) -> None:
    """It answers while it is behind with reading: what it had not read yet is missing, too."""
    first, second = Connection(NOW), Connection(NOW + 60)
    postgres = Postgres(monkeypatch, first, second)
    await postgres.streaming()
    first.complete_until = NOW + 50
    if mark is not None:
        postgres.stream.mark(*mark)
    first.lost.set()
    assert (await postgres.streaming()).gap_since == gap_since
    await postgres.stop()


async def test_a_clock_that_differs_from_ours_is_no_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what passes since the connection was made counts."""
    monkeypatch.setattr("backbeat.postgres.stream.time.time", lambda: NOW)
    connection = Connection(NOW - 3600)
    postgres = Postgres(monkeypatch, connection)
    await postgres.streaming()
    connection.complete_until -= 2
    assert postgres.stream.lag == 2
    await postgres.stop()
