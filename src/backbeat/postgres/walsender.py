"""One replication connection: from connecting to its end."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import class_row

from backbeat.errors import Retry, StreamError
from backbeat.postgres.deadline import cut, cut_after
from backbeat.postgres.primary import primary, stands_by
from backbeat.postgres.transactions import Receiver, Transaction, standby_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Position", "Preconditions", "Walsender", "fork_of", "resume_at"]

log = structlog.get_logger("backbeat.stream")

_PRECONDITIONS = (files("backbeat.postgres") / "sql" / "stream_preconditions.sql").read_bytes()

_CONNECT_TIMEOUT: Final = 10
"""Seconds."""

_ANSWER_TIMEOUT: Final = 10
"""Seconds in which Postgres answers what it need not wait for."""

_CANCEL_TIMEOUT: Final = 2
"""Seconds for telling Postgres that nobody waits any more."""

_SLOT_PATIENCE: Final = 5.0
"""Seconds between looks at what holds up the making of a slot, and at whether Postgres is still at it."""

EXHAUSTED: Final = "exhausted"
"""The state of a durable slot that keeps more WAL than it may."""

_FAILOVER_VERSION: Final = 170_000
"""The first version whose logical slots can be copied to a standby."""

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


class Position(NamedTuple):
    """A place in the WAL, and in which history of which cluster it means something."""

    system: str
    timeline: int
    lsn: int


class Preconditions(msgspec.Struct, frozen=True):
    """What a stream depends on: a row of `stream_preconditions.sql`."""

    wal_level: str
    may_replicate: bool | None
    missing: list[str]
    """Publications that do not exist."""
    slot: str | None
    """The state of the durable slot; None when there is none."""
    retained: int | None = None
    """Bytes of WAL kept for the durable slot; None when there is none, or nothing is kept any more."""
    confirmed: int = 0
    """Up to where the durable slot has forgotten the changes."""

    def unmet(self) -> StreamError | None:
        """Say what somebody has to change before a stream can start."""
        if self.wal_level != "logical":
            return _unmet(
                f"The database has wal_level = {self.wal_level}.",
                "Set wal_level = logical in its configuration and restart it.",
            )
        if self.missing:
            return _unmet(
                f"The database has no publication {', '.join(self.missing)}.",
                f'Run: create publication "{self.missing[0]}";',
            )
        return None


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
        with _translated():
            found = await _check(conninfo, publications, slot if durable else None)
            connection = await _connect(conninfo, found)
            try:
                if found.retained is not None and max_retained is not None and found.retained > max_retained:
                    found = msgspec.structs.replace(found, slot=EXHAUSTED)
                prepared = await _prepare_slot(
                    connection, conninfo, slot=slot, durable=durable, resume=resume, found=found
                )
                with cut_after(connection, _ANSWER_TIMEOUT):
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
            self._failure = _explain(error)
        return False

    def _ending(self) -> StreamError:
        """Say why Postgres ended the stream."""
        result = self._pgconn.get_result()
        if result is None or not result.error_message:
            return StreamError("Postgres ended the replication stream.")
        return _explain(psycopg.errors.error_from_result(result))

    async def _wait_readable(self) -> None:
        """Wait for bytes and hand them to libpq. Nobody else reads the socket: that is the back-pressure."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        with _translated():
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
        with _translated():
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
            self._failure = _unmet(f"Postgres warns: {notice.message_primary}.", "")


async def _check(conninfo: str, publications: Sequence[str], slot: str | None) -> Preconditions:
    """Ask on an ordinary connection what the replication protocol would answer late, vaguely or never.

    Raises:
        StreamError: somebody has to change something first.
    """
    async with await _find_primary(conninfo) as connection:
        with cut_after(connection, _ANSWER_TIMEOUT):
            cursor = connection.cursor(row_factory=class_row(Preconditions))
            await cursor.execute(_PRECONDITIONS, {"publications": list(publications), "slot": slot})
            found = await cursor.fetchone()
    assert found is not None
    if (error := found.unmet()) is not None:
        raise error
    return found


async def _find_primary(conninfo: str) -> psycopg.AsyncConnection[Any]:
    """Connect to the primary, or tell a standby that somebody may yet promote from a database that is away.

    Raises:
        StreamError: only a standby is there.
    """
    conninfo = make_conninfo(conninfo, connect_timeout=_CONNECT_TIMEOUT)
    try:
        return await psycopg.AsyncConnection.connect(primary(conninfo), autocommit=True)
    except psycopg.OperationalError as error:
        if isinstance(error, psycopg.errors.ConnectionTimeout) or not await stands_by(conninfo):
            raise
        raise _unmet(
            "The database is a standby in recovery.",
            "Promote it, or name the primary in the address of the database. Several hosts may stand there"
            " (host1:port1,host2:port2): the primary among them is found.",
        ) from error


