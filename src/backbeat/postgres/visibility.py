"""Who may see which version of a row: Postgres is asked, as each subscriber, about many rows at once.

Four rules make the answers exact.

* Nothing is asked about a transaction before everybody sees what it did: the stream is ahead by a moment.
* The version that was checked is the version that is sent. Postgres looks a row up by its primary key as it
  is now, while a change tells what it was then. They are the same version when the transaction of the change
  wrote the one that is visible; otherwise they are compared, column by column, and a difference is a no.
* What was read from the catalogue is trusted only when it has not changed by the time the answers are there
  (`Visibility.ask` returns None otherwise, and the question is put anew).
* An error is a no for the one whose policy failed, and for nobody else.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple

import msgspec
import psycopg
import structlog
from psycopg import errors, sql

from backbeat.postgres.check_function import contents, definition, function_name, statement
from backbeat.postgres.database import become
from backbeat.postgres.dedicated import Dedicated
from backbeat.postgres.members import Members
from backbeat.postgres.policies import Access
from backbeat.postgres.question import Call

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from backbeat.postgres.conditions import Member
    from backbeat.postgres.database import Connection
    from backbeat.postgres.members import Users, Values
    from backbeat.postgres.question import Question
    from backbeat.tokens.claims import Claims

__all__ = ["Visibility", "read_access"]

log = structlog.get_logger("backbeat.visibility")

STATEMENT_TIMEOUT: Final = 5_000
"""Milliseconds for everything asked in one round trip about one table, before the slow one is looked for."""
PATIENCE: Final = (1_000, 8)
"""Milliseconds for a call, and more for each of its viewers, while the slow one is looked for."""
LOCK_TIMEOUT: Final = 900
"""Milliseconds to wait for a lock; below `PATIENCE`: a locked table must not look like a slow policy."""
LOCK_PATIENCE: Final = 60.0
"""Seconds after which whoever locks a table has it look as if nobody could see its rows."""
SUSPENSION: Final = 30.0
"""Seconds for which somebody whose policy ran into the timeout is not asked again."""
PAUSE: Final = 0.001
"""Seconds until the next look whether a transaction is over. It is a matter of microseconds, unless a
synchronous standby has to confirm."""
CHUNK: Final = 500
"""How many viewers one call asks: it must not hold the connection for seconds."""


def _text(name: str) -> str:
    """Load a statement that comes with the package."""
    return (files("backbeat.postgres") / "sql" / name).read_text()


_WAL_END: Final = "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8"
_ACCESS = _text("access.sql")
_FINGERPRINTS = _text("fingerprints.sql")
_PENDING = _text("pending.sql")
_SETTLING = _text("settling.sql")


class _Doubt(NamedTuple):
    """A version somebody may see, unless the row has changed since.

    Attributes:
        version: its index in the question.
        written_by: the transaction that wrote the visible version; None if the role may not know.
    """

    version: int
    written_by: str | None


class _Seen(NamedTuple):
    """A row of what `visible.sql` returns."""

    viewer: int
    same: list[int] | None
    other: list[int] | None
    versions: list[str | None] | None
    failure: str | None


@dataclass(slots=True)
class _Functions:
    """The check functions that exist on a connection, and the state of the table they were made for."""

    connection: Connection
    made_for: dict[str, str | None] = field(default_factory=dict)


async def read_access(
    connection: Connection, tables: Collection[int], roles: Collection[str]
) -> dict[tuple[int, str], Access]:
    """Read what roles may see of tables.

    Args:
        connection: any, outside of a transaction.
        tables: their oids.
        roles: the names of the roles.

    Returns:
        By table and role; tables and roles that do not exist are missing.
    """
    async with connection.transaction():
        await connection.execute("select set_config('search_path', '', true)")
        cursor = await connection.execute(_ACCESS, {"tables": list(tables), "roles": list(roles)})
        rows = [msgspec.json.decode(text, type=Access) for (text,) in await cursor.fetchall()]
    return {(access.oid, access.role): access for access in rows}


class Visibility:
    """Asks Postgres who sees what, over a connection of its own.

    Args:
        url: where Postgres is; the login is a member of every role that is asked about.
        classify: whether the catalogue decides what it can; otherwise everybody is asked about every row,
            which is what `bench/changes.py` compares with.

    Attributes:
        checked: how many pairs of row and viewer were asked about.
        dropped_stale: for how many of them the visible version was no longer the one in question.
        denied_by_error: how many got no answer because a policy failed or took too long.
        asked_until: where the WAL ended when the last questions had been answered.
    """

    def __init__(self, url: str, *, classify: bool = True) -> None:
        self._classify = classify
        self.checked = 0
        self.dropped_stale = 0
        self.denied_by_error = 0
        self.asked_until = 0
        self._dedicated = Dedicated(
            url,
            name="backbeat visibility",
            settings={"statement_timeout": str(STATEMENT_TIMEOUT), "lock_timeout": str(LOCK_TIMEOUT)},
        )
        self._known: dict[tuple[int, str], Access | None] = {}
        self._fingerprints: dict[int, str | None] = {}
        self._members = Members()
        self._suspended: dict[tuple[int, Claims], float] = {}
        self._functions: _Functions | None = None
        self._warned: set[str] = set()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._dedicated.aclose()

    async def access(self, pairs: Collection[tuple[int, str]]) -> dict[tuple[int, str], Access | None]:
        """Tell what roles may see of tables, as far as known; `ask` tells whether it still holds.

        Args:
            pairs: oids of tables, with roles.

        Raises:
            psycopg.OperationalError: the connection was lost.
        """
        if not self._known.keys() >= set(pairs):
            await self._read(pairs)
        return {pair: self._known[pair] for pair in pairs}

    async def members(self, access: Access, member: Member, values: Collection[Values]) -> Users | None:
        """Tell which users stand in a table that policies look into; `ask` tells whether it still holds.

        The transactions the rows come from have to be `over`.

        Args:
            access: the table with the rows, as those who are to be asked see it.
            member: what one of its policies asks for.
            values: those of rows.

        Returns:
            The users beside those values; None where everybody has to be asked.

        Raises:
            psycopg.OperationalError: the connection was lost.
        """
        async with self._dedicated.hold() as connection:
            return await self._members.read(connection, access, member, values)

    async def ask(
        self, tables: Collection[int], questions: Sequence[Question], xids: Collection[int]
    ) -> list[dict[Claims, set[int]]] | None:
        """Put questions to Postgres.

        Args:
            tables: the tables of which `access` has been told, asked about or not.
            questions: what is left to ask.
            xids: the transactions the versions come from.

        Returns:
            The visible versions of each viewer, for each question; or None when something about the tables
            has changed since `access` was told, so that both have to be done again.

        Raises:
            psycopg.OperationalError: the connection was lost, or Postgres is out of something.
        """
        calls = [call for question in questions for call in self._calls(question)]
        async with self._dedicated.hold() as connection:
            await self._make_functions(connection, calls)
            try:
                seen, now = await self._at_once(connection, calls, tables, xids)
            except psycopg.Error:
                if connection.closed:
                    raise
                await self._over(connection, xids)
                seen = [await self._patiently(connection, call) for call in calls]
                now = await self._current(connection, tables)
                self.asked_until = await _wal_end(connection)
            if not self._hold(now):
                self._forget(now)
                return None
            answers: dict[int, dict[Claims, set[int]]] = defaultdict(dict)
            for call, rows in zip(calls, seen, strict=True):
                found = await self._answers(connection, call, rows)
                if found is None:
                    return None
                answers[id(call.question)] |= found
        return [answers[id(question)] for question in questions]

    async def over(self, xids: Collection[int]) -> None:
        """Wait until everybody sees what transactions did, to the catalogue too.

        Raises:
            psycopg.OperationalError: the connection was lost.
        """
        async with self._dedicated.hold() as connection:
            await self._over(connection, xids)

    # The catalogue ------------------------------------------------------------------------------------------

    async def _read(self, pairs: Collection[tuple[int, str]]) -> None:
        tables, roles = {oid for oid, _ in pairs}, {role for _, role in pairs}
        async with self._dedicated.hold() as connection:
            # The fingerprints first: a change between the two statements is then noticed by `ask`.
            now = await self._current(connection, tables)
            self._forget(now)
            await _until_not(connection, _SETTLING)
            found = await read_access(connection, tables, roles)
            since = await _wal_end(connection)
        found = {pair: msgspec.structs.replace(each, since=since) for pair, each in found.items()}
        self._fingerprints |= now
        if not self._classify:
            found = {pair: msgspec.structs.replace(each, classified=False) for pair, each in found.items()}
        for pair in pairs:
            # What is still known holds, and has held for longer than what was read now.
            self._known.setdefault(pair, found.get(pair))
        for access in found.values():
            for function in access.gullible:
                if function not in self._warned:
                    self._warned.add(function)
                    log.warning(
                        "an IMMUTABLE function looks at who is asking",
                        function=function,
                        hint="Declare it STABLE. Until then no plan is used twice, which makes checks slow.",
                    )

    async def _current(self, connection: Connection, tables: Collection[int]) -> dict[int, str | None]:
        """Fingerprint tables; None stands for one that does not exist."""
        cursor = await connection.execute(_FINGERPRINTS, {"tables": list(tables)})
        return dict.fromkeys(tables) | dict(await cursor.fetchall())

    def _hold(self, fingerprints: Mapping[int, str | None]) -> bool:
        """Tell whether what is known still holds."""
        return all(self._fingerprints.get(oid) == state for oid, state in fingerprints.items())

    def _forget(self, fingerprints: Mapping[int, str | None]) -> None:
        """Forget what is known of the tables that have changed."""
        changed = {oid for oid, state in fingerprints.items() if self._fingerprints.get(oid) != state}
        self._known = {pair: access for pair, access in self._known.items() if pair[0] not in changed}
        for oid in changed:
            self._fingerprints.pop(oid, None)

    # Asking -------------------------------------------------------------------------------------------------

    def _calls(self, question: Question) -> Iterator[Call]:
        """Divide a question; whoever is suspended is left out."""
        now = asyncio.get_running_loop().time()
        self._suspended = {who: until for who, until in self._suspended.items() if until > now}
        viewers = []
        for claims, indexes in question.viewers.items():
            if (question.access.oid, claims) in self._suspended:
                self.denied_by_error += len(indexes)
            else:
                viewers.append(claims)
        remaining = iter(viewers)
        while chunk := tuple(islice(remaining, CHUNK)):
            yield Call(question, chunk)

    async def _at_once(
        self, connection: Connection, calls: Sequence[Call], tables: Collection[int], xids: Collection[int]
    ) -> tuple[list[list[_Seen]], dict[int, str | None]]:
        """Make all calls and read the fingerprints in one round trip.

        The order matters. What is over before the calls is seen by them; and fingerprints that are the same
        after the calls as they were before mean that nothing changed in between.
        """
        while True:
            async with connection.pipeline():
                pending = await connection.execute(_PENDING, {"xids": list(xids)})
                cursors = [await connection.execute(*statement(call)) for call in calls]
                state = await connection.execute(_FINGERPRINTS, {"tables": list(tables)})
                end = await connection.execute(_WAL_END)
            if await pending.fetchone() == (False,):
                break
            await self._over(connection, xids)
        ((self.asked_until,),) = await end.fetchall()
        seen = [[_Seen(*row) for row in await cursor.fetchall()] for cursor in cursors]
        return seen, dict.fromkeys(tables) | dict(await state.fetchall())

    async def _over(self, connection: Connection, xids: Collection[int]) -> None:
        """Wait until transactions are over for everybody."""
        await _until_not(connection, _PENDING, {"xids": list(xids)})

    async def _patiently(self, connection: Connection, call: Call) -> list[_Seen]:
        """Make one call; halve it where it takes too long, and wait where a table is locked.

        Raises:
            psycopg.OperationalError: the connection was lost, or Postgres is out of something.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + LOCK_PATIENCE
        base, more = PATIENCE
        timeout = base + more * len(call.viewers)
        while True:
            try:
                async with connection.transaction():
                    await connection.execute(
                        "select set_config('statement_timeout', %s, true)", (f"{timeout}",)
                    )
                    cursor = await connection.execute(*statement(call))
                    return [_Seen(*row) for row in await cursor.fetchall()]
            except errors.LockNotAvailable:
                log.warning("a table is locked, its changes wait", table=call.question.access.table)
                if loop.time() > give_up:
                    return _nobody(call, "the table stayed locked")
            except errors.QueryCanceled:
                if len(call.viewers) > 1:
                    break
                self._suspended[call.question.access.oid, call.viewers[0]] = loop.time() + SUSPENSION
                return _nobody(call, f"took longer than {timeout} ms")
            except psycopg.OperationalError:
                raise
            except psycopg.Error as error:
                # Not an error of a policy: the call itself fails, and would fail for ever.
                return _nobody(call, f"{error.sqlstate} {error}")
        half = len(call.viewers) // 2
        first = await self._patiently(connection, call._replace(viewers=call.viewers[:half]))
        second = await self._patiently(connection, call._replace(viewers=call.viewers[half:]))
        return first + [seen._replace(viewer=seen.viewer + half) for seen in second]

    async def _answers(
        self, connection: Connection, call: Call, seen: Iterable[_Seen]
    ) -> dict[Claims, set[int]] | None:
        """Turn what viewers see now into what they may be sent; None when the rules have changed since."""
        question, answers = call.question, {}
        self.checked += sum(len(question.viewers[claims]) for claims in call.viewers)
        failures: list[tuple[Claims, str]] = []
        doubts: dict[Claims, list[_Doubt]] = {}
        for row in seen:
            claims = call.viewers[row.viewer - 1]
            if row.failure is not None:
                failures.append((claims, row.failure))
                self.denied_by_error += len(question.viewers[claims])
                continue
            answers[claims] = {n - 1 for n in row.same or ()}
            if row.other:
                doubts[claims] = [
                    _Doubt(n - 1, by) for n, by in zip(row.other, row.versions or (), strict=True)
                ]
        # Whoever sees a row as written by the same transaction sees the same version: it is read once.
        settled: dict[_Doubt, bool] = {}
        for claims, others in doubts.items():
            unknown = [doubt for doubt in others if doubt.written_by is None or doubt not in settled]
            if unknown:
                try:
                    settled |= await self._compare(connection, question, claims, unknown)
                except psycopg.Error as error:
                    if connection.closed:
                        raise
                    # The table may have been granted anew after it was asked about: not a failing policy.
                    now = await self._current(connection, {question.access.oid})
                    if not self._hold(now):
                        self._forget(now)
                        return None
                    # As if it had failed at once: no answer is told, part of one would not be.
                    del answers[claims]
                    failures.append((claims, f"{error.sqlstate} {error}"))
                    self.denied_by_error += len(question.viewers[claims])
                    continue
            for doubt in others:
                if settled.get(doubt):
                    answers[claims].add(doubt.version)
                else:
                    self.dropped_stale += 1
        if failures:
            (claims, failure), access = failures[0], question.access
            log.warning(
                "rows were withheld because of an error",
                table=f"{access.schema}.{access.table}",
                role=access.role,
                viewers=len(failures),
                sub=claims.sub,
                error=failure,
                hint="Read the table as this role with these claims: a policy fails, or takes too long.",
            )
        return answers

    async def _compare(
        self, connection: Connection, question: Question, claims: Claims, doubts: Sequence[_Doubt]
    ) -> dict[_Doubt, bool]:
        """Read rows as somebody sees them, and tell which still have the content in question.

        Rows that are not there any more are missing in the result: somebody else may still see them.

        Raises:
            psycopg.Error: a policy failed this time.
        """
        access = question.access
        columns = [column.name for column in access.columns if column.selectable]
        keys = [
            list(part)
            for part in zip(*(question.versions[doubt.version].key for doubt in doubts), strict=True)
        ]
        async with connection.transaction(force_rollback=True):
            if access.gullible:
                await connection.execute("discard plans")
            await become(connection, claims)
            # Unprepared: a plan made for one viewer may not be right for another.
            cursor = await connection.execute(contents(access, columns), keys, prepare=False)
        table = cursor.pgresult
        assert table is not None
        result = {}
        for row in range(table.ntuples):
            doubt = doubts[int(table.get_value(row, 0) or 0) - 1]
            by = table.get_value(row, 1)
            content = {name: table.get_value(row, 2 + i) for i, name in enumerate(columns)}
            sent = question.versions[doubt.version].values
            result[doubt] = (by.decode() if by is not None else None) == doubt.written_by and all(
                content[name] == value for name, value in sent.items() if name in content
            )
        return result

    async def _make_functions(self, connection: Connection, calls: Sequence[Call]) -> None:
        """Create the check functions that are missing on this connection, or were made before a change."""
        if self._functions is None or self._functions.connection is not connection:
            self._functions = _Functions(connection)
        made_for = self._functions.made_for
        for access in {function_name(call.question.access): call.question.access for call in calls}.values():
            name, state = function_name(access), self._fingerprints[access.oid]
            if name in made_for and made_for[name] == state:
                continue
            try:
                await connection.execute(definition(access), prepare=False)
            except psycopg.ProgrammingError as error:
                # The call will fail and be denied: one table must not hold up the others. A function made
                # before the change must not answer in its place.
                drop = sql.SQL("drop function if exists pg_temp.{}").format(sql.Identifier(name))
                await connection.execute(drop, prepare=False)
                made_for.pop(name, None)
                log.warning(
                    "a table cannot be asked about",
                    table=f"{access.schema}.{access.table}",
                    error=str(error),
                    hint="The server's login needs TEMPORARY on the database, and USAGE on the schema of the"
                    " types of the primary key.",
                )
            else:
                made_for[name] = state


async def _until_not(
    connection: Connection, question: LiteralString, parameters: Mapping[str, Any] | None = None
) -> None:
    """Put a question until the answer is no. That is a matter of microseconds."""
    while True:
        cursor = await connection.execute(question, parameters)
        if await cursor.fetchone() == (False,):
            return
        await asyncio.sleep(PAUSE)


async def _wal_end(connection: Connection) -> int:
    ((end,),) = await (await connection.execute(_WAL_END)).fetchall()
    return int(end)


def _nobody(call: Call, failure: str) -> list[_Seen]:
    """Deny a whole call."""
    return [_Seen(k, None, None, None, failure) for k in range(1, len(call.viewers) + 1)]
