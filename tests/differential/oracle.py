"""What each subscriber could have seen: a plain SELECT says it, after each commit, as each of them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import tuple_row
from tests.differential.script import ROLES, Filter, Subscribe, Table, ident, literal

from backbeat.tokens.claims import Claims

__all__ = [
    "Event",
    "Frame",
    "Oracle",
    "Reach",
    "State",
    "by_key",
    "expected",
    "key_of",
    "lives",
    "may_show",
    "read",
]

Row: TypeAlias = dict[str, Any]
Frame: TypeAlias = tuple[tuple[int, ...], dict[str, Any]]
"""Ids and data of a delivery, as a client reads them; without the time."""

_TYPE_NAMES = {
    "int": "int4",
    "bigint": "int8",
    "varchar(9)": "varchar",
    "char(4)": "bpchar",
    "boolean": "bool",
    "int4[]": "_int4",
}


def read(text: str) -> Any:
    """Read JSON; fractions become texts behind a mark, for 1.0 is not 1.00."""
    return json.loads(text, parse_float="#{}".format)


def _write(value: Any) -> str:
    """Write what was read."""
    return re.sub(r'"#([-+.e0-9]+)"', r"\1", json.dumps(value))


def key_of(table: Table, row: Row) -> str:
    return json.dumps([row[name] for name in table.key])


@dataclass(frozen=True, slots=True)
class Reach:
    """What a role may read of a table."""

    readable: frozenset[str]
    row_security: bool
    open: bool
    """Whether every row is everybody's: without row security, or with policies that are literally true."""

    def key_readable(self, table: Table) -> bool:
        return self.readable.issuperset(table.key)