async def _connect(conninfo: str, found: Preconditions) -> psycopg.AsyncConnection[Any]:
    options = conninfo_to_dict(conninfo).get("options") or ""
    try:
        return await psycopg.AsyncConnection.connect(
            make_conninfo(
                primary(conninfo),
                replication="database",
                application_name="realtime_replication_connection",
                client_encoding="UTF8",
                connect_timeout=_CONNECT_TIMEOUT,
                options=f"{options} {_SETTINGS}",
            ),
            autocommit=True,
            prepare_threshold=None,
        )
    except psycopg.OperationalError as error:
        # A refused connection has no SQLSTATE, and its text is in the language of the server: hence the role
        # is looked at. But only now: hosted databases may grant the right in other ways than by this
        # attribute.
        if found.may_replicate:
            raise
        raise _unmet(
            "The login role may not replicate.", "Run as a superuser: alter role <login> replication;"
        ) from error


class _Prepared(NamedTuple):
    """A slot to stream from: where to start, its name, and whether changes are missing since `resume`."""

    position: Position
    slot: str
    has_gap: bool


def resume_at(
    resume: Position | None, here: Position, confirmed: int, fork: int | None = None
) -> tuple[Position, bool]:
    """Tell where to go on in a durable slot, and whether changes are missing since then.

    A standby that was promoted shares the history of the primary up to some position. What we handled beyond
    it has never happened there, and whoever was told of it has to read the rows again. Another cluster with
    a slot of the same name never had the changes we wait for. And a slot that has forgotten more than we
    handled was read by somebody else, or dropped and made again.

    Args:
        resume: what the last connection has handled; None for the first one.
        here: where Postgres is now.
        confirmed: up to where the slot has forgotten the changes.
        fork: where the history of Postgres left that of the last connection; None when they are the same, or
            share nothing.
    """
    if resume is None:
        return here, False
    if resume[:2] == here[:2]:
        return resume, confirmed > resume.lsn
    if fork is None or resume.system != here.system:
        return here, True
    shared = min(resume.lsn, fork)
    return here._replace(lsn=shared), confirmed > shared or resume.lsn > fork


def fork_of(history: str, timeline: int) -> int | None:
    """Find where a timeline was left, in a timeline history file; None if it is not there.

    Args:
        history: the file: each line a timeline, where it was left, and why ("Timeline History File" in the
            manual, "Continuous Archiving").
        timeline: its number.
    """
    for line in history.splitlines():
        match line.split(maxsplit=2):
            case [number, lsn, *_] if number == str(timeline):
                high, low = lsn.split("/")
                return int(high, 16) << 32 | int(low, 16)
    return None


async def _prepare_slot(
    connection: psycopg.AsyncConnection[Any],
    conninfo: str,
    *,
    slot: str,
    durable: bool,
    resume: Position | None,
    found: Preconditions,
) -> _Prepared:
    """Make the slot if there is none."""
    with cut_after(connection, _ANSWER_TIMEOUT):
        cursor = await connection.execute("IDENTIFY_SYSTEM")
        row = await cursor.fetchone()
    assert row is not None
    here = Position(row[0], row[1], lsn=0)
    unusable = found.slot in {"lost", EXHAUSTED}
    if durable and found.slot is not None and not unusable:
        fork = await _fork(connection, resume, here) if resume is not None else None
        position, has_gap = resume_at(resume, here, found.confirmed, fork)
        return _Prepared(position, slot, has_gap)
    # The suffix, because the remains of a lost connection hold their slot until Postgres notices.
    name = slot if durable else f"{slot}_{secrets.token_hex(4)}"
    if unusable:
        log.warning("slot made anew", slot=name, reason=found.slot, retained_bytes=found.retained)
        with suppress(psycopg.errors.UndefinedObject), cut_after(connection, _ANSWER_TIMEOUT):
            await connection.execute(sql.SQL("DROP_REPLICATION_SLOT {}").format(sql.Identifier(name)))
    # A standby may keep a copy of a failover slot, and have it when it is promoted; by default none does.
    failover = durable and connection.info.server_version >= _FAILOVER_VERSION
    command = sql.SQL("CREATE_REPLICATION_SLOT {} {} LOGICAL pgoutput {}").format(
        sql.Identifier(name),
        sql.SQL("" if durable else "TEMPORARY"),
        # Version 14 knows the words without parentheses only.
        sql.SQL("(SNAPSHOT 'nothing', FAILOVER)" if failover else "NOEXPORT_SNAPSHOT"),
    )
    await _execute_patiently(connection, conninfo, command)
    return _Prepared(here, name, has_gap=True)


