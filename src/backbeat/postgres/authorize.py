"""What a caller may do on a private channel: the policies on realtime.messages decide.

A SELECT policy that lets a row through allows to receive, an INSERT policy allows to send (server
specification, section 6.3). The policies are asked with rows of the topic that exist only inside a
transaction that is rolled back, so neither other clients nor the replication stream ever see them.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import msgspec
import psycopg
import structlog
from psycopg import generators, pq
from psycopg.errors import (
    CheckViolation,
    InsufficientPrivilege,
    InvalidSqlStatementName,
    QueryCanceled,
    error_from_result,
)

from backbeat.protocol import reasons

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

    from backbeat.errors import Refusal
    from backbeat.postgres.database import Connection, Database
    from backbeat.tokens.claims import Claims

__all__ = ["Authorizer", "Grants", "Permissions"]

log = structlog.get_logger("backbeat.authorize")

ANSWER_TIMEOUT: Final = 20.0
"""Seconds after which a connection counts as lost: more than three policies need to reach their limit."""

BROADCAST: Final = b"broadcast"
PRESENCE: Final = b"presence"


@dataclass(frozen=True, slots=True)
class Grants:
    """Which extensions of a channel a caller may use in one direction."""

    broadcast: bool
    presence: bool


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a caller may do on one topic.

    Attributes:
        read: what the caller receives.
        write: what the caller may send.
        write_refusal: why something may not be sent although no policy said no: an INSERT policy failed.
    """

    read: Grants
    write: Grants
    write_refusal: Refusal | None = None

    @staticmethod
    def all() -> Permissions:
        """Everything: public channels ask no policy."""
        return _ALL

    @staticmethod
    def none() -> Permissions:
        """Nothing."""
        return _NONE


_ALL: Final = Permissions(Grants(broadcast=True, presence=True), Grants(broadcast=True, presence=True))
_NONE: Final = Permissions(Grants(broadcast=False, presence=False), Grants(broadcast=False, presence=False))


Statement = tuple[bytes, Sequence[bytes]]
"""The name of a prepared statement and its parameters, as text in UTF-8; or a command, which has none."""

BEGIN: Final[Statement] = (b"begin", ())
LIMIT_TIME: Final[Statement] = (b"set local statement_timeout = '5s'", ())
# The owner of the table: policies do not apply to it.
BECOME_OWNER: Final[Statement] = (b"set local role supabase_realtime_admin", ())
SAVEPOINT: Final[Statement] = (b"savepoint asked", ())
ROLLBACK_TO_SAVEPOINT: Final[Statement] = (b"rollback to asked", ())
ROLLBACK: Final[Statement] = (b"rollback", ())

PREPARE: Final = (files("backbeat.postgres") / "sql" / "probe.sql").read_bytes()
INSERT_PROBES: Final = b"backbeat_insert_probes"
BECOME_CALLER: Final = b"backbeat_become_caller"
SELECT_PROBES: Final = b"backbeat_select_probes"
INSERT_PROBE: Final = b"backbeat_insert_probe"


