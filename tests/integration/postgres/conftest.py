"""What the tests of Postgres share: both event loops, and a band whose changes are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, LiteralString
from uuid import UUID

import msgspec
import psycopg
import pytest
import uvloop
from tests.clusters import FLAVOURS

from backbeat.errors import BadRequest
from backbeat.postgres.changes import Changes, Delivery
from backbeat.postgres.pgoutput import LogicalMessage
from backbeat.postgres.stream import ReplicationStream, StreamPhase, StreamState
from backbeat.postgres.transactions import Transaction
from backbeat.protocol.bindings import parse_binding
from backbeat.tokens.claims import Claims


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests of the stream, which speaks to Postgres below the query level, on both event loops."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name == "test_stream.py":
        factories["uvloop"] = uvloop.new_event_loop
    return factories


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have what decides who sees what do so on every Postgres there is."""
    if metafunc.module.__name__.rpartition(".")[2] in ON_ALL and "postgres" in metafunc.fixturenames:
        metafunc.parametrize("postgres", FLAVOURS, indirect=True, scope="session")


ON_ALL = {"test_visibility", "test_changes"}

ANNA, BEN = UUID(int=0xA), UUID(int=0xB)


def claims(user: UUID | None, role: str = "authenticated") -> Claims:
    return Claims.of({"role": role, "exp": 2**31, **({"sub": str(user)} if user else {})})


class Band:
    """A database with songs, a stream of its changes, and what each subscriber was sent."""

    def __init__(self, admin: psycopg.AsyncConnection[Any], login_url: str) -> None:
        self.admin = admin
        self.changes = Changes(login_url, deliver=self._deliver)
        self.deliveries: list[Delivery] = []
        self.open = asyncio.Event()
        """Cleared, it holds back what the stream tells."""
        self.open.set()
        self.stream = ReplicationStream(
            login_url, ["supabase_realtime"], self._consume, on_state=self._on_state
        )
        self.streaming = asyncio.Event()
        self._markers: dict[bytes, asyncio.Event] = {}

    def _on_state(self, state: StreamState) -> None:
        if state.phase is StreamPhase.STREAMING:
            self.streaming.set()

    async def _consume(self, batch: Sequence[Transaction]) -> None:
        await self.open.wait()
        await self.changes.handle(batch)
        for transaction in batch:
            for event in transaction.events:
                if isinstance(event, LogicalMessage):
                    self._markers[event.content].set()

    async def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        self.deliveries += deliveries

    async def until_the_slot_is_gone(self) -> None:
        """Wait for Postgres to notice that the stream has left: until then the database cannot be dropped."""
        slots = "select from pg_replication_slots where database = current_database()"
        async with asyncio.timeout(10):
            while await (await self.admin.execute(slots)).fetchone() is not None:
                await self.admin.execute("select pg_sleep(0.005)")

    async def run(self, *statements: LiteralString) -> None:
        """Run statements as the superuser, in one transaction."""
        async with self.admin.transaction():
            for statement in statements:
                await self.admin.execute(statement)

    async def settle(self) -> None:
        """Wait until everything committed so far has been handled."""
        name = str(len(self._markers)).encode()
        event = self._markers[name] = asyncio.Event()
        await self.admin.execute("select pg_logical_emit_message(true, 'marker', %s::text)", (name.decode(),))
        await event.wait()

    async def subscribe(self, who: str, as_: Claims, *entries: dict[str, Any]) -> None:
        """Subscribe to entries, numbered from 1; to all changes of songs without any."""
        bindings = [parse_binding(entry, n) for n, entry in enumerate(entries or [{"table": "songs"}], 1)]
        await self.changes.subscribe(who, bindings, as_)

    async def received(self, who: str) -> list[tuple[tuple[int, ...], dict[str, Any]]]:
        """What somebody was sent, when everything is settled: ids and data."""
        await self.settle()
        return [
            (ids, msgspec.json.decode(delivery.data))
            for delivery in self.deliveries
            for name, ids in delivery.recipients
            if name == who
        ]

    async def data(self, who: str) -> list[dict[str, Any]]:
        return [data for _, data in await self.received(who)]

    async def records(self, who: str, column: str = "id") -> list[Any]:
        """One column of the new rows somebody was sent."""
        return [data["record"].get(column) for data in await self.data(who)]

    async def refusal(self, as_: Claims, *entries: dict[str, Any]) -> str:
        with pytest.raises(BadRequest) as refused:
            await self.subscribe("refused", as_, *entries)
        return refused.value.message


@pytest.fixture
async def band(database_url: str, login_url: str) -> AsyncIterator[Band]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
        await admin.execute(
            "create table songs (id int primary key, owner uuid, title text);"
            "alter table songs enable row level security;"
            "create policy own on songs for select to authenticated using (auth.uid() = owner);"
            "create table shows (id int primary key, city text);"
            "alter publication supabase_realtime add table songs, shows"
        )
        band = Band(admin, login_url)
        stream = asyncio.create_task(band.stream.run())
        await band.streaming.wait()
        yield band
        stream.cancel()
        with suppress(asyncio.CancelledError):
            await stream
        await band.changes.aclose()
        await band.until_the_slot_is_gone()