async def _fork(connection: psycopg.AsyncConnection[Any], resume: Position, here: Position) -> int | None:
    """Ask where the history of Postgres left the one we know; None when it did not, or cannot be told."""
    if resume.system != here.system or resume.timeline >= here.timeline:
        return None
    with cut_after(connection, _ANSWER_TIMEOUT):
        cursor = await connection.execute(sql.SQL("TIMELINE_HISTORY {}").format(here.timeline))
    # As it came: below version 15 it is announced as bytea, but not written as one.
    assert cursor.pgresult is not None
    history = cursor.pgresult.get_value(0, 1) or b""
    return fork_of(history.decode(), resume.timeline)


async def _execute_patiently(
    connection: psycopg.AsyncConnection[Any], conninfo: str, command: sql.Composed
) -> None:
    """Run a command that takes as long as others keep their transactions open, and say who they are.

    A connection that fell silent looks the same from here; hence another one asks.
    """
    pid = connection.info.backend_pid
    running = asyncio.create_task(connection.execute(command), name="replication slot")
    blockers: list[int] | None = None
    try:
        while not (await asyncio.wait([running], timeout=_SLOT_PATIENCE))[0]:
            found = await _blockers(conninfo, pid)
            if found != blockers:
                log.warning("slot waits for open transactions", pids=found)
                blockers = found
        await running
    finally:
        # Postgres must hear of it: a process that waits for a lock does not look whether its client is there.
        running.cancel()
        with cut_after(connection, _CANCEL_TIMEOUT):
            await asyncio.wait([running])


async def _blockers(conninfo: str, pid: int) -> list[int]:
    """Tell which processes another one waits for.

    Raises:
        StreamError: that process has ended.
        psycopg.Error: Postgres does not answer.
    """
    async with await _find_primary(conninfo) as connection:
        with cut_after(connection, _ANSWER_TIMEOUT):
            cursor = await connection.execute(
                "select pg_catalog.pg_blocking_pids(pid) from pg_catalog.pg_stat_activity where pid = %s",
                (pid,),
            )
            row = await cursor.fetchone()
    if row is None:
        raise StreamError("The connection was lost while Postgres made the replication slot.")
    return list(row[0])


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


_HINTS: Final = {
    "55006": (
        "ReplicationSlotBeingUsed",
        "Another program streams from this slot; stop it, or choose another slot name.",
        Retry.BACKOFF,
    ),
    "53400": (
        "StartReplicationFailed",
        "Raise max_replication_slots, or drop the slots nobody uses (pg_replication_slots).",
        Retry.SLOW,
    ),
    "42501": ("StartReplicationFailed", "Run as a superuser: alter role <login> replication;", Retry.SLOW),
    "42704": (
        "StartReplicationFailed",
        "Create what is missing. A durable slot older than its publication has to be dropped.",
        Retry.SLOW,
    ),
}
"""What to do about the errors of the replication protocol, by SQLSTATE: code, hint, and when to try again."""


def _explain(error: Exception) -> StreamError:
    """Turn what psycopg or the system raised into an error of ours."""
    text = str(error) or type(error).__name__
    code, hint, retry = None, "", Retry.BACKOFF
    if isinstance(error, psycopg.Error):
        text = error.diag.message_primary or text
        code, hint, retry = _HINTS.get(error.sqlstate or "", (code, hint, retry))
    sentence = " ".join(text.split()).rstrip(".")
    return StreamError(f"The replication stream failed: {sentence}.", code=code, hint=hint, retry=retry)


def _unmet(message: str, hint: str) -> StreamError:
    return StreamError(message, hint=hint, code="StartReplicationFailed", retry=Retry.SLOW)


def _log_notice(notice: psycopg.errors.Diagnostic) -> None:
    log.warning("notice", severity=notice.severity, text=notice.message_primary)


@contextmanager
def _translated() -> Iterator[None]:
    """Raise only errors of ours."""
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise _explain(error) from error