class Authorizer:
    """Asks Postgres what a caller may do on a private channel.

    Args:
        database: where realtime.messages and its policies are.
        observe: called with the seconds each answer took, the wait for a connection included.
    """

    def __init__(self, database: Database, *, observe: Callable[[float], None] = lambda _: None) -> None:
        self._database = database
        self._observe = observe
        self._prepared: WeakSet[Connection] = WeakSet()

    async def probe(
        self, topic: str, claims: Claims, headers: Mapping[str, str], *, presence: bool = True
    ) -> Permissions:
        """Ask what a caller may read and write on a topic, in one network round trip.

        Args:
            topic: the sub-topic, without `realtime:`.
            claims: the verified claims of the caller.
            headers: the `x-*` headers of the caller, with lower-case names; `request.headers` for policies.
            presence: whether to ask about presence too; without it both presence grants are False.

        Raises:
            Denied: a SELECT policy raised an error, or the server may not act as the token's role.
            Unavailable: no free connection, no database, no partition for today, or a policy took too long.
        """
        started = time.perf_counter()
        try:
            extensions = (BROADCAST, PRESENCE) if presence else (BROADCAST,)
            segments = _segments(topic, claims, headers, extensions)
            return _permissions(await self._answers(segments, topic), topic, claims, extensions)
        finally:
            self._observe(time.perf_counter() - started)

    async def _answers(self, segments: Sequence[Sequence[Statement]], topic: str) -> list[list[PGresult]]:
        """Put the question; once more when the connection turns out to be dead, for it changes nothing."""
        try:
            try:
                return await self._ask(segments)
            except psycopg.OperationalError as error:
                log.info("connection lost, asking again", topic=topic, error=type(error).__name__)
                return await self._ask(segments)
        except (psycopg.OperationalError, TimeoutError) as error:
            raise _unanswered(error, topic) from error
        except psycopg.Error as error:
            raise _not_asked(error, topic) from error

    async def _ask(self, segments: Sequence[Sequence[Statement]]) -> list[list[PGresult]]:
        async with self._database.connection() as connection:
            for _ in range(2):
                if connection not in self._prepared:
                    await _prepare(connection)
                    self._prepared.add(connection)
                answers = await _pipeline(connection, segments)
                if not isinstance(_error(answers[0]), InvalidSqlStatementName):
                    break
                # psycopg deallocates all statements of a connection, ours too, when somebody else who
                # borrows it rolls back.
                self._prepared.discard(connection)
            return answers


async def _prepare(connection: Connection) -> None:
    """Prepare the statements, all of them or none.

    Raises:
        psycopg.Error: the connection was lost, or our schema is not there.
    """
    try:
        await connection.execute(PREPARE)
    except BaseException:
        # Those before the failed one exist, and would be in the way of the next try.
        await connection.close()
        raise


async def _pipeline(connection: Connection, segments: Sequence[Sequence[Statement]]) -> list[list[PGresult]]:
    """Send segments of statements all at once, and collect their results.

    After a statement fails, Postgres skips the rest of its segment and goes on with the next. psycopg's own
    pipeline waits for the answer to each segment: that would be a round trip for every one.

    Raises:
        psycopg.OperationalError: the connection was lost.
        TimeoutError: it did not answer in time.
    """
    pgconn = connection.pgconn
    async with connection.lock:
        try:
            pgconn.enter_pipeline_mode()
            for segment in segments:
                for statement, parameters in segment:
                    if parameters:
                        pgconn.send_query_prepared(statement, parameters)
                    else:
                        pgconn.send_query_params(statement, None)
                pgconn.pipeline_sync()
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await connection.wait(_exchange(pgconn, len(segments)))
        finally:
            try:
                pgconn.exit_pipeline_mode()
            except psycopg.OperationalError:
                # Lost, or interrupted between question and answer: the next user must not get our results.
                await connection.close()


def _exchange(pgconn: PGconn, segments: int) -> PQGen[list[list[PGresult]]]:
    """Flush what was sent and read the results of as many segments; psycopg waits where this yields."""
    yield from generators.send(pgconn)
    results: list[list[PGresult]] = [[]]
    while len(results) <= segments:
        result = yield from generators.fetch(pgconn)
        if result is None:
            continue  # the end of one statement's results
        if result.status == pq.ExecStatus.PIPELINE_SYNC:
            results.append([])
        else:
            results[-1].append(result)
    return results[:segments]


def _segments(
    topic: str, claims: Claims, headers: Mapping[str, str], extensions: Sequence[bytes]
) -> list[list[Statement]]:
    """Write the question: a transaction in segments, so that a failing policy leaves the others their say."""
    try:
        name = _text(topic)
        caller = [
            _text(claims.role),
            name,
            _text(claims.json),
            _text(claims.sub),
            msgspec.json.encode(headers),
        ]
    except ValueError as error:
        raise reasons.POLICY_FAILED.refusal(
            topic=topic, context=f"The topic or the token holds what Postgres cannot: {error}."
        ) from None
    probes = _array([str(uuid.uuid4()).encode() for _ in extensions])
    return [
        [BEGIN, LIMIT_TIME, BECOME_OWNER, (INSERT_PROBES, [name, probes, _array(extensions)])],
        [(BECOME_CALLER, caller), SAVEPOINT],
        [(SELECT_PROBES, [probes])],
        *([ROLLBACK_TO_SAVEPOINT, (INSERT_PROBE, [name, extension])] for extension in extensions),
        [ROLLBACK],
    ]


