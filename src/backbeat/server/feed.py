"""From the replication stream to the sockets: stored messages, and row changes for those who may see them.

One stream carries both, in the order of their commits. A stored message needs no further question, so it
never waits for a policy; row changes keep their own order.

Whatever keeps changes from arriving is told to the channels that listen to them: a lost stream, with the gap
it left; a stream that falls behind; a table that leaves the publication. The stream itself tells the first.
For the others somebody looks at it from outside, every few seconds.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec
import psycopg
import structlog

from backbeat.errors import BackbeatError, ProtocolError, Refusal, Retry, StreamError, Unavailable
from backbeat.postgres.changes import Changes
from backbeat.postgres.messages import MESSAGES_PUBLICATION, maintain, message_of, replay
from backbeat.postgres.pgoutput import Insert
from backbeat.postgres.stream import ReplicationStream, StreamPhase, StreamState
from backbeat.postgres.watch import Watch
from backbeat.protocol import reasons
from backbeat.protocol.messages import TOPIC_PREFIX
from backbeat.server.delivery import UserBroadcast
from backbeat.server.dispatcher import Dispatcher
from backbeat.server.subscription import ChangeSubscription, Gap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence

    from backbeat.postgres.changes import Delivery
    from backbeat.postgres.database import Database
    from backbeat.postgres.messages import StoredMessage
    from backbeat.postgres.transactions import Transaction
    from backbeat.postgres.watch import Published, Slot, TableName
    from backbeat.protocol.bindings import Binding
    from backbeat.server.metrics import Metrics
    from backbeat.server.realtime import Realtime
    from backbeat.server.settings import Settings
    from backbeat.tokens.claims import Claims

__all__ = ["Feed"]

log = structlog.get_logger("backbeat.feed")

MESSAGES: Final = ("realtime", "messages")
"""Schema and table of the stored messages."""

RESTART_PAUSE: Final = 1.0
"""Seconds until the feed starts again after a failure of ours."""

MAINTENANCE_INTERVAL: Final = 3600.0
"""Seconds between looks at the partitions of realtime.messages, which are made days ahead."""

MAINTENANCE_RETRY: Final = 10.0
"""Seconds until the next try when the database was away."""


WATCH_INTERVAL: Final = 2.0
"""Seconds between looks at the slot and the publication."""

LATE: Final = 10.0
"""Seconds of lag with which a stream counts as fallen behind."""

IN_TIME: Final = 5.0
"""Seconds of lag with which it has caught up again. Less than `LATE`, so that it does not flutter."""


class Feed:
    """Carries what happens in the database to the channels it is for.

    Args:
        settings: what the server was told.
        database: for keeping and reading realtime.messages.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self.database = database
        publications = [settings.publication, MESSAGES_PUBLICATION]
        self._changes = Changes(
            settings.database_url,
            deliver=self._deliver,
            publication=settings.publication,
            withhold_deletes=settings.withhold_deletes,
            on_refused=self._refuse,
            on_withheld=self._withhold,
            on_restored=self._restore,
        )
        self._stream = ReplicationStream(
            settings.database_url,
            publications,
            self._consume,
            on_state=self._stream_changed,
            slot=settings.durable_slot or "backbeat",
            durable=bool(settings.durable_slot),
            max_retained=settings.max_retained_wal_bytes,
        )
        self._watch = Watch(settings.database_url, publications, settings.publication)
        self._slot: Slot | None = None
        self._published: Mapping[TableName, Published] | None = None
        """The tables of the publication; another object when they changed, None before the first look."""
        self._looked_at: float | None = None
        self.streaming = asyncio.Event()
        """Set while every commit arrives."""
        self._late = False
        self._interruption: Refusal | None = None
        """What the channels have been told; None while every change arrives, and before the first one can."""
        self._refused: set[ChangeSubscription] = set()
        """Those whose subscription may succeed when the tables change."""
        self._refused_since_the_look: set[ChangeSubscription] = set()
        """Those of them who were refused since the last look: tables may have changed there and back."""
        self._realtime: Realtime | None = None
        self._dispatcher = Dispatcher(settings.change_delay)

    @property
    def state(self) -> StreamState:
        """What the replication stream is doing."""
        return self._stream.state

    @property
    def late(self) -> bool:
        """Whether the stream has fallen behind."""
        return self._late

    @property
    def lag(self) -> float | None:
        """Seconds since everything had been handled; None before the first connection."""
        return self._stream.lag

    async def run(self, realtime: Realtime) -> None:
        """Feed the channels of a server until cancelled, whatever happens to the database.

        Args:
            realtime: whose rooms and channels to deliver to.
        """
        self._realtime = realtime
        self._count_for(realtime.metrics)
        try:
            async with asyncio.TaskGroup() as tasks:
                for part in (self._maintain, self._keep_streaming, self._release, self._keep_watch):
                    tasks.create_task(self._keep(part, realtime.metrics), name=part.__name__)
        finally:
            await self._changes.aclose()
            await self._watch.aclose()

    async def _keep(self, part: Callable[[], Awaitable[None]], metrics: Metrics) -> None:
        """Run a part for ever. A failure of ours costs what it was doing, is reported, and ends nothing."""
        while True:
            try:
                await part()
            except Exception:
                metrics.handler_failures += 1
                log.exception("feed failed", part=part.__name__)
                await asyncio.sleep(RESTART_PAUSE)

    async def _keep_streaming(self) -> None:
        try:
            await self._stream.run()
        except Exception:
            self._say_interrupted("the server failed to handle a change")
            raise

    def _count_for(self, metrics: Metrics) -> None:
        """Let the metrics of a server show what happens here."""
        changes = self._changes
        metrics.watch("realtime_subscriptions_manager_subscribers", lambda: len(changes.subscribers()))
        metrics.watch("backbeat_changes_checked_total", lambda: changes.checked)
        metrics.watch("backbeat_changes_dropped_stale_total", lambda: changes.dropped_stale)
        metrics.watch("backbeat_changes_overtaken_total", lambda: changes.overtaken)
        metrics.watch("backbeat_changes_denied_by_error_total", lambda: changes.denied_by_error)
        metrics.watch("backbeat_stream_up", self.streaming.is_set)
        metrics.watch("backbeat_stream_since_seconds", lambda: self.state.since)
        metrics.watch("backbeat_replication_lag_seconds", lambda: self.lag)
        metrics.watch("backbeat_replication_lag_bytes", lambda: self._slot.behind if self._slot else None)
        metrics.watch("backbeat_retained_wal_bytes", lambda: self._slot.retained if self._slot else None)

    # Subscriptions ------------------------------------------------------------------------------------------

    async def subscribe(self, subscriber: Hashable, bindings: Sequence[Binding], claims: Claims) -> None:
        """Subscribe to row changes; on return, every commit from now on is delivered.

        Raises:
            Refusal: a table, column or filter is not to be had, or the database is away.
        """
        assert isinstance(subscriber, ChangeSubscription)
        tried_again = subscriber in self._refused
        self._forget_refusal(subscriber)
        while True:
            published = self._published
            try:
                await self._subscribe(subscriber, bindings, claims)
            except Unavailable:
                raise
            except Refusal:
                if self._published is published:
                    self._refused.add(subscriber)
                    if not tried_again:
                        self._refused_since_the_look.add(subscriber)
                    raise
                # The tables changed between the look at them and its result: the next change may be far off.
                continue
            await self._until_streaming(subscriber)
            if self._published is published:
                return

    async def _subscribe(self, subscriber: Hashable, bindings: Sequence[Binding], claims: Claims) -> None:
        try:
            await self._changes.subscribe(subscriber, bindings, claims)
        finally:
            # What is being written was read with its claims of before: none of it may follow the answer.
            await self._dispatcher.written()

    def _refuse(self, subscriber: Hashable, refusal: Refusal, since: float) -> None:
        """Tell a channel that its filter no longer suits its column; a change of the table may help."""
        assert isinstance(subscriber, ChangeSubscription)
        self._refused.add(subscriber)
        subscriber.refuse(refusal, since=since)

    def _withhold(self, subscriber: Hashable, refusal: Refusal) -> None:
        """Tell a channel that it misses changes, because something that decides about them fails."""
        assert isinstance(subscriber, ChangeSubscription)
        subscriber.withheld(refusal)

    def _restore(self, subscriber: Hashable, since: float) -> None:
        """Tell a channel that it gets all changes again, and what is missing."""
        assert isinstance(subscriber, ChangeSubscription)
        assert self._realtime is not None
        subscriber.restored(Gap(since, self._realtime.now()))

    async def _until_streaming(self, subscriber: ChangeSubscription) -> None:
        """Wait until every commit arrives: before that, a change would be lost after we confirmed."""
        if not self.streaming.is_set():
            log.info("subscription waits for the stream", phase=self.state.phase.value)
            if self._interruption is not None:
                subscriber.interrupted(self._interruption)
        while not self.streaming.is_set():
            await self.streaming.wait()

    def unsubscribe(self, subscriber: Hashable) -> None:
        """Stop delivering row changes to a subscriber."""
        assert isinstance(subscriber, ChangeSubscription)
        self._forget_refusal(subscriber)
        self._changes.unsubscribe(subscriber)

    def _forget_refusal(self, subscriber: ChangeSubscription) -> None:
        self._refused.discard(subscriber)
        self._refused_since_the_look.discard(subscriber)

    def hand_over(self, subscriber: Hashable, successor: Hashable, claims: Claims) -> None:
        """Give what somebody is subscribed to to a successor with other claims, without a gap."""
        self._changes.hand_over(subscriber, successor, claims)

    async def replay(self, topic: str, *, since_ms: int, limit: int) -> list[StoredMessage]:
        """Read the newest stored messages of a private channel, oldest first.

        Raises:
            Unavailable: the database is away, or took too long.
        """
        assert self._realtime is not None
        started = time.perf_counter()
        try:
            return await replay(self.database, topic, since_ms=since_ms, limit=limit)
        finally:
            self._realtime.metrics.replays.observe(time.perf_counter() - started)

    # What the stream says -----------------------------------------------------------------------------------

    async def _consume(self, batch: list[Transaction]) -> None:
        for transaction in batch:
            for event in transaction.events:
                if isinstance(event, Insert) and (event.relation.schema, event.relation.table) == MESSAGES:
                    self._broadcast_stored(event, transaction.commit_time / 1_000_000)
        await self._changes.handle(batch)

    def _broadcast_stored(self, event: Insert, committed: float) -> None:
        """Deliver a row of realtime.messages to the room it names; a bad one costs only itself.

        Args:
            event: the row.
            committed: when, in seconds since 1970 by the clock of Postgres.
        """
        assert self._realtime is not None
        try:
            stored = message_of(event)
            room = self._realtime.hub.find(TOPIC_PREFIX + stored.topic, private=stored.private)
            if room is None:
                return
            is_json = stored.payload is not None
            payload = stored.payload if stored.payload is not None else stored.binary or b""
            metadata = msgspec.json.encode({"id": stored.id})
            delivery = UserBroadcast(
                stored.event, payload, is_json=is_json, metadata=metadata, stored_as=stored.id
            )
        except ProtocolError as error:
            log.warning("stored message dropped", code="UnableToBroadcastChanges", reason=error.message)
            return
        if len(payload) > self._settings.max_payload_bytes:
            log.warning("stored message dropped", code="UnableToBroadcastChanges", bytes=len(payload))
            return
        if reason := self._realtime.limits.database(1, self._realtime.loop.time()):
            log.warning("stored message dropped", code=reason.code, reason=reason.text)
            return
        metrics = self._realtime.metrics
        metrics.messages_from_database += 1
        metrics.commit_latency.observe(max(0.0, time.time() - committed))
        room.publish(delivery, len(payload))

    def _stream_changed(self, state: StreamState) -> None:
        """Tell the channels that listen to changes when they stop arriving, and when they arrive again."""
        if state.phase is StreamPhase.STREAMING:
            self.streaming.set()
            gap = None if state.gap_since is None else Gap(state.gap_since, state.since)
            if self._interruption is not None:
                log.warning("stream restored", gap=gap and gap.explanation)
            self._say_restored(gap)
        elif state.phase is StreamPhase.LOST and state.error is not None:
            log.warning(
                "stream lost", code=state.error.code, reason=state.error.message, hint=state.error.hint
            )
            self._say_interrupted("the replication stream was lost")

    def _say_interrupted(self, why: str) -> None:
        self.streaming.clear()
        self._late = False
        if self._interruption is None:
            self._tell(why)

    def _tell(self, why: str) -> None:
        refusal = self._interruption = reasons.CHANGES_UNAVAILABLE.refusal(detail=why)
        for subscription in self._listening():
            subscription.interrupted(refusal)

    def _say_restored(self, gap: Gap | None) -> None:
        if self._interruption is not None or gap is not None:
            self._interruption = None
            for subscription in self._listening():
                subscription.restored(gap)

    def _listening(self) -> list[ChangeSubscription]:
        return [each for each in self._changes.subscribers() if isinstance(each, ChangeSubscription)]

    # What the stream does not say ---------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        """Look at the stream from outside for ever."""
        sees = True
        while True:
            self._mind_lag()
            try:
                await self._mind_slot()
                await self._mind_tables()
            except psycopg.Error as error:
                if sees:
                    log.warning("watch failed", reason=error.diag.message_primary or str(error))
                sees, self._slot = False, None
            else:
                sees = True
            await asyncio.sleep(WATCH_INTERVAL)

    def _mind_lag(self) -> None:
        """Tell the channels when changes arrive late, and when they arrive in time again."""
        lag = self.lag
        if lag is None or not self.streaming.is_set():
            return
        if lag > LATE and not self._late:
            self._late = True
            log.warning("stream late", lag_seconds=round(lag, 1))
            self._tell("changes arrive late")
        elif lag < IN_TIME and self._late:
            self._late = False
            log.warning("stream in time")
            self._say_restored(None)

    async def _mind_slot(self) -> None:
        """End a stream that has lost its publication, and take its slot from one that keeps too much WAL."""
        name = self._stream.slot
        slot = self._slot = await self._watch.slot(name)
        self._stream.mark(slot.timeline, slot.lsn, slot.when)
        if slot.missing:
            self._stream.end(
                StreamError(
                    f"The database has no publication {', '.join(slot.missing)}.",
                    hint=f'Run: create publication "{slot.missing[0]}";',
                    code="StartReplicationFailed",
                    retry=Retry.SLOW,
                )
            )
        bound = self._settings.max_retained_wal_bytes
        if name is not None and slot.retained is not None and slot.retained > bound:
            log.warning("slot dropped", slot=name, retained_bytes=slot.retained, bound_bytes=bound)
            self._stream.end(
                StreamError(
                    f"Postgres kept {slot.retained} bytes of WAL for the replication slot.",
                    hint="Changes come faster than policies answer, or a transaction stays open for long."
                    " Mend that, or raise max_retained_wal_bytes.",
                    code="WalRetainedTooLarge",
                )
            )
            await self._watch.drop(name)

    async def _mind_tables(self) -> None:
        """Subscribe those anew whose tables came, left or changed.

        Whoever was refused may be lucky now. Who is subscribed to a table that left is told so; so is who
        gets it back.
        """
        looked_at, before = self._looked_at, self._published or {}
        started = time.time()
        now = await self._watch.tables()
        self._looked_at = started
        changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
        if self._published is None or changed:
            self._published = now
        again, self._refused_since_the_look = self._refused_since_the_look, set()
        for subscription in again:
            subscription.renew(tell=False, since=looked_at)
        if not changed:
            return
        moved = changed - (before.keys() & now.keys())
        if looked_at is not None:
            log.info("published tables changed", tables=sorted(".".join(name) for name in changed))
        concerned = [*(self._refused - again), *(self._listening() if looked_at is not None else ())]
        for subscription in concerned:
            if subscription.concerns(changed):
                subscription.renew(tell=subscription.concerns(moved), since=looked_at)

    async def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        assert self._realtime is not None
        await self._dispatcher.deliver(deliveries, self._realtime.metrics)

    async def _release(self) -> None:
        assert self._realtime is not None
        await self._dispatcher.release(self._realtime.metrics)

    # Upkeep -------------------------------------------------------------------------------------------------

    async def _maintain(self) -> None:
        """Keep a partition of realtime.messages for every day, however long the server runs."""
        while True:
            try:
                await maintain(self.database)
            except BackbeatError as error:
                log.warning("maintenance postponed", code=error.code, reason=error.message)
                await asyncio.sleep(MAINTENANCE_RETRY)
            else:
                await asyncio.sleep(MAINTENANCE_INTERVAL)
