"""The JSON of a value against Postgres' own: every built-in type, and what can be made of it.

`make values CASES=10000` tries more of them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from itertools import cycle, islice
from random import Random
from typing import Any, Final, NamedTuple, TypeAlias

import psycopg
import pytest
from psycopg import sql
from tests.clusters import FLAVOURS, debian
from tests.literals import array, awkward, composite, randomly

from backbeat.postgres import walsender
from backbeat.postgres.catalogue import load_types
from backbeat.postgres.values import encoder

SEED: Final = int(os.environ.get("BACKBEAT_SEED", "1"))
CASES: Final = int(os.environ.get("BACKBEAT_CASES", "40"))
"""How many rows there are of each type; more where it reads more of the texts at the edges."""

Connection: TypeAlias = psycopg.AsyncConnection[Any]

OWN: Final = {
    "mood": "create type mood as enum ('fine', 'so so', '', 'a,b', '\"', '\\', '{}', '(', 'NULL', 'é🎸')",
    "textrange": "create type textrange as range (subtype = text, multirange_type_name = textranges)",
    "textranges": "",
    "pair": 'create type pair as (a int, "b c" text)',
    "mail": "create domain mail as text check (length(value) < 400)",
    "padded": "create domain padded as char(400)",
    "very_mail": "create domain very_mail as mail",
    "remains": "create table remains (id int8, gone int, list text[]); alter table remains drop column gone",
    "nothing": "create type nothing as ()",
}
"""Types of the user's own."""

TYPES: Final = """
    select t.oid::int8, format('%%I.%%I', n.nspname, t.typname), t.typdelim::text, t.typarray <> 0
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where t.oid < 16384 and t.typtype in ('b', 'r', 'm', 'd', 'e')
      and (t.typelem = 0 or t.typoutput <> 'array_out'::regproc)
      or t.oid = any(%s::regtype[])
    order by t.oid
"""

ACCEPTED: Final = """
create function pg_temp.accepted(type text, texts text[]) returns text[] language plpgsql as $$
declare
  each text;
  found text[] := '{}';
  refused bool := false;
begin
  foreach each in array texts loop
    begin
      execute format('select cast($1 as %s)', type) using each;
      found := found || each;
    exception
      when feature_not_supported then refused := true;
      when others then null;
    end;
  end loop;
  return case when found <> '{}' or not refused then found end;
end $$
"""


class Type(NamedTuple):
    """A type under test, and what is made of it."""

    oid: int
    name: str
    delimiter: str
    has_array: bool

    @property
    def table(self) -> str:
        return f"t{self.oid}"

    @property
    def columns(self) -> dict[str, str]:
        """The columns of its table, and their types as SQL writes them."""
        number, many = self.oid, f"{self.name}[]" if self.has_array else self.name
        return {
            "plain": self.name,
            "domain": f"d{number}",
            "many": many,
            "domain_of_many": f"m{number}",
            "many_domains": f"d{number}[]",
            "row": f"c{number}",
            "rows": f"c{number}[]",
            "nested": f"n{number}",
        }

    @property
    def definitions(self) -> list[str]:
        """What makes its table, and all that is needed for it."""
        number, name, many = self.oid, self.name, self.columns["many"]
        columns = ", ".join(f"{column} {type_}" for column, type_ in self.columns.items())
        return [
            f"create domain d{number} as {name}",
            f"create domain m{number} as {many}",
            f'create type c{number} as (x {name}, "many "" é" {many}, d d{number}, t text)',
            f"create type n{number} as (r c{number}, l c{number}[], b bool)",
            f"create table {self.table} ({columns})",
        ]

    def row(self, dice: Random, values: list[str | None], plain: str) -> list[str | None]:
        """A value for each column."""

        def some() -> str | None:
            return dice.choice(values)

        def many() -> str | None:
            return array(dice, values, self.delimiter) if self.has_array else some()

        def one_row() -> str:
            return composite([some(), many(), some(), dice.choice(["", "a b", '"', "NULL", None])])

        def rows() -> str:
            return array(dice, [one_row(), None, one_row()], ",")

        nested = composite([one_row(), rows(), dice.choice(["t", "f", None])])
        domains = array(dice, values, self.delimiter)
        return [plain, some(), many(), many(), domains, one_row(), rows(), nested]


