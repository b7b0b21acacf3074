"""The one replication stream of a server, kept alive for as long as the server runs.

It hands over batches of committed transactions in the order of their commits, and reads on only when the last
batch has been handled: a slow consumer slows Postgres down through TCP, and nothing piles up here. What
arrives meanwhile makes the next batch larger, within its bounds, so a consumer that pays per batch catches
up.

Nothing is lost silently. With a temporary slot, changes committed while the stream is lost are not delivered,
and `StreamState.gap_since` says so. With a durable slot everything is delivered, and by one program once:
after a restart of the program the last batches may come again.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from enum import Enum
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import msgspec

from backbeat.errors import Retry, StreamError
from backbeat.postgres.transactions import Handled, Receiver
from backbeat.postgres.walsender import Walsender

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from backbeat.postgres.slots import Position
    from backbeat.postgres.transactions import Transaction

__all__ = ["Consumer", "ReplicationStream", "StreamPhase", "StreamState"]

Consumer: TypeAlias = "Callable[[list[Transaction]], Awaitable[None]]"


class StreamPhase(Enum):
    """What a stream is doing."""

    CONNECTING = "connecting"
    """Reaching Postgres, or waiting for the slot, which is made when every write transaction open by then
    ended."""

    STREAMING = "streaming"
    """Every commit arrives."""

    LOST = "lost"
    """The last attempt failed; the next one follows."""


class StreamState(msgspec.Struct, frozen=True):
    """What a stream is doing, since when, and why."""

    phase: StreamPhase
    since: float
    """When streaming began, by the clock of Postgres; or when it ended, or was first attempted. Seconds since
    1970."""
    error: StreamError | None = None
    """Why the last attempt failed; None while streaming."""
    gap_since: float | None = None
    """While streaming: changes committed between this time and `since` are missing; None when none can be.
    Seconds since 1970, by the clock of Postgres."""


class ReplicationStream:
    """Streams what publications hold to a consumer through one slot, and reconnects for ever.

    Args:
        conninfo: where Postgres is and who logs in: a role with REPLICATION, and no pooler in between.
        publications: the names of the publications, at least one.
        consume: called with each batch, one at a time; when it returns, the batch counts as handled. What it
            raises ends `run`.
        on_state: called at each change of the state.
        slot: the name of the slot; a temporary one gets a random suffix.
        durable: whether the slot, and with it the WAL of everything not yet handled, outlives the connection.
        max_retained: how many bytes of WAL a durable slot may keep; with more it is made anew when the stream
            connects, and there is a gap.
        batch_events: how many events a batch holds. Decoding one takes some microseconds in which nothing
            else runs.
        batch_bytes: how many bytes of messages a batch holds; a larger row is a batch of its own.
        status_interval: after how long a silence to ask Postgres for a sign of life, in seconds.
        silence: after how long a silence the connection counts as lost, in seconds.
        backoff: the shortest and the longest pause before another attempt, in seconds.
        slow_retry: the pause when somebody has to change something first, in seconds.
    """

    def __init__(
        self,
        conninfo: str,
        publications: Sequence[str],
        consume: Consumer,
        *,
        on_state: Callable[[StreamState], None] = lambda _: None,
        slot: str = "backbeat",
        durable: bool = False,
        max_retained: int | None = None,
        batch_events: int = 500,
        batch_bytes: int = 1 << 20,
        status_interval: float = 1.0,
        silence: float = 15.0,
        backoff: tuple[float, float] = (0.2, 10.0),
        slow_retry: float = 5.0,
    ) -> None:
        self._conninfo = conninfo
        self._publications = publications
        self._consume = consume
        self._on_state = on_state
        self._slot = slot
        self._durable = durable
        self._max_retained = max_retained
        self._batch_events = batch_events
        self._batch_bytes = batch_bytes
        self._status_interval = status_interval
        self._silence = silence
        self._backoff = backoff
        self._slow_retry = slow_retry
        self._state = StreamState(StreamPhase.CONNECTING, time.time())
        self._walsender: Walsender | None = None
        self._mark: tuple[int, float] | None = None
        self._skew = 0.0
        """How many seconds our clock is ahead of that of Postgres."""
        self._certain_until: float | None = None
        """Up to when all commits were handled, however far behind Postgres was when it gave signs of life."""
        self._handled: Handled | None = None
        self._skipped_since: float | None = None
        """Up to when everything was handled, when a failure of the consumer cost what came next."""

    def __repr__(self) -> str:
        return f"<ReplicationStream {self._slot!r} {self._state.phase.value}>"

    @property
    def state(self) -> StreamState:
        """What the stream is doing."""
        return self._state

    @property
    def position(self) -> Position | None:
        """Up to where everything has been handled; None before the first connection."""
        return self._walsender.position if self._walsender else None

    @property
    def complete_until(self) -> float | None:
        """Up to when all commits were handled, in seconds since 1970; None before the first connection.

        By the clock of Postgres.
        """
        walsender = self._walsender
        if walsender is None:
            return None
        if self._mark is not None and walsender.position.lsn < self._mark[0]:
            return min(walsender.complete_until, self._mark[1])
        return walsender.complete_until

    @property
    def lag(self) -> float | None:
        """Seconds since everything had been handled; None before the first connection."""
        complete_until = self.complete_until
        return None if complete_until is None else max(0.0, time.time() - self._skew - complete_until)

    def mark(self, timeline: int, lsn: int, when: float) -> None:
        """Note where the WAL ended at some time: until it is handled up to there, no later time is complete.

        Without marks `complete_until` runs ahead of a walsender that is behind with reading WAL: it answers
        with the time of its answer.

        Args:
            timeline: the history of the WAL. After a promotion whoever looks may be there before the stream.
            lsn: the end of the WAL.
            when: seconds since 1970, by the clock of Postgres.
        """
        self._look_at_mark()
        position = self.position
        if self._mark is None and position is not None and position.timeline == timeline:
            self._mark = lsn, when

    def _look_at_mark(self) -> None:
        """Forget the mark when it was reached, and remember its time."""
        position = self.position
        if self._mark is not None and position is not None and position.lsn >= self._mark[0]:
            self._is_certain(self._mark[1])
            self._mark = None

    def _is_certain(self, until: float) -> None:
        self._certain_until = max(self._certain_until or until, until)

    @property
    def slot(self) -> str | None:
        """The name of the slot; None while a temporary one has not been made."""
        if self._durable:
            return self._slot
        return self._walsender.slot if self._walsender else None

    def end(self, error: StreamError) -> None:
        """End the connection, if there is one, and make another. The error becomes that of the state.

        Args:
            error: what was found out about the stream elsewhere.
        """
        if self._walsender is not None and self._state.phase is StreamPhase.STREAMING:
            self._walsender.end(error)

    async def run(self) -> NoReturn:
        """Stream until cancelled, whatever happens to Postgres.

        Raises:
            Exception: nothing but what `consume` or `on_state` raised.
        """
        shortest, longest = self._backoff
        pause = shortest
        while True:
            self._report(StreamPhase.CONNECTING, error=self._state.error)
            started = time.monotonic()
            error = await self._stream()
            self._report(StreamPhase.LOST, error=error)
            if time.monotonic() - started > longest:
                pause = shortest
            if error.retry is Retry.SLOW:
                await asyncio.sleep(self._slow_retry)
            else:
                # Jitter, so that servers which lost the same database do not return to it in step.
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
                pause = min(pause * 2, longest)

    async def _stream(self) -> StreamError:
        """Connect and stream until that fails; return why."""
        self._look_at_mark()
        complete_until, certain_until, before = self.complete_until, self._certain_until, self.position
        try:
            walsender = await Walsender.connect(
                self._conninfo,
                self._publications,
                slot=self._slot,
                durable=self._durable,
                max_retained=self._max_retained,
                resume=before,
                receiver=Receiver(
                    max_events=self._batch_events, max_bytes=self._batch_bytes, handled=self._handled
                ),
                status_interval=self._status_interval,
                silence=self._silence,
            )
        except StreamError as error:
            return error
        self._walsender = walsender
        self._skew = time.time() - walsender.since
        async with aclosing(walsender):
            gap_since, self._skipped_since = self._skipped_since, None
            if walsender.has_gap or (before is not None and before[:2] != walsender.position[:2]):
                # It was made in another history, where the WAL may never get that far.
                self._mark = None
            if walsender.has_gap:
                gap_since = certain_until if gap_since is None else gap_since
            elif complete_until is not None:
                walsender.complete_until = complete_until
            if walsender.has_gap or certain_until is None:
                self._certain_until = walsender.since
            self._report(StreamPhase.STREAMING, gap_since=gap_since)
            while True:
                try:
                    batch = await walsender.read()
                except StreamError as error:
                    return error
                # What fails counts, too: it would fail again.
                self._handled = Handled.after(batch[-1], self._handled)
                try:
                    await self._consume(batch)
                except Exception:
                    # What fails once fails again: a durable slot must not return it.
                    self._skipped_since = self._certain_until
                    walsender.acknowledge()
                    raise
                if batch[-1].end_lsn is not None:
                    self._is_certain(batch[-1].commit_time / 1_000_000)
                # A consumer that never waits must not keep everybody else from running.
                await asyncio.sleep(0)

    def _report(
        self, phase: StreamPhase, *, error: StreamError | None = None, gap_since: float | None = None
    ) -> None:
        """Change the state. Attempts that fail in a row share one `since`."""
        if phase is StreamPhase.STREAMING:
            assert self._walsender is not None
            since = self._walsender.since
        else:
            since = time.time() if self._state.phase is StreamPhase.STREAMING else self._state.since
        self._state = StreamState(phase, since, error, gap_since)
        self._on_state(self._state)
