"""What keeps a stream from flowing: a Postgres without a free place, and a connection that fell silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from tests.integration.server.conftest import PATIENCE, slot_is_active

from backbeat.errors import Retry
from backbeat.postgres.messages import MESSAGES_PUBLICATION
from backbeat.postgres.stream import ReplicationStream, StreamPhase, StreamState

if TYPE_CHECKING:
    from backbeat.postgres.transactions import Transaction

    Connection = psycopg.AsyncConnection[Any]


class Stream:
    """A running stream of stored messages, and what became of it."""

    def __init__(self) -> None:
        self._states: asyncio.Queue[StreamState] = asyncio.Queue()

    async def consume(self, batch: list[Transaction]) -> None:
        """Take a batch."""

    def changed(self, state: StreamState) -> None:
        """Keep a state."""
        self._states.put_nowait(state)

    async def until(self, phase: StreamPhase) -> StreamState:
        """Wait for a phase."""
        async with asyncio.timeout(PATIENCE):
            while (state := await self._states.get()).phase is not phase:
                pass
        return state


@asynccontextmanager
async def streaming(database: Connection, url: str, **options: Any) -> AsyncIterator[Stream]:
    """Run a stream until the block ends and Postgres noticed."""
    stream = Stream()
    replication = ReplicationStream(
        url,
        [MESSAGES_PUBLICATION],
        stream.consume,
        on_state=stream.changed,
        backoff=(0.01, 0.1),
        slow_retry=0.05,
        **options,
    )
    task = asyncio.create_task(replication.run())
    try:
        yield stream
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        async with asyncio.timeout(PATIENCE):
            while await slot_is_active(database):
                await asyncio.sleep(0.02)


@asynccontextmanager
async def no_slot_left(database: Connection) -> AsyncIterator[Callable[[], Any]]:
    """Take every replication slot of the cluster; the function gives one back."""
    taken: list[str] = []

    async def give_back() -> None:
        await database.execute("select pg_drop_replication_slot(%s)", (taken.pop(),))

    try:
        while True:
            name = f"taken_{len(taken)}"
            try:
                await database.execute("select pg_create_physical_replication_slot(%s)", (name,))
            except psycopg.errors.ConfigurationLimitExceeded:
                break
            taken.append(name)
        yield give_back
    finally:
        while taken:
            await give_back()


@asynccontextmanager
async def no_walsender_left(url: str) -> AsyncIterator[Callable[[], Any]]:
    """Take every walsender of the cluster; the function gives them back."""
    async with AsyncExitStack() as connections:
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    url, replication="database", autocommit=True
                )
            except psycopg.OperationalError as error:
                if "max_wal_senders" not in str(error):
                    raise
                break
            connections.push_async_callback(connection.close)
        yield connections.aclose


async def test_too_few_slots_are_named(database: Connection, login_url: str) -> None:
    """With the setting to raise; it is no use to try again soon."""
    async with no_slot_left(database), streaming(database, login_url) as stream:
        error = (await stream.until(StreamPhase.LOST)).error
    assert error is not None
    assert "max_replication_slots" in error.hint
    assert error.retry is Retry.SLOW


async def test_a_slot_that_becomes_free_is_taken(database: Connection, login_url: str) -> None:
    """Nobody has to restart the server."""
    async with no_slot_left(database) as give_back, streaming(database, login_url) as stream:
        await stream.until(StreamPhase.LOST)
        await give_back()
        await stream.until(StreamPhase.STREAMING)


async def test_too_few_walsenders_are_named(database: Connection, login_url: str, database_url: str) -> None:
    """With the setting to raise."""
    async with no_walsender_left(database_url), streaming(database, login_url) as stream:
        error = (await stream.until(StreamPhase.LOST)).error
    assert error is not None
    assert "max_wal_senders" in error.message


async def test_a_walsender_that_becomes_free_is_taken(
    database: Connection, login_url: str, database_url: str
) -> None:
    """Nobody has to restart the server."""
    async with no_walsender_left(database_url) as give_back, streaming(database, login_url) as stream:
        await stream.until(StreamPhase.LOST)
        await give_back()
        await stream.until(StreamPhase.STREAMING)


class Line:
    """A line to Postgres that can go dead without being cut.

    Args:
        url: where Postgres is.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._alive = asyncio.Event()
        self._alive.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[str]:
        """Listen; the address to use in place of that of Postgres."""
        async with await asyncio.start_server(self._connected, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            user, _, _ = self._parts.netloc.rpartition("@")
            yield urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def die(self) -> None:
        """Carry nothing more; whoever listens hears nothing, not even an end."""
        self._alive.clear()

    def revive(self) -> None:
        """Carry on."""
        self._alive.set()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self._connect(reader, writer)))

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, there[1]))
                both.create_task(self._carry(there[0], writer))
        finally:
            for end in (writer, there[1]):
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                await self._alive.wait()
                writer.write(data)
        writer.close()


async def test_a_connection_that_fell_silent_is_given_up(database: Connection, login_url: str) -> None:
    """It was not closed; only nothing comes through any more. A new one follows."""
    line = Line(login_url)
    async with (
        line.laid() as url,
        streaming(database, url, status_interval=0.05, silence=0.5) as stream,
    ):
        await stream.until(StreamPhase.STREAMING)
        line.die()
        error = (await stream.until(StreamPhase.LOST)).error
        line.revive()
        await stream.until(StreamPhase.STREAMING)
    assert error is not None
    assert "no sign of life" in error.message