@pytest.fixture(params=FLAVOURS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of each Postgres there is."""
    if request.param == "embedded":
        yield request.getfixturevalue("database_url")
    else:
        with debian() as url:
            yield url


@pytest.fixture
async def db(url: str) -> AsyncIterator[Connection]:
    """A session that writes values as the stream does."""
    options = walsender._SETTINGS
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, options=options) as connection:
        yield connection


async def make_types(db: Connection) -> list[Type]:
    """Every type a column can have, but for arrays and for rows of the catalogue; and some of our own."""
    for statement in OWN.values():
        await db.execute(statement.encode())
    cursor = await db.execute(TYPES, (list(OWN),))
    types = [Type(*row) for row in await cursor.fetchall()]
    async with db.transaction():
        for type_ in types:
            for statement in type_.definitions:
                await db.execute(statement.encode())
    await db.execute(ACCEPTED)
    return types


async def accepted(db: Connection, type_: Type, texts: list[str]) -> list[str] | None:
    """Those of some texts that are values of a type; None where it reads no texts by design."""
    cursor = await db.execute("select pg_temp.accepted(%s, %s)", (type_.name, texts))
    row = await cursor.fetchone()
    assert row is not None
    found: list[str] | None = row[0]
    return found


async def fill(db: Connection, type_: Type, dice: Random, values: list[str]) -> None:
    """Write each value alone, and some rows full of values."""
    rows = [type_.row(dice, [*values, None], plain) for plain in islice(cycle(values), CASES)]
    rows += [[plain] + [None] * (len(type_.columns) - 1) for plain in values[CASES:]]
    statement = sql.SQL("insert into {} values ({})").format(
        sql.Identifier(type_.table), sql.SQL(", ").join([sql.Placeholder()] * len(type_.columns))
    )
    async with db.cursor() as cursor:
        await cursor.executemany(statement, rows)


async def written(db: Connection, type_: Type) -> list[tuple[str, int, list[tuple[bytes, bytes]]]]:
    """Each column, its type, and its values: as the stream writes them, and as `to_jsonb` does."""
    names = [sql.Identifier(name) for name in type_.columns]
    pairs = [part for name in names for part in (name, sql.SQL("to_jsonb({})::text").format(name))]
    query = sql.SQL("select {} from {}").format(sql.SQL(", ").join(pairs), sql.Identifier(type_.table))
    result = (await db.execute(query)).pgresult
    assert result is not None
    found = []
    for number, name in enumerate(type_.columns):
        rows = [
            (result.get_value(n, 2 * number), result.get_value(n, 2 * number + 1))
            for n in range(result.ntuples)
        ]
        values = [(text, wanted) for text, wanted in rows if text is not None and wanted is not None]
        found.append((name, result.ftype(2 * number), values))
    return found


INT8, BYTEA, OID, JSON, FLOAT4, FLOAT8, NUMERIC = 20, 17, 26, 114, 700, 701, 1700


def excepted(type_: Type, wanted: bytes) -> bytes:
    """What `to_jsonb` says of the value of a column, but for the three exceptions."""
    if type_.oid == OID:
        return wanted.strip(b'"')
    if type_.oid == BYTEA:
        return wanted.replace(rb"\\x", b"", 1)
    if type_.oid in (FLOAT4, FLOAT8, NUMERIC) and wanted.startswith(b'"'):
        return b"null"
    return wanted


def parsed(text: bytes, number: Callable[[str], object]) -> object:
    return json.loads(text, parse_float=number, parse_int=number)


def squeezed(text: bytes) -> bytes:
    """JSON without the blanks between its tokens."""
    return re.sub(rb'("(?:[^"\\]|\\.)*")|[ \n\r\t]+', rb"\1", text)


def same(type_: Type, column: str, got: bytes, wanted: bytes) -> bool:
    """Compare sign by sign; what jsonb puts in order, digit by digit; and the texts of `json` as values."""
    if type_.oid == JSON:
        return parsed(got, Decimal) == parsed(wanted, Decimal)
    if column in ("row", "rows", "nested") or type_.name in ("public.pair", "public.remains"):
        return parsed(got, "#{}".format) == parsed(wanted, "#{}".format)
    return squeezed(got) == squeezed(wanted)


async def test_every_value_is_that_of_postgres(db: Connection) -> None:
    """Alone, in arrays, domains and composites, and those in one another; with big numbers as text, too."""
    dice = Random(SEED)  # noqa: S311 (no secret)
    types = await make_types(db)
    known = await load_types(db)
    texts = list(dict.fromkeys([*awkward(), *randomly(dice, CASES * 10)]))
    untried, differences = [], []
    for type_ in types:
        values = await accepted(db, type_, texts)
        if values == []:
            untried.append(type_.name)
        if not values:
            continue
        await fill(db, type_, dice, values)
        for column, oid, pairs in await written(db, type_):
            encode, encode_as_text = encoder(oid, known), encoder(oid, known, "text")
            for text, wanted in pairs:
                here = excepted(type_, wanted) if column in ("plain", "domain") else wanted
                got = encode(text)
                if not same(type_, column, got, here):
                    differences.append((type_.columns[column], text, got, here))
                if type_.oid in (INT8, NUMERIC):
                    got = encode_as_text(text)
                    if parsed(got, int) != parsed(wanted, str):
                        differences.append((type_.columns[column], text, got, wanted))
    assert not differences, f"seed {SEED}: {len(differences)}, the first of them {differences[:20]}"
    assert not untried, "no text of tests/literals.py is a value of these"
