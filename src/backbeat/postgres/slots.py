"""The slot of a stream: where it goes on in the one it has, and how it gets a new one."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
import structlog
from psycopg import sql

from backbeat.errors import StreamError
from backbeat.postgres.deadline import cut_after
from backbeat.postgres.primary import answering, find_primary

if TYPE_CHECKING:
    from backbeat.postgres.preconditions import Preconditions

__all__ = ["Position", "Prepared", "fork_of", "prepare_slot", "resume_at"]

log = structlog.get_logger("backbeat.stream")

_CANCEL_TIMEOUT: Final = 2
"""Seconds for telling Postgres that nobody waits any more."""

_SLOT_PATIENCE: Final = 5.0
"""Seconds between looks at what holds up the making of a slot, and at whether Postgres is still at it."""

_FAILOVER_VERSION: Final = 170_000
"""The first version whose logical slots can be copied to a standby."""


class Position(NamedTuple):
    """A place in the WAL, and in which history of which cluster it means something."""

    system: str
    timeline: int
    lsn: int


class Prepared(NamedTuple):
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


async def prepare_slot(
    connection: psycopg.AsyncConnection[Any],
    conninfo: str,
    *,
    slot: str,
    durable: bool,
    max_retained: int | None,
    resume: Position | None,
    found: Preconditions,
) -> Prepared:
    """Make the slot if there is none, or none that can be used.

    Args:
        connection: a replication connection.
        conninfo: where Postgres is and who logs in.
        slot: the name of a durable slot, or the beginning of that of a temporary one.
        durable: whether the slot outlives the connection.
        max_retained: a durable slot that keeps more bytes of WAL than this is made anew.
        resume: what a previous connection to a durable slot has handled.
        found: what is known of the durable slot.

    Raises:
        StreamError: the connection was lost while the slot was made.
        psycopg.Error: Postgres refused, or is away.
    """
    with answering(connection):
        cursor = await connection.execute("IDENTIFY_SYSTEM")
        row = await cursor.fetchone()
    assert row is not None
    here = Position(row[0], row[1], lsn=0)
    is_exhausted = found.retained is not None and max_retained is not None and found.retained > max_retained
    is_unusable = found.slot == "lost" or is_exhausted
    if durable and found.slot is not None and not is_unusable:
        fork = await _fork(connection, resume, here) if resume is not None else None
        position, has_gap = resume_at(resume, here, found.confirmed, fork)
        return Prepared(position, slot, has_gap)
    # The suffix, because the remains of a lost connection hold their slot until Postgres notices.
    name = slot if durable else f"{slot}_{secrets.token_hex(4)}"
    if is_unusable:
        reason = "exhausted" if is_exhausted else found.slot
        log.warning("slot made anew", slot=name, reason=reason, retained_bytes=found.retained)
        with suppress(psycopg.errors.UndefinedObject), answering(connection):
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
    return Prepared(here, name, has_gap=True)


async def _fork(connection: psycopg.AsyncConnection[Any], resume: Position, here: Position) -> int | None:
    """Ask where the history of Postgres left the one we know; None when it did not, or cannot be told."""
    if resume.system != here.system or resume.timeline >= here.timeline:
        return None
    with answering(connection):
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
    async with await find_primary(conninfo) as connection:
        with answering(connection):
            cursor = await connection.execute(
                "select pg_catalog.pg_blocking_pids(pid) from pg_catalog.pg_stat_activity where pid = %s",
                (pid,),
            )
            row = await cursor.fetchone()
    if row is None:
        raise StreamError("The connection was lost while Postgres made the replication slot.")
    return list(row[0])