@dataclass(slots=True)
class State:
    """What there is to see between two commits."""

    reach: dict[tuple[str, str], Reach]
    """By table and role."""
    defined: bool
    """Whether definitions were changed by the commit before."""
    visible: dict[tuple[Claims, str], dict[str, Row]] = field(default_factory=dict)
    """Rows by key, with the columns that may be read."""
    broken: set[tuple[Claims, str]] = field(default_factory=set)
    """Who gets an error from which table, whichever rows could be read one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """What a commit did to a row, as triggers noted it."""

    commit: int
    table: Table
    kind: str
    full: bool
    """Whether the old row comes along."""
    old: Row | None
    new: Row | None
    matches: frozenset[Filter]


class Oracle:
    """Asks what can be seen, as the login of the server.

    Args:
        admin: a superuser's connection, to read what was written.
        login: the server's own login, to become others.
        tables: those of the publication.
        filters: all there will be.
    """

    def __init__(
        self,
        admin: psycopg.AsyncConnection[Any],
        login: psycopg.AsyncConnection[Any],
        tables: Mapping[str, Table],
        filters: Iterable[Filter],
    ) -> None:
        self._admin = admin
        self._login = login
        self._tables = tables
        self._filters: dict[str, list[Filter]] = {name: [] for name in tables}
        for each in dict.fromkeys(filters):
            self._filters[each.table].append(each)
        self._reach: dict[tuple[str, str], Reach] = {}

    async def events(self, xid: str, commit: int) -> list[Event]:
        """Read what a transaction wrote, in order."""
        found: list[tuple[int, Event]] = []
        for table in self._tables.values():
            filters = self._filters[table.name]
            columns = ", ".join(f"coalesce(({each.sql}), false)" for each in filters)
            cursor = await self._admin.execute(
                f"select w.seq, w.kind, w.identity, w.old::text, w.new::text, array[{columns}]::boolean[]"
                f" from written w, jsonb_populate_record(null::{table.sql}, coalesce(w.new, w.old)) r"
                f" where w.xid = {literal(xid)}::xid8 and w.tab = {literal(table.name)}".encode()
            )
            for seq, kind, identity, old, new, matching in await cursor.fetchall():
                full = identity == "f"
                matches = frozenset(
                    each
                    for each, holds in zip(filters, matching, strict=True)
                    if holds and (kind != "DELETE" or full or {*each.columns} <= {*table.key})
                )
                before, after = (None if row is None else read(row) for row in (old, new))
                found.append((seq, Event(commit, table, kind, full, before, after, matches)))
        return _as_left([event for _, event in sorted(found, key=lambda each: each[0])])

    async def state(self, viewers: Collection[Claims], touched: Iterable[Event], *, defined: bool) -> State:
        """See what there is to see now.

        Args:
            viewers: as whom.
            touched: the changes whose rows are looked at one by one, where a whole table cannot be read.
            defined: whether definitions may have changed.
        """
        if defined or not self._reach:
            self._reach = await self._read_reach()
        state = State(self._reach, defined)
        await self.look(state, viewers, touched)
        return state

    async def look(self, state: State, viewers: Collection[Claims], touched: Iterable[Event]) -> None:
        """Add what some viewers see now."""
        viewers = list(dict.fromkeys(viewers))
        asked = [(claims, table) for claims in viewers for table in self._tables.values()]
        asked = [pair for pair in asked if self._select(*pair) is not None]
        for claims, table in ((claims, table) for claims in viewers for table in self._tables.values()):
            state.visible[claims, table.name] = {}
        try:
            results = await self._ask(
                [(claims, self._select(*pair)) for pair in asked for claims in pair[:1]]
            )
            for (claims, table), rows in zip(asked, results, strict=True):
                state.visible[claims, table.name] = {key_of(table, row): row for row in rows}
        except psycopg.Error:
            for claims, table in asked:
                await self._look_closer(state, claims, table, touched)

    async def _look_closer(
        self, state: State, claims: Claims, table: Table, touched: Iterable[Event]
    ) -> None:
        statement = self._select(claims, table)
        visible = state.visible[claims, table.name]
        try:
            (rows,) = await self._ask([(claims, statement)])
        except psycopg.Error:
            state.broken.add((claims, table.name))
        else:
            visible |= {key_of(table, row): row for row in rows}
            return
        keys = {key_of(table, e.new): e.new for e in touched if e.table is table and e.new is not None}
        for row in keys.values():
            place = " and ".join(
                f"t.{ident(name)} = (jsonb_populate_record(null::{table.sql},"
                f" {literal(_write({name: row[name]}))})).{ident(name)}"
                for name in table.key
            )
            try:
                (rows,) = await self._ask([(claims, f"{statement} where {place}")])
                visible |= {key_of(table, each): each for each in rows}
            except psycopg.Error:
                continue

    def _select(self, claims: Claims, table: Table) -> str | None:
        reach = self._reach.get((table.name, claims.role))
        if reach is None or not reach.key_readable(table):
            return None
        columns = ", ".join(
            f"{literal(name)}, t.{ident(name)}" for name in table.columns if name in reach.readable
        )
        return f"select jsonb_build_object({columns})::text from {table.sql} t"

    async def _ask(self, statements: list[tuple[Claims, str | None]]) -> list[list[Row]]:
        """Run each statement as somebody, in a transaction of its own, in one round trip."""
        if not statements:
            return []
        parts = [
            f"begin; select set_config('role', {literal(who.role)}, true),"
            f" set_config('request.jwt.claims', {literal(who.json)}, true),"
            f" set_config('request.jwt.claim.sub', {literal(who.sub)}, true),"
            f" set_config('request.jwt.claim.role', {literal(who.role)}, true); {statement}; rollback"
            for who, statement in statements
        ]
        results: list[list[Row]] = []
        async with self._login.cursor(row_factory=tuple_row) as cursor:
            try:
                await cursor.execute(";".join(parts).encode())
            except psycopg.Error:
                await self._login.rollback()
                raise
            at = 0
            while True:
                if at % 4 == 2:
                    results.append([read(text) for (text,) in await cursor.fetchall()])
                at += 1
                if not cursor.nextset():
                    return results

    async def _read_reach(self) -> dict[tuple[str, str], Reach]:
        """Read the catalogue, for what a plain SELECT does not tell."""
        cursor = await self._admin.execute(
            """
            select c.relname, r.rolname, c.relrowsecurity,
              not c.relrowsecurity or r.rolbypassrls or (
                exists (select from pg_policies p where p.policyname = any(mine.names)
                  and p.tablename = c.relname and p.permissive = 'PERMISSIVE' and p.qual = 'true')
                and not exists (select from pg_policies p where p.policyname = any(mine.names)
                  and p.tablename = c.relname and p.permissive = 'RESTRICTIVE' and p.qual <> 'true')
              ),
              array(
                select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0
                  and has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')
              )
            from pg_class c cross join pg_roles r cross join lateral (
              select array_agg(p.polname) from pg_policy p
              where p.polrelid = c.oid and p.polcmd in ('r', '*') and exists (
                select from unnest(p.polroles) t (to_role) where t.to_role = 0
                  or pg_has_role(r.oid, t.to_role, 'USAGE'))
            ) mine (names)
            where c.relnamespace = 'public'::regnamespace and c.relname = any(%s) and r.rolname = any(%s)
            """,
            (list(self._tables), list(ROLES)),
        )
        return {
            (table, role): Reach(frozenset(readable), row_security, bool(open_))
            for table, role, row_security, open_, readable in await cursor.fetchall()
        }


def _as_left(events: list[Event]) -> list[Event]:
    """Have what a transaction inserted look as it left it: before that, nobody could see it."""
    inserted: dict[tuple[str, str], int] = {}
    for place, event in enumerate(events):
        if event.old is not None:
            first = inserted.pop((event.table.name, key_of(event.table, event.old)), None)
            if first is not None and event.new is not None:
                events[first] = replace(events[first], new=event.new, matches=event.matches)
                inserted[event.table.name, key_of(event.table, event.new)] = first
        elif event.new is not None:
            inserted[event.table.name, key_of(event.table, event.new)] = place
    return events


# What follows from it ---------------------------------------------------------------------------------------


def expected(event: Event, sub: Subscribe, state: State) -> Frame | None:
    """Write what somebody would be sent of a change were it theirs to see; None if they do not want it."""
    table, reach = event.table, state.reach[event.table.name, sub.claims.role]
    ids = tuple(
        number
        for number, want in reversed(list(enumerate(sub.wants, 1)))
        if want.event in ("*", event.kind)
        and want.table in (None, table.name)
        and (want.filter is None or want.filter in event.matches)
    )
    if not ids:
        return None
    data: dict[str, Any] = {"schema": "public", "table": table.name, "type": event.kind, "columns": []}
    if not reach.key_readable(table):
        data |= {"errors": ["Error 401: Unauthorized"]}
        data |= {"record": {}} if event.kind != "DELETE" else {}
        data |= {"old_record": {}} if event.kind != "INSERT" else {}
        return ids, data
    shown = _shown(table, reach, sub)
    data["columns"] = [{"name": n, "type": _TYPE_NAMES.get(kind := table.columns[n], kind)} for n in shown]
    data["errors"] = None
    if event.new is not None:
        data["record"] = _written(table, event.new, shown)
    if event.old is not None:
        whole = event.full and (reach.open if event.kind == "UPDATE" else not reach.row_security)
        names = shown if whole else [name for name in shown if name in table.key]
        data["old_record"] = _written(table, event.old, names)
    return ids, data


def by_key(event: Event, frame: Frame) -> Frame:
    """Write the same with nothing but the key of the old row."""
    ids, data = frame
    if data["errors"] is not None or "old_record" not in data:
        return frame
    old = {name: value for name, value in data["old_record"].items() if name in event.table.key}
    return ids, data | {"old_record": old}


def _shown(table: Table, reach: Reach, sub: Subscribe) -> list[str]:
    select = sub.wants[0].select
    return [
        name
        for name in table.columns
        if name in reach.readable and (select is None or name in select or name in table.key)
    ]


def _written(table: Table, row: Row, names: Collection[str]) -> Row:
    """Write a row as clients get it: a number that JSON does not have is null."""
    numbers = {name for name in names if table.columns[name] in ("numeric", "float8")}
    return {name: None if name in numbers and row[name] == "NaN" else row[name] for name in names}


def may_show(event: Event, sub: Subscribe, frame: Frame, states: Mapping[int, State], until: range) -> bool:
    """Tell whether somebody could have selected what a frame shows.

    Args:
        event: what happened.
        sub: whom the frame was sent to.
        frame: what it says.
        states: by number of commits, from the one before the event.
        until: the numbers of those since the event, up to the delivery.
    """
    _, data = frame
    if data["errors"] is not None:
        return any(
            not states[n].reach[event.table.name, sub.claims.role].key_readable(event.table) for n in until
        )
    pair = event.table.name, sub.claims.role
    old = set(data.get("old_record", ())) - {*event.table.key}
    if old:
        moments = [states[n].reach[pair] for n in (event.commit - 1, event.commit) if n in states]
        if not any((each.open or not each.row_security) and old <= each.readable for each in moments):
            return False
    if event.new is None:
        return True
    shown = set(data["record"])
    if any(lives(event, sub.claims, states[n], shown) for n in until):
        return True
    # What the transaction itself wrote over again was never visible, unless everything in the table is.
    first = states[event.commit].reach[pair]
    return first.open and shown <= first.readable


def lives(event: Event, claims: Claims, state: State, shown: Collection[str]) -> bool:
    """Tell whether somebody sees the row as the event left it, as far as it is shown."""
    assert event.new is not None
    row = state.visible.get((claims, event.table.name), {}).get(key_of(event.table, event.new))
    return row is not None and all(name in row and row[name] == event.new[name] for name in shown)
