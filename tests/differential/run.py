"""Plays a script through the real path, and compares what was sent with what could be seen."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self, TypeAlias

import psycopg
from tests.differential.oracle import (
    Event,
    Frame,
    Oracle,
    State,
    by_key,
    expected,
    key_of,
    lives,
    may_show,
    read,
)
from tests.differential.script import (
    CREW,
    WRITERS,
    Define,
    End,
    Gate,
    Script,
    Settle,
    Subscribe,
    Unsubscribe,
    Write,
)

from backbeat.errors import BadRequest
from backbeat.postgres.changes import Changes, Delivery
from backbeat.postgres.pgoutput import LogicalMessage
from backbeat.postgres.stream import ReplicationStream, StreamPhase, StreamState
from backbeat.postgres.transactions import Transaction
from backbeat.protocol.bindings import parse_binding

__all__ = ["Difference", "Report", "play", "remove_roles"]

PATIENCE = 30.0
"""Seconds after which what should have been handled is a failure."""


class Difference(AssertionError):
    """Somebody was sent what they could not have seen, or not sent what they saw."""


@dataclass
class Report:
    """What came of a script.

    Attributes:
        cases: pairs of change and subscriber that were decided.
        sent: how many of them were sent.
        late: how many could be seen after the commit and were not sent, as the row or its policies changed
            before it was asked about.
        dropped_stale: what the metric of that name says.
        frames: everything, by subscriber.
    """

    cases: int = 0
    sent: int = 0
    late: int = 0
    dropped_stale: int = 0
    frames: dict[str, list[Frame]] = field(default_factory=dict)

    def __iadd__(self, other: Report) -> Self:
        self.cases += other.cases
        self.sent += other.sent
        self.late += other.late
        self.dropped_stale += other.dropped_stale
        return self

    def __str__(self) -> str:
        return (
            f"{self.cases} cases: {self.sent} sent, {self.late} too late,"
            f" {self.dropped_stale} dropped as stale"
        )


async def _prepare_roles(admin: psycopg.AsyncConnection[Any]) -> None:
    """Make the role that policies name; scripts change who is a member of it."""
    await admin.execute(
        f"do $$ begin create role {CREW} nologin; exception when duplicate_object then null; end $$;"
        f"revoke {CREW} from authenticated".encode()
    )


async def remove_roles(admin: psycopg.AsyncConnection[Any]) -> None:
    """Remove what `play` made, when no database needs it any more."""
    await admin.execute(f"drop role if exists {CREW}".encode())


@dataclass(slots=True)
class _Received:
    frame: Frame
    begun: int
    """How many commits had begun by then."""


_Standing: TypeAlias = "tuple[int, Subscribe | None]"
"""A subscription, with the state in which it began."""


class _Play:
    """One script, on a fresh database.

    Every commit is followed by a look at everything each subscriber sees, before the next one begins: no
    state in between is missed. Only the server goes on meanwhile.
    """

    def __init__(self, script: Script, admin: psycopg.AsyncConnection[Any], url: str, login: str) -> None:
        self.script = script
        self.admin = admin
        self.url = url
        self.login = login
        self.report = Report()
        self.changes = Changes(login, deliver=self._deliver)
        self.gate = asyncio.Event()
        self.gate.set()
        self.stream = ReplicationStream(login, ["supabase_realtime"], self._consume, on_state=self._on_state)
        self.streaming = asyncio.Event()
        self.markers: dict[bytes, asyncio.Event] = {}
        self.writers: list[psycopg.AsyncConnection[Any]] = []
        self.begun = 0
        self.states: dict[int, State] = {}
        self.events: list[Event] = []
        self.received: dict[str, list[_Received]] = {}
        self.standing: dict[str, list[_Standing]] = {}
        self.defined = 0
        """The last commit that changed definitions."""
        self.known: dict[tuple[str, str], int] = {}
        """By table and role, how many commits had begun when something was last sent."""
        self.oracle: Oracle

    # The server's side --------------------------------------------------------------------------------------

    def _on_state(self, state: StreamState) -> None:
        if state.phase is StreamPhase.STREAMING:
            self.streaming.set()

    async def _consume(self, batch: Sequence[Transaction]) -> None:
        await self.gate.wait()
        await self.changes.handle(batch)
        for transaction in batch:
            for event in transaction.events:
                if isinstance(event, LogicalMessage):
                    self.markers[event.content].set()

    async def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            data = read(delivery.data.decode())
            del data["commit_timestamp"]
            for who, ids in delivery.recipients:
                self.received.setdefault(str(who), []).append(_Received((ids, data), self.begun))

    # Playing ------------------------------------------------------------------------------------------------

    async def play(self, *, calm: bool) -> Report:
        await self.admin.execute(self.script.setup.encode())
        feed = asyncio.create_task(self.stream.run())
        connections = [self.url] * WRITERS + [self.login]
        opened = [await psycopg.AsyncConnection.connect(url, autocommit=True) for url in connections]
        self.writers = opened[:WRITERS]
        for connection in (self.admin, *opened):
            await connection.execute("set timezone = 'UTC'; set lock_timeout = '300ms'")
        for writer in self.writers:
            await writer.execute("set lock_timeout = '20ms'")
        steps = self.script.steps
        filters = [w.filter for s in steps if isinstance(s, Subscribe) for w in s.wants if w.filter]
        self.oracle = Oracle(self.admin, opened[-1], self.script.tables, filters)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.streaming.wait()
            self.states[0] = await self.oracle.state((), (), defined=True)
            for step in steps:
                await self._step(step, calm=calm)
        finally:
            feed.cancel()
            with suppress(asyncio.CancelledError):
                await feed
            await self.changes.aclose()
            for connection in opened:
                await connection.close()
            await self._until_the_slot_is_gone()
        self.report.dropped_stale = self.changes.dropped_stale
        return self.report

    async def _until_the_slot_is_gone(self) -> None:
        slots = "select from pg_replication_slots where database = current_database()"
        async with asyncio.timeout(PATIENCE):
            while await (await self.admin.execute(slots)).fetchone() is not None:
                await self.admin.execute("select pg_sleep(0.002)")

    async def _step(self, step: object, *, calm: bool) -> None:
        match step:
            case Write(number, sql):
                writer = self.writers[number]
                with suppress(psycopg.Error):
                    if writer.info.transaction_status.name == "IDLE":
                        await writer.execute("begin")
                    if writer.info.transaction_status.name == "INTRANS":
                        await writer.execute(sql.encode())
            case End(number, how):
                await self._end(self.writers[number], how, defined=False, calm=calm)
            case Define(sql):
                await self.admin.execute("begin")
                with suppress(psycopg.Error):
                    await self.admin.execute(sql.encode())
                await self._end(self.admin, "commit", defined=True, calm=calm)
            case Subscribe():
                await self._subscribe(step)
            case Unsubscribe(who):
                self.changes.unsubscribe(who)
                self.standing.setdefault(who, []).append((self.begun, None))
            case Gate(is_open):
                (self.gate.set if is_open else self.gate.clear)()
            case Settle():
                await self._settle()

    async def _end(
        self, connection: psycopg.AsyncConnection[Any], how: str, *, defined: bool, calm: bool
    ) -> None:
        status = connection.info.transaction_status.name
        if status == "IDLE":
            return
        if how != "commit" or status != "INTRANS":
            await connection.execute("rollback")
            return
        cursor = await connection.execute("select pg_current_xact_id()::text")
        row = await cursor.fetchone()
        assert row is not None
        self.begun += 1
        self.defined = self.begun if defined else self.defined
        await connection.execute("commit")
        events = await self.oracle.events(row[0], self.begun)
        self.events += events
        viewers = [sub.claims for those in self.standing.values() for _, sub in those if sub is not None]
        self.states[self.begun] = await self.oracle.state(viewers, self.events, defined=defined)
        if calm:
            await self._settle()

    async def _subscribe(self, step: Subscribe) -> None:
        bindings = [parse_binding(want.entry, number) for number, want in enumerate(step.wants, 1)]
        standing: Subscribe | None = step
        # Known before it is there: what it is sent from now on is looked at as its own.
        state = self.states[self.begun]
        await self.oracle.look(state, [step.claims], self.events)
        self.standing.setdefault(step.who, []).append((self.begun, step))
        try:
            await self.changes.subscribe(step.who, bindings, step.claims)
        except BadRequest:
            standing = None
        if standing is None:
            self.standing[step.who].append((self.begun, None))

    async def _settle(self) -> None:
        """Wait until everything committed so far has been handled, and compare."""
        self.gate.set()
        name = str(len(self.markers))
        event = self.markers[name.encode()] = asyncio.Event()
        await self.admin.execute("select pg_logical_emit_message(true, 'marker', %s::text)", (name,))
        try:
            async with asyncio.timeout(PATIENCE):
                await event.wait()
        except TimeoutError:
            raise Difference("changes were not handled") from None
        for who, standing in self.standing.items():
            received = self.received.get(who, [])
            self._compare(who, standing, received)
            self.report.frames.setdefault(who, []).extend(each.frame for each in received)
            self.report.sent += len(received)
        for who, standing in self.standing.items():
            for each, (_, sub) in itertools.product(self.received.get(who, ()), standing):
                if sub is not None:
                    pair = each.frame[1]["table"], sub.claims.role
                    self.known[pair] = max(each.begun, self.known.get(pair, 0))
        self.received.clear()
        self.events.clear()
        self.states = {self.begun: self.states[self.begun]}
        self.standing = {who: [(self.begun, those[-1][1])] for who, those in self.standing.items()}

    # Comparing ----------------------------------------------------------------------------------------------

    def _compare(self, who: str, standing: list[_Standing], received: list[_Received]) -> None:
        """Find for each frame the change it tells of, in order, with no change left out that is owed."""
        events = self.events
        owed = [self._owed(event, standing) for event in events]
        self.report.cases += sum(
            any(
                sub is not None and any(w.table in (None, e.table.name) for w in sub.wants)
                for _, sub in standing
            )
            for e in events
        )

        @cache
        def tells(number: int, place: int) -> bool:
            return self._tells(events[number], standing, received[place])

        # `ways[n]` holds how many frames the first n events may have been told by.
        ways: list[set[int]] = [{0}]
        for number in range(len(events)):
            next_: set[int] = set()
            for told in ways[-1]:
                if not owed[number]:
                    next_.add(told)
                if told < len(received) and tells(number, told):
                    next_.add(told + 1)
            ways.append(next_)
            if not next_:
                break
        if len(received) not in ways[-1]:
            for place, each in enumerate(received):
                if not any(tells(number, place) for number in range(len(events))):
                    what = f"{who} was sent what was not theirs to see: {json.dumps(each.frame)}"
                    self._fail(f"{what} (by commit {each.begun})", None, standing, received)
            if not ways[-1]:
                missing = events[len(ways) - 2]
                self._fail(f"{who} was not sent what was theirs to see", missing, standing, received)
            self._fail(f"{who} was sent changes in a wrong order", None, standing, received)
        seen = sum(self._seen_at_once(event, standing) for event in events)
        self.report.late += max(0, seen - len(received))

    def _seen_at_once(self, event: Event, standing: list[_Standing]) -> bool:
        """Tell whether a change could be seen right after its commit."""
        sub, state = standing[0][1], self.states[event.commit]
        frame = None if sub is None else expected(event, sub, state)
        return (
            sub is not None
            and frame is not None
            and may_show(event, sub, frame, self.states, range(event.commit, event.commit + 1))
        )

    def _tells(self, event: Event, standing: list[_Standing], received: _Received) -> bool:
        """Tell whether a frame is about a change, and shows nothing that could not be seen."""
        for began, sub in standing:
            if sub is None:
                continue
            window = range(max(event.commit, began), received.begun + 1)
            shapes = [expected(event, sub, self.states[n]) for n in window]
            if self._news(event, sub):
                shapes += [by_key(event, shape) for shape in shapes if shape is not None]
            if any(shape == received.frame for shape in shapes) and may_show(
                event, sub, received.frame, self.states, window
            ):
                return True
        return False

    def _owed(self, event: Event, standing: list[_Standing]) -> bool:
        """Tell whether a change has to be sent: whenever it was asked about, it was theirs to see."""
        began, sub = standing[0]
        if len(standing) > 1 or sub is None:
            return False
        if began >= event.commit or any(self._touches_again(event, other) for other in self.events):
            return False
        window = range(event.commit, self.begun + 1)
        frame = expected(event, sub, self.states[event.commit])
        if frame is None or any(expected(event, sub, self.states[n]) != frame for n in window):
            return False
        if event.new is None or frame[1]["errors"] is not None:
            return True
        if any((sub.claims, event.table.name) in self.states[n].broken for n in window):
            return False
        pair = event.table.name, sub.claims.role
        readable = self.states[event.commit].reach[pair].readable
        if all(lives(event, sub.claims, self.states[n], readable) for n in window):
            return True
        return not self._news(event, sub) and self.states[event.commit].reach[pair].open

    def _news(self, event: Event, sub: Subscribe) -> bool:
        """Tell whether definitions have changed since somebody like this was last sent a change.

        Until it has read them the server cannot know under which ones a row was written: it may then treat a
        table that is everybody's as one that is not.
        """
        return self.defined >= self.known.get((event.table.name, sub.claims.role), 0)

    def _touches_again(self, event: Event, other: Event) -> bool:
        """Tell whether a later transaction did something to the same row, or the same one left it different.

        The last matters where somebody may not read the column that makes the difference.
        """
        if event.new is None or other.commit < event.commit or other.table is not event.table:
            return False
        if other.commit == event.commit and (
            self.events.index(other) <= self.events.index(event) or other.new == event.new
        ):
            return False
        rows = [row for row in (other.old, other.new) if row is not None]
        return any(key_of(other.table, row) == key_of(event.table, event.new) for row in rows)

    def _fail(
        self, what: str, event: Event | None, standing: list[_Standing], received: list[_Received]
    ) -> None:
        lines = [f"{what} (seed {self.script.seed}, commit {self.begun})"]
        if event is not None:
            lines.append(f"  {event.kind} of {event.table.name} in commit {event.commit}")
        lines += [f"  change {e.commit}: {e.kind} {e.table.name} {e.old} -> {e.new}" for e in self.events]
        for began, sub in standing:
            wants = None if sub is None else [want.entry for want in sub.wants]
            lines.append(f"  since {began}: {None if sub is None else sub.claims.json} {wants}")
        lines += [f"  received: {json.dumps(each.frame)}" for each in received]
        for number, state in self.states.items():
            for _, sub in standing:
                if sub is not None:
                    for table in self.script.tables:
                        rows = state.visible.get((sub.claims, table))
                        reach = state.reach[table, sub.claims.role]
                        lines.append(
                            f"  state {number}: {table} row_security={reach.row_security} open={reach.open}"
                            f" hidden={sorted({*self.script.tables[table].columns} - reach.readable)} {rows}"
                        )
        raise Difference("\n".join(lines))


async def play(script: Script, admin_url: str, login_url: str, *, calm: bool) -> Report:
    """Play a script on a fresh, migrated database.

    Args:
        script: what happens.
        admin_url: the database, as a superuser.
        login_url: the same, as the server logs in.
        calm: whether each transaction is handled before the next one begins: then nothing may be missing.

    Raises:
        Difference: somebody was sent a row too many or too few, or something else went wrong on the way.
    """
    async with await psycopg.AsyncConnection.connect(admin_url, autocommit=True) as admin:
        await _prepare_roles(admin)
        return await _Play(script, admin, admin_url, login_url).play(calm=calm)