def _array(values: Sequence[bytes]) -> bytes:
    """Write an array of words that need no quotes."""
    return b"{%b}" % b",".join(values)


def _text(value: str) -> bytes:
    """Encode a parameter.

    Raises:
        ValueError: a NUL, at which libpq would silently end the text, or half a surrogate pair.
    """
    if "\0" in value:
        raise ValueError("a NUL character")
    return value.encode()


def _permissions(
    answers: Sequence[Sequence[PGresult]], topic: str, claims: Claims, extensions: Sequence[bytes]
) -> Permissions:
    """Read the answer.

    Raises:
        Refusal: there is none about reading.
    """
    inserted, became, reading, *writing, _ = answers
    if (error := _error(inserted)) is not None:
        raise _not_asked(error, topic)
    if (error := _error(became)) is not None:
        context = f"Postgres does not let the server act as role {claims.role!r}"
        raise _failed(error, reasons.POLICY_FAILED, topic, context)
    if (error := _error(reading)) is not None:
        raise _failed(error, reasons.POLICY_FAILED, topic, "A SELECT policy failed")
    visible = reading[0]
    readable = {visible.get_value(row, 0) for row in range(visible.ntuples)}

    writable: set[bytes] = set()
    refusal: Refusal | None = None
    for extension, results in zip(extensions, writing, strict=True):
        error = _error(results)
        if error is None:
            writable.add(extension)
        elif not isinstance(error, InsufficientPrivilege):
            refusal = _failed(error, reasons.BROADCAST_DENIED, topic, "An INSERT policy failed")
    return Permissions(
        read=Grants(BROADCAST in readable, PRESENCE in readable),
        write=Grants(BROADCAST in writable, PRESENCE in writable),
        write_refusal=refusal,
    )


def _error(segment: Sequence[PGresult]) -> psycopg.Error | None:
    """The error that ended a segment, if one did."""
    for result in segment:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            return error_from_result(result)
    return None


def _not_asked(error: psycopg.Error, topic: str) -> Refusal:
    """Say why the question could not be put: that is never the caller's fault."""
    if isinstance(error, CheckViolation):  # what Postgres says when no partition takes the row
        return reasons.MISSING_PARTITION.refusal(topic=topic)
    context = "The policies could not be asked; if it stays so, run `backbeat migrate`"
    return _failed(error, reasons.DATABASE_UNREACHABLE, topic, context)


def _unanswered(error: Exception, topic: str) -> Refusal:
    """Say that nothing came back, and what did not: a connection of the pool, or the answer on one."""
    reason, kind = reasons.DATABASE_UNREACHABLE, type(error).__name__
    log.warning("authorization failed", code=reason.code, topic=topic, failure=kind, error=str(error))
    return reason.refusal(topic=topic, context=f"Postgres gave no answer: {kind}.")


def _failed(error: psycopg.Error, reason: reasons.Reason, topic: str, context: str) -> Refusal:
    """Refuse because of an error of Postgres; its text, which may hold anyone's data, is for the log alone.

    Args:
        error: what Postgres said.
        reason: what it means, unless the error says that it was the moment that was bad.
        topic: the sub-topic.
        context: what failed.
    """
    if isinstance(error, QueryCanceled):
        reason = reasons.QUERY_CANCELED
    elif isinstance(error, psycopg.OperationalError):
        reason = reasons.DATABASE_UNREACHABLE
    log.warning(
        "authorization failed",
        code=reason.code,
        topic=topic,
        failure=context,
        sqlstate=error.sqlstate,
        error=error.diag.message_primary,
    )
    return reason.refusal(topic=topic, context=f"{context}: {type(error).__name__} ({error.sqlstate}).")
