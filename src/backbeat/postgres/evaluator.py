"""Filters that only Postgres can evaluate: collations, patterns, and types whose order is its own.

The filters of all subscribers meet the values of many changes in one round trip, in the subscriber's role and
with nothing but values: no table is read here. Whatever takes too long matches nothing, and is left out
for a while; it must not hold up the changes of others.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import psycopg
import structlog
from psycopg import errors, sql

from backbeat.postgres.dedicated import Dedicated

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from backbeat.postgres.database import Connection
    from backbeat.protocol.filters import Comparison, Relation

__all__ = ["Evaluator", "collated", "operator_of"]

log = structlog.get_logger("backbeat.filters")

PATIENCE: Final = (100, 1)
"""Milliseconds for what is asked in one statement, and more for each value or pattern of a filter in it."""
SUSPENSION: Final = 30.0
"""Seconds for which a value or pattern that took longer matches nothing."""


class _Group(NamedTuple):
    """What is compared with one another."""

    relation: Relation
    column: str


class _Question(NamedTuple):
    """Which of some values of rows stand in a relation to which of some values of filters."""

    group: _Group
    values: tuple[bytes, ...]
    operands: tuple[bytes, ...]


_Operands: TypeAlias = "dict[bytes, set[bytes]]"
"""The values of rows that stand in the relation of a group to each value of a filter."""


class Evaluator:
    """Evaluates filters, over a connection of its own.

    Args:
        url: where Postgres is; the login is a member of every role that subscribes.
    """

    def __init__(self, url: str) -> None:
        self._dedicated = Dedicated(url, name="backbeat filters", settings={"search_path": ""})
        self._suspended: dict[tuple[_Group, bytes], float] = {}

    async def aclose(self) -> None:
        """Close the connection."""
        await self._dedicated.aclose()

    async def accepted(
        self, asked: Mapping[Comparison, Collection[bytes | None]]
    ) -> tuple[dict[Comparison, set[bytes | None]], set[Comparison]]:
        """Tell which rows match.

        Args:
            asked: comparisons that need the database, each with the values of rows in its column.

        Returns:
            For each comparison, the values that match; and which could not be made. Those match nothing,
            negated or not.

        Raises:
            psycopg.OperationalError: the connection was lost.
        """
        groups = {comparison: _group(comparison) for comparison in asked}
        values: dict[_Group, set[bytes]] = defaultdict(set)
        operands: dict[_Group, set[bytes]] = defaultdict(set)
        for comparison, group in groups.items():
            values[group].update(value for value in asked[comparison] if value is not None)
            operands[group].update(_operands(comparison))
        now = asyncio.get_running_loop().time()
        self._suspended = {who: until for who, until in self._suspended.items() if until > now}
        failed = {(group, each) for group in operands for each in operands[group]} & self._suspended.keys()
        questions = [
            _Question(group, tuple(values[group]), healthy)
            for group, those in operands.items()
            if (healthy := tuple(each for each in those if (group, each) not in failed)) and values[group]
        ]
        held: dict[_Group, _Operands] = {}
        if questions:
            async with self._dedicated.hold() as connection:
                held, new = await self._compare(connection, questions)
                failed |= new
        accepted: dict[Comparison, set[bytes | None]] = {}
        unmade: set[Comparison] = set()
        for comparison, group in groups.items():
            mine = _operands(comparison)
            if any((group, each) in failed for each in mine):
                accepted[comparison] = set()
                unmade.add(comparison)
                continue
            known = held.get(group, {})
            holding = set().union(*(known.get(each, ()) for each in mine))
            accepted[comparison] = {
                value for value in asked[comparison] if comparison.concludes(value, holds=value in holding)
            }
        return accepted, unmade

    async def _compare(
        self, connection: Connection, questions: Sequence[_Question]
    ) -> tuple[dict[_Group, _Operands], set[tuple[_Group, bytes]]]:
        """Ask everything at once, or halve it until what cannot be asked stands alone; and tell that, too.

        Raises:
            psycopg.OperationalError: the connection was lost.
        """
        try:
            return await _held(connection, questions), set()
        except psycopg.Error as error:
            if connection.closed:
                raise
            parts = _halves(questions)
            if parts is None:
                return {}, {self._gave_up(questions[0], error)}
        held: dict[_Group, _Operands] = defaultdict(dict)
        failed: set[tuple[_Group, bytes]] = set()
        for part in parts:
            more, those = await self._compare(connection, part)
            failed |= those
            for group, found in more.items():
                held[group] |= found
        return held, failed

    def _gave_up(self, question: _Question, error: psycopg.Error) -> tuple[_Group, bytes]:
        """Leave a value or pattern out, for a while if it took too long."""
        group, (operand,) = question.group, question.operands
        if isinstance(error, errors.QueryCanceled):
            self._suspended[group, operand] = asyncio.get_running_loop().time() + SUSPENSION
        log.warning(
            "a filter cannot be evaluated, its subscribers get nothing",
            column=group.column,
            type=group.relation.left,
            operator=group.relation.symbol,
            role=group.relation.role,
            error=f"{error.sqlstate} {error}",
            hint="A pattern takes too long, or the type of the column has changed since somebody subscribed.",
        )
        return group, operand


def _halves(questions: Sequence[_Question]) -> tuple[Sequence[_Question], Sequence[_Question]] | None:
    """Divide what was asked at once; None where it was only one thing."""
    middle = len(questions) // 2
    if middle:
        return questions[:middle], questions[middle:]
    (question,) = questions
    middle = len(question.operands) // 2
    if not middle:
        return None
    first, second = question.operands[:middle], question.operands[middle:]
    return [question._replace(operands=first)], [question._replace(operands=second)]


def _group(comparison: Comparison) -> _Group:
    assert comparison.relation is not None
    return _Group(comparison.relation, comparison.column)


def _operands(comparison: Comparison) -> Iterable[bytes]:
    return [value for value in comparison.values if isinstance(value, bytes)]


async def _held(connection: Connection, questions: Sequence[_Question]) -> dict[_Group, _Operands]:
    """Find what stands in relation, in one round trip.

    Raises:
        psycopg.Error: it took too long, or a value is not of the type.
    """
    base, more = PATIENCE
    cursors = []
    async with connection.pipeline(), connection.transaction():
        for question in questions:
            timeout = base + more * len(question.operands)
            await connection.execute(
                "select set_config('statement_timeout', %s, true), set_config('role', %s, true)",
                (str(timeout), question.group.relation.role),
            )
            # Bytes that are no text, possible in a database with encoding SQL_ASCII only, become U+FFFD.
            texts = [
                [each.decode(errors="replace") for each in those]
                for those in (question.values, question.operands)
            ]
            cursors.append(await connection.execute(_statement(question.group.relation), texts))
    held: dict[_Group, _Operands] = {}
    for question, cursor in zip(questions, cursors, strict=True):
        held[question.group] = {
            question.operands[n - 1]: {question.values[v - 1] for v in those}
            for n, those in await cursor.fetchall()
        }
    return held


def _statement(relation: Relation) -> sql.Composed:
    """Write the comparison of some values with some others."""
    return sql.SQL(
        "with v as materialized"
        " (select p.n, cast(p.text as {left}) as x from unnest(%s::text[]) with ordinality p (text, n)),"
        " o as materialized"
        " (select p.n, cast(p.text as {right}) as x from unnest(%s::text[]) with ordinality p (text, n))"
        " select o.n, array_agg(v.n) from v cross join o where {value} {operator} o.x group by o.n"
    ).format(
        left=sql.SQL(relation.left),
        right=sql.SQL(relation.right),
        value=collated(relation, sql.SQL("v.x")),
        operator=operator_of(relation),
    )


def collated(relation: Relation, value: sql.Composable) -> sql.Composed:
    """Have a value compared by the collation of its column."""
    if relation.collation is None:
        return sql.Composed([value])
    return sql.SQL("{} collate {}").format(value, sql.SQL(relation.collation))


def operator_of(relation: Relation) -> sql.Composed:
    """Write the operator of a relation, found under any search_path."""
    return sql.SQL("operator({}.{})").format(sql.Identifier(relation.schema), sql.SQL(relation.symbol))
