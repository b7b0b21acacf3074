"""One replication connection: from connecting to its end."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from backbeat.errors import StreamError
from backbeat.postgres.deadline import cut
from backbeat.postgres.preconditions import check
from backbeat.postgres.primary import answering, connect
from backbeat.postgres.slots import prepare_slot
from backbeat.postgres.stream_errors import explain, translated, unmet
from backbeat.postgres.transactions import Receiver, Transaction, standby_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backbeat.postgres.preconditions import Preconditions
    from backbeat.postgres.slots import Position

__all__ = ["Walsender"]

log = structlog.get_logger("backbeat.stream")

_NUDGE: Final = 0.02
"""Seconds between something that arrived and a status that makes Postgres look for more.

From version 16 on, a walsender registers for being woken only after it has looked for new WAL. A commit in
between wakes nobody, and would arrive with the next one, whenever that is. The walsender sends something
before each sleep, be it a keepalive, and any message of ours makes it look again.
"""

# The text of values must not depend on the settings of the role or the database (`backbeat.postgres.values`).
# While it skips what is not published, Postgres speaks up after half of its timeout: sooner than we give up.
_SETTINGS: Final = (
    "-c datestyle=ISO -c timezone=UTC -c extra_float_digits=3 -c intervalstyle=postgres -c bytea_output=hex"
    " -c wal_sender_timeout=20s"
)


class Walsender:
    """The process of Postgres that streams to us, seen through our connection to it. Made by `connect`."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        *,
        slot: str,
        since: float,
        position: Position,
        has_gap: bool,
        receiver: Receiver,
        status_interval: float,
        silence: float,
    ) -> None:
        self.slot = slot
        """The name of the slot."""
        self.since = since
        """When streaming began, in seconds since 1970 by the clock of Postgres."""
        self.position = position
        """Up to where everything has been handled."""
        self.complete_until = since
        """Up to when all commits have been handled, in seconds since 1970 by the clock of Postgres."""
        self.has_gap = has_gap
        """Whether changes between the last connection and this one are missing: the slot is a new one."""
        self._connection = connection
        self._pgconn = connection.pgconn
        self._pgconn.nonblocking = 1
        self._receiver = receiver
        self._status_interval = status_interval
        self._silence = silence
        self._failure: StreamError | None = None
        self._arrived = asyncio.Event()
        self._heartbeat = asyncio.create_task(self._beat(), name="walsender-heartbeat")

    @classmethod
    async def connect(
        cls,
        conninfo: str,
        publications: Sequence[str],
        *,
        slot: str,
        durable: bool,
        max_retained: int | None,
        resume: Position | None,
        receiver: Receiver,
        status_interval: float,
        silence: float,
    ) -> Walsender:
        """Connect, make the slot if need be, and start streaming.

        Making a slot waits for every open write transaction of the database to end.

        Args:
            conninfo: where Postgres is and who logs in.
            publications: what to stream.
            slot: the name of a durable slot, or the beginning of that of a temporary one.
            durable: whether the slot outlives the connection.
            max_retained: a durable slot that keeps more bytes of WAL than this is made anew.
            resume: what a previous connection to a durable slot has handled.
            receiver: what collects the messages.
            status_interval: after how long a silence to ask for a sign of life, in seconds.
            silence: after how long a silence the connection counts as lost, in seconds.

        Raises:
            StreamError: it cannot be done, with what to do about it.
        """
        with translated():
            found = await check(conninfo, publications, slot if durable else None)
            connection = await _connect(conninfo, found)
            try:
                prepared = await prepare_slot(
                    connection,
                    conninfo,
                    slot=slot,
                    durable=durable,
                    max_retained=max_retained,
                    resume=resume,
                    found=found,
                )
                with answering(connection):
                    since = await _clock(connection)
                    start = _start_command(prepared.slot, prepared.position.lsn, publications)
                    await connection.execute(start)
            except BaseException:
                await connection.close()
                raise
        walsender = cls(
            connection,
            slot=prepared.slot,
            since=since,
            position=prepared.position,
            has_gap=prepared.has_gap,
            receiver=receiver,
            status_interval=status_interval,
            silence=silence,
        )
        # A durable slot replays the time in which a publication did not exist: that must not stop it for
        # ever.
        connection.add_notice_handler(_log_notice if durable else walsender._refuse_notice)
        return walsender

    async def read(self) -> list[Transaction]:
        """Wait for the next batch. Calling this says that the last one has been handled.

        Raises:
            StreamError: the connection is lost, or what it sends makes no sense; everything that arrived
                before was returned first.
        """
        self.acknowledge()
        while True:
            is_drained = self._parse()
            batch = self._receiver.take()
            if not batch:
                self._advance()
            if self._receiver.reply_requested:
                self._send_status(ping=False)
            if batch:
                return batch
            if self._failure is not None:
                raise self._failure
            if is_drained:
                await self._wait_readable()

    def acknowledge(self) -> None:
        """Count the last batch as handled without reading on."""
        if self._advance():
            self._send_status(ping=False)

    def end(self, error: StreamError) -> None:
        """End the stream: `read` raises the error, as soon as it is called.

        Args:
            error: what was found out about the stream elsewhere.
        """
        self._failure = error
        cut(self._connection)

    async def aclose(self) -> None:
        """Close the connection; a temporary slot vanishes with it."""
        self._heartbeat.cancel()
        # First what must not be skipped when our owner is cancelled once more while we wait.
        await self._connection.close()
        await asyncio.wait([self._heartbeat])

    def _advance(self) -> bool:
        """Note that everything taken from the receiver has been handled; tell whether that is news."""
        self.complete_until = max(self.complete_until, self._receiver.complete_until / 1_000_000)
        is_news = self._receiver.position > self.position.lsn
        if is_news:
            self.position = self.position._replace(lsn=self._receiver.position)
        return is_news

    def _parse(self) -> bool:
        """Move what libpq holds to the receiver until that is full; tell whether libpq has nothing more.

        A failure is kept until everything before it has been taken.
        """
        try:
            while not self._receiver.full:
                if self._failure is not None:
                    return True
                size, message = self._pgconn.get_copy_data(1)
                if size == 0:
                    # What has arrived by now is handled together, and libpq takes a few rows at a time. When
                    # the connection is found to be lost, it may still have some.
                    with suppress(psycopg.OperationalError):
                        self._pgconn.consume_input()
                    size, message = self._pgconn.get_copy_data(1)
                if size == 0:
                    return True
                if size < 0:
                    self._failure = self._ending()
                else:
                    self._receiver.receive(message)
        except StreamError as error:
            self._failure = error
        except psycopg.Error as error:
            self._failure = explain(error)
        return False

    def _ending(self) -> StreamError:
        """Say why Postgres ended the stream."""
        result = self._pgconn.get_result()
        if result is None or not result.error_message:
            return StreamError("Postgres ended the replication stream.")
        return explain(psycopg.errors.error_from_result(result))

    async def _wait_readable(self) -> None:
        """Wait for bytes and hand them to libpq. Nobody else reads the socket: that is the back-pressure."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        with translated():
            # None is left when a status could not be sent.
            socket = self._pgconn.socket
        loop.add_reader(socket, readable.set)
        try:
            async with asyncio.timeout(self._silence):
                await readable.wait()
        except TimeoutError:
            raise StreamError(f"Postgres sent no sign of life for {self._silence:g} seconds.") from None
        finally:
            loop.remove_reader(socket)
        self._arrived.set()
        if self._failure is not None:
            return
        with translated():
            self._pgconn.consume_input()
            if self._pgconn.ssl_in_use:
                # libpq reads at least 8 of the at most 16 KiB of a TLS record. The rest is no longer in the
                # socket, which then never becomes readable for it.
                self._pgconn.consume_input()

    async def _beat(self) -> None:
        """Send a status when Postgres fell silent, and again and again while it stays silent."""
        while True:
            self._arrived.clear()
            try:
                async with asyncio.timeout(self._status_interval):
                    await self._arrived.wait()
            except TimeoutError:
                self._send_status(ping=True)
            else:
                await asyncio.sleep(_NUDGE)
                self._send_status(ping=False)

    def _send_status(self, *, ping: bool) -> None:
        self._receiver.reply_requested = False
        # A connection that can no longer be written to still holds what arrived. `read` meets its end in
        # order.
        with suppress(psycopg.OperationalError):
            self._pgconn.put_copy_data(standby_status(self.position.lsn, now=time.time(), ping=ping))
            # What does not fit into the socket now leaves with the next status.
            self._pgconn.flush()

    def _refuse_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """End the stream when a publication was dropped: Postgres 18 warns, and sends nothing more of it."""
        _log_notice(notice)
        if notice.sqlstate == psycopg.errors.ObjectNotInPrerequisiteState.sqlstate:
            self._failure = unmet(f"Postgres warns: {notice.message_primary}.", "")


async def _connect(conninfo: str, found: Preconditions) -> psycopg.AsyncConnection[Any]:
    options = conninfo_to_dict(conninfo).get("options") or ""
    try:
        return await connect(
            conninfo,
            replication="database",
            application_name="realtime_replication_connection",
            client_encoding="UTF8",
            options=f"{options} {_SETTINGS}",
        )
    except psycopg.OperationalError as error:
        # A refused connection has no SQLSTATE, and its text is in the language of the server: hence the role
        # is looked at. But only now: hosted databases may grant the right in other ways than by this
        # attribute.
        if found.may_replicate:
            raise
        raise unmet(
            "The login role may not replicate.", "Run as a superuser: alter role <login> replication;"
        ) from error


async def _clock(connection: psycopg.AsyncConnection[Any]) -> float:
    """Read the clock of Postgres, in seconds since 1970."""
    cursor = await connection.execute("select extract(epoch from clock_timestamp())::float8")
    row = await cursor.fetchone()
    assert row is not None
    return float(row[0])


def _start_command(slot: str, lsn: int, publications: Sequence[str]) -> sql.Composed:
    names = ",".join('"' + name.replace('"', '""') + '"' for name in publications)
    return sql.SQL(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {}, messages 'true')"
    ).format(sql.Identifier(slot), sql.SQL(f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"), sql.Literal(names))


def _log_notice(notice: psycopg.errors.Diagnostic) -> None:
    log.warning("notice", severity=notice.severity, text=notice.message_primary)
