"""Filters on the columns of real tables: what matches is what matches in Postgres, for every type."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from tests.slow_pattern import ENDLESS, LETTERS

from backbeat.errors import BadRequest, Unavailable
from backbeat.postgres import evaluator as evaluator_module
from backbeat.postgres.evaluator import Evaluator
from backbeat.postgres.registrar import Prepared, Registrar
from backbeat.postgres.subscriptions import Subscription
from backbeat.protocol.bindings import Binding, parse_binding
from backbeat.protocol.filters import Comparison
from backbeat.tokens.claims import Claims

CLAIMS = Claims.of({"role": "authenticated", "exp": 2**31})
PUBLICATION = "supabase_realtime"


class Table:
    """A table with one column `c` beside its key, and filters on it."""

    def __init__(self, admin: psycopg.AsyncConnection[Any], url: str) -> None:
        self.admin = admin
        self.evaluator = Evaluator(url)
        self.unmade: set[Comparison] = set()
        self.registrar = Registrar(url, PUBLICATION)

    async def create(self, type_: LiteralString) -> None:
        await self.admin.execute(
            sql.SQL("create table things (id serial primary key, c {})").format(sql.SQL(type_))
        )
        await self.admin.execute("alter publication supabase_realtime add table things")

    async def prepare(self, *filters: str) -> list[Comparison]:
        """The comparisons for filters, one each."""
        entries: list[Binding] = [
            parse_binding({"table": "things", "filter": each}, n) for n, each in enumerate(filters)
        ]
        subscriptions, _ = await self.registrar.prepare("anna", entries, CLAIMS)
        return [subscription.comparisons[0] for subscription in subscriptions]

    async def refusal(self, filter_: str) -> str:
        with pytest.raises(BadRequest) as refused:
            await self.prepare(filter_)
        return refused.value.message

    async def matching(self, filter_: str, *values: str | None) -> list[str | None]:
        """Those values that a filter lets through."""
        (comparison,) = await self.prepare(filter_)
        pairs = [(comparison, None if value is None else value.encode()) for value in values]
        accepted = await self.decide(pairs)
        return [value for value, pair in zip(values, pairs, strict=True) if pair in accepted]

    async def decide(
        self, pairs: Sequence[tuple[Comparison, bytes | None]]
    ) -> set[tuple[Comparison, bytes | None]]:
        """The pairs that match, whoever has to tell."""
        asked: dict[Comparison, set[bytes | None]] = {}
        for comparison, value in pairs:
            if comparison.needs_database:
                asked.setdefault(comparison, set()).add(value)
        known = {(each, value) for each, value in pairs if not each.needs_database and each.accepts(value)}
        told, self.unmade = await self.evaluator.accepted(asked)
        return known | {(each, value) for each, those in told.items() for value in those}


@pytest.fixture
async def table(database_url: str, login_url: str) -> AsyncIterator[Table]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
        table = Table(admin, login_url)
        yield table
        await table.registrar.aclose()
        await table.evaluator.aclose()


# Every type against Postgres --------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    return text.split()


DICE = random.Random(42)  # noqa: S311 (no secret)

WORDS = [
    *words("a A b B ab aB a-b ä Ä z Z ß ss é résumé resume Resume 10 9 _ % \\ a\\ ' {} NULL 日本 🎸 , ( ."),
    *("", "a b", "ab ", " ab", "e\u0301", '"', "\ue000", "\t", "a\nb"),
]
INTEGERS = [0, 1, -1, 2, 9, 10, -10, 100, *(DICE.randint(-30000, 30000) for _ in range(8)), 32767, -32768]
BIG = [*INTEGERS, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
DECIMALS = [
    *words("0 -0 0.0 1 1.0 1.50 1.5 -1.5 10 9 1e20 100000000000000000000 1e-20 NaN Infinity -Infinity"),
    *("123456789012345678901234567890.123456789", *(str(DICE.uniform(-10, 10)) for _ in range(6))),
]
FLOATS = [*DECIMALS, *words("0.1 0.1000000001 1e-30 1.1754944e-38 3.4028235e38 1.1 16777217 16777216")]
DATES = [
    *words("2026-01-01 2026-01-02 0001-01-01 9999-12-31 10000-01-01 5874897-12-31 infinity -infinity"),
    *("0044-03-15 BC", "0044-03-16 BC", "4713-01-01 BC", "1999-12-31"),
]
TIMES = words("00:00:00 24:00:00 23:59:59.999999 12:00:00 12:00:00.1 12:00:00.01 12:00:01 09:00:00")
MOMENTS = [
    *("infinity", "-infinity", *(f"2026-01-01 {time}" for time in TIMES)),
    *(
        "2025-12-31 23:59:59.999999",
        "0001-01-01 00:00:00",
        "9999-12-31 23:59:59.999999",
        "10000-01-01 00:00:00",
    ),
    *(
        "294276-12-31 23:59:59",
        "0044-03-15 12:00:00 BC",
        "0044-03-15 12:00:00.5 BC",
        "0045-03-15 12:00:00 BC",
    ),
]
ADDRESSES = words("10.0.0.1 10.0.0.1/24 10.0.0.0/24 10.0.0.2 9.255.255.255 ::1 ::ffff:10.0.0.1 fe80::/10")
RANGES = ["empty", "[1,5)", "[1,4]", "(0,5)", "[1,)", "(,5)", "(,)", "[10,20)", "[9,20)"]

VALUES: dict[LiteralString, Sequence[object]] = {
    "boolean": ["t", "f"],
    "smallint": INTEGERS,
    "int": [*INTEGERS, 2**31 - 1, -(2**31)],
    "bigint": BIG,
    "real": FLOATS,
    "double precision": [*FLOATS, "1.7976931348623157e308", "5e-324", "0.30000000000000004", "0.3"],
    "numeric": DECIMALS,
    "numeric(10,3)": ["1", "1.5", "1.500", "-2", "NaN", "9999999.999"],
    "money": ["0", "1", "-1", "10.50", "9.50", "1000000"],
    "text": WORDS,
    'text collate "C"': WORDS,
    "text collate by_number": WORDS,
    "text collate blind": WORDS,
    "varchar(20)": WORDS,
    "varchar(20) collate by_number": WORDS,
    "char(9)": WORDS,
    "char(9) collate by_number": WORDS,
    "name": WORDS,
    '"char"': ["a", "b", "A", "", "\\351"],
    "bytea": ["\\x", "\\x00", "\\xff", "\\x00ff", "\\x00fe", "\\x7f", "\\x80", "\\x61", "\\x6162"],
    "uuid": [str(UUID(int=DICE.getrandbits(128))) for _ in range(8)],
    "date": DATES,
    "time": TIMES,
    "timetz": ["12:00:00+00", "13:00:00+01", "12:00:00-01", "24:00:00+00", "00:00:00+00", "11:59:59.5+00"],
    "timestamp": MOMENTS,
    "timestamptz": [f"{each[:-3]}+00 BC" if each.endswith(" BC") else each for each in MOMENTS],
    "interval": [
        "1 mon",
        "30 days",
        "720:00:00",
        "1 year",
        "365 days",
        "360 days",
        "-1 day",
        "0",
        "0.000001",
    ],
    "inet": ADDRESSES,
    "cidr": ["10.0.0.0/24", "10.0.0.0/8", "10.0.0.1/32", "::/0", "fe80::/10"],
    "macaddr": ["08:00:2b:01:02:03", "08:00:2b:01:02:04", "ff:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05", "08:00:2b:ff:fe:01:02:03", "ff:00:00:00:00:00:00:00"],
    "bit(4)": ["0000", "0001", "1000", "1111"],
    "bit varying": ["", "0", "00", "1", "10", "01", "111"],
    "jsonb": ["null", "1", "1.0", '"a"', "[]", "{}", "[1, 2]", '{"a": 1, "b": 2}', '{"b": 2, "a": 1.0}'],
    "json": ["1"],
    "point": ["(1,2)"],
    "line": ["{1,2,3}", "{2,4,6}", "{1,0,0}"],
    "lseg": ["[(0,0),(1,1)]", "[(0,0),(2,2)]", "[(1,1),(0,0)]"],
    "box": ["(1,1),(0,0)", "(2,2),(1,1)", "(3,3),(0,0)"],
    "path": ["[(0,0),(1,1)]", "((0,0),(1,1))", "[(0,0),(1,1),(2,2)]"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "circle": ["<(0,0),1>", "<(5,5),1>", "<(0,0),2>"],
    "tsvector": ["a b", "b a", "a", "a:1 b:2"],
    "tsquery": ["a & b", "b & a", "a"],
    "pg_lsn": ["0/0", "0/10", "0/9", "1/0", "A/0", "FFFFFFFF/0"],
    "oid": ["0", "1", "9", "10", "4294967295"],
    "xid": ["1", "9", "10"],
    "xid8": ["1", "9", "10", "18446744073709551615"],
    "tid": ["(0,1)", "(0,10)", "(0,9)", "(1,0)"],
    "regtype": ["integer", "text", "bigint"],
    "int4range": RANGES,
    "int8range": RANGES,
    "numrange": [*RANGES, "[1.0,5.0)", "[1.00,5)"],
    "daterange": ["empty", "[2026-01-01,2026-02-01)", "[2026-01-01,2026-01-31]", "[,2026-01-01)"],
    "tsrange": ["empty", "[2026-01-01 00:00,2026-02-01 00:00)", "(,)"],
    "tstzrange": ["empty", "[2026-01-01 00:00+01,2026-02-01 00:00+01)", "(,)"],
    "int4multirange": ["{}", "{[1,5)}", "{[1,3),[4,6)}", "{[1,3),[3,6)}", "{[1,6)}"],
    "int[]": ["{}", "{1}", "{1,2}", "{1,NULL}", "{10}", "{9}", "{{1,2},{3,4}}", "[0:1]={1,2}"],
    "text[]": ["{a,b}", '{"a,b"}', "{B,a}", "{}", "{NULL}", '{"NULL"}', "{ä}", '{"\\\\"}'],
    "numeric[]": ["{1.0}", "{1}", "{NaN}", "{}"],
    "box[]": ["{(1,1),(0,0);(2,2),(1,1)}", "{(1,1),(0,0)}"],
    "json[]": ["{1}"],
    "mood": ["sad", "fine", "amused"],
    "mood[]": ["{sad}", "{fine,sad}", "{amused}"],
    "pair": ["(1,a)", "(1,b)", "(2,a)", "(,a)", "(,)", '(10,"a,b")'],
    "odd_pair": ["(1,2)"],
    "posint": ["1", "2", "10", "9"],
    "word": WORDS,
    "textrange": ["[a,b)", "[A,b)", "[A,B)", "empty", "(,a]"],
    "citext": ["a", "A", "b", "B", "ä", "Ä", ""],
}

TYPES = (
    "create type mood as enum ('sad', 'fine', 'amused')",
    "create type pair as (a int, b text)",
    "create type odd_pair as (a int, b json)",
    "create domain posint as int check (value > 0)",
    "create domain word as varchar(40)",
    "create domain moods as mood",
    """create type textrange as range (subtype = text, collation = "C")""",
)

NOT_EVERYWHERE: dict[str, LiteralString] = {
    "blind": "create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "by_number": "create collation by_number (provider = icu, locale = 'und-u-kn')",
    "citext": "create extension citext schema public",
}
"""What some builds of Postgres lack."""

COMPARED = {
    "eq": "v.c = o.c",
    "neq": "not (v.c = o.c)",
    "lt": "v.c < o.c",
    "lte": "v.c <= o.c",
    "gt": "v.c > o.c",
    "gte": "v.c >= o.c",
    "isdistinct": "v.c is distinct from o.c",
    "in": "v.c in (o.c)",
}


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def written(operator: str, text: str, *, negated: bool) -> str:
    value = f"({quoted(text)})" if operator == "in" else quoted(text)
    return f"c={'not.' if negated else ''}{operator}.{value}"


async def make_types(table: Table, wanted: str) -> None:
    """Make types of the user's own."""
    for statement in TYPES:
        await table.admin.execute(statement)
    for name, statement in NOT_EVERYWHERE.items():
        if name in wanted:
            try:
                await table.admin.execute(statement)
            except psycopg.errors.FeatureNotSupported:
                pytest.skip(f"this Postgres has no {name}")


async def rows(table: Table, values: Sequence[object]) -> list[bytes | None]:
    """Keep values and NULL in the table, and tell their texts as the stream writes them."""
    for value in [*values, None]:
        await table.admin.execute("insert into things (c) values (%s)", (value,))
    for setting, value in (("timezone", "UTC"), ("datestyle", "ISO"), ("extra_float_digits", "3")):
        await table.admin.execute("select set_config(%s, %s, false)", (setting, value))
    cursor = await table.admin.execute(
        "select case when num_nulls(c) = 0 then format('%s', c) end from things order by id"
    )
    return [None if text is None else text.encode() for (text,) in await cursor.fetchall()]


async def places(
    table: Table, texts: Sequence[bytes | None], compared: Sequence[Comparison]
) -> set[tuple[int, int]]:
    """Which texts match which comparisons, both counted from one."""
    pairs = {
        (v, o): (comparison, text)
        for v, text in enumerate(texts, 1)
        for o, comparison in enumerate(compared, 1)
    }
    accepted = await table.decide(list(pairs.values()))
    return {place for place, pair in pairs.items() if pair in accepted}


@pytest.mark.parametrize("type_", VALUES)
async def test_every_comparison_is_that_of_postgres(table: Table, type_: LiteralString) -> None:
    """For all pairs of values, every operator, negated or not; and what Postgres cannot do is refused."""
    await make_types(table, type_)
    await table.create(type_)
    texts = await rows(table, VALUES[type_])
    count = len(texts)
    for operator, expression in COMPARED.items():
        statement = f"select v.id, o.id, {expression} from things v, things o where num_nulls(o.c) = 0"
        try:
            found = await (await table.admin.execute(statement.encode())).fetchall()
        except psycopg.errors.UndefinedFunction:
            value = texts[0]
            assert value is not None
            assert "ERROR 42883" in await table.refusal(written(operator, value.decode(), negated=False))
            continue
        for negated in (False, True):
            expected = {(v, o) for v, o, holds in found if holds is not None and holds is not negated}
            operands = [text.decode() for text in texts if text is not None]
            compared = await table.prepare(*(written(operator, each, negated=negated) for each in operands))
            assert await places(table, texts, compared) == expected, (operator, negated, count)


PATTERNS = [
    "",
    "%",
    "a%",
    "%b",
    "_",
    "__",
    "A_",
    "%\\_%",
    "\\%",
    "a.b",
    "^a",
    "b$",
    "[a-z]",
    "ä",
    "(a|b)",
    "\\s",
    ".*",
    "ß",
]

MATCHED = {"like": "c like p", "ilike": "c ilike p", "match": "c ~ p", "imatch": "c ~* p"}


@pytest.mark.parametrize(
    "type_",
    [
        "text",
        'text collate "C"',
        "text collate by_number",
        "varchar(20)",
        "char(9)",
        "name",
        "word",
        "citext",
    ],
)
async def test_every_match_is_that_of_postgres(table: Table, type_: LiteralString) -> None:
    """Patterns of LIKE and regular expressions, on each type that has texts."""
    await make_types(table, type_)
    await table.create(type_)
    texts = await rows(table, WORDS)
    for operator, expression in MATCHED.items():
        statement = f"select id, n, {expression} from things, unnest(%s::text[]) with ordinality o (p, n)"
        found = await (await table.admin.execute(statement.encode(), (PATTERNS,))).fetchall()
        for negated in (False, True):
            expected = {(v, o) for v, o, holds in found if holds is not None and holds is not negated}
            compared = await table.prepare(*(written(operator, each, negated=negated) for each in PATTERNS))
            assert await places(table, texts, compared) == expected, (operator, negated)


@pytest.mark.parametrize(
    ("type_", "filter_", "values", "matching"),
    [
        ("bytea", "c=like.a%", ["\\x61", "\\x6162", "\\x62", None], ["\\x61", "\\x6162"]),
        ("moods", "c=eq.fine", ["fine", "sad", None], ["fine"]),
        ("moods", "c=gt.sad", ["fine", "sad", None], ["fine"]),
        ("jsonb", "c=in.(1,2)", ["1.0", "2", "3", None], ["1.0", "2"]),
        ("jsonb", "c=not.in.(1,2)", ["1.0", "2", "3", None], ["3"]),
        ("jsonb", "c=in.(1,NULL)", ["1.0", "3", None], ["1.0"]),
        ("jsonb", "c=not.in.(1,NULL)", ["1.0", "3", None], []),
        ("jsonb", "c=in.()", ["1", None], []),
        ("jsonb", "c=is.null", ["null", None], [None]),
        ("jsonb", "c=isdistinct.1", ["1.0", "2", None], ["2", None]),
        ("jsonb", "c=not.isdistinct.1", ["1.0", "2", None], ["1.0"]),
    ],
)
async def test_lists_nulls_and_domains(
    table: Table, type_: LiteralString, filter_: str, values: list[str | None], matching: list[str | None]
) -> None:
    """NULL in a list leaves open what is outside of it; a domain over an enum compares as the enum."""
    await make_types(table, type_)
    await table.create(type_)
    assert await table.matching(filter_, *values) == matching


# What is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "filter_", "expected"),
    [
        (
            "int",
            "like.1",
            "P0001 (raise_exception) operator like requires a text-compatible column type, got integer",
        ),
        ("bytea", "match.a", "operator match requires a text-compatible column type, got bytea"),
        ("bytea", "ilike.a", "operator ilike requires a text-compatible column type, got bytea"),
        ("polygon", "match.a", "operator match requires a text-compatible column type, got polygon"),
        (
            "text",
            "match.(",
            "P0001 (raise_exception) invalid regular expression for match filter: invalid regular",
        ),
        (
            "text",
            "imatch.[",
            "invalid regular expression for imatch filter: invalid regular expression: brackets",
        ),
        ("text", "like.a\\", "ERROR 22025 (invalid_escape_sequence) LIKE pattern must not end with escape"),
        ("text", "ilike.a\\\\\\", "LIKE pattern must not end with escape character"),
        ("bytea", "like.a\\\\", "LIKE pattern must not end with escape character"),
        ("json", "eq.1", "ERROR 42883 (undefined_function) operator does not exist: json = json"),
        ("json[]", "in.({1},{2})", "operator does not exist: json[] = json[]"),
        ("xid", "lt.1", "operator does not exist: xid < xid"),
        ("date", "gt.soon", 'invalid input syntax for type date: "soon"'),
        ("posint", "lt.0", "ERROR 23514 (check_violation)"),
        ("mood", "gt.angry", "invalid input value for enum"),
    ],
)
async def test_what_a_type_lacks_or_cannot_read_is_refused(
    table: Table, type_: LiteralString, filter_: str, expected: str
) -> None:
    """When somebody subscribes, and never when a row arrives."""
    await make_types(table, type_)
    await table.create(type_)
    assert expected in await table.refusal(f"c={filter_}")


async def test_values_are_read_in_the_role_of_the_subscriber(table: Table) -> None:
    """What reads them may be a function of somebody who wants to know what the server may do."""
    await table.admin.execute(
        "create function mine(int) returns bool language sql as $$ select current_user = 'authenticated' $$"
    )
    await table.admin.execute("create domain mine as int check (mine(value))")
    await table.create("mine")
    assert await table.matching("c=eq.5", "5", "6") == ["5"]


# When something goes wrong ----------------------------------------------------------------------------------


async def test_a_pattern_that_takes_too_long_holds_up_nobody_else(table: Table) -> None:
    """It matches nothing, negated or not; the others get their answers."""
    await table.create("text")
    compared = await table.prepare(
        *(f"c={each}" for each in (f"match.{ENDLESS}", f"not.match.{ENDLESS}", "match.a"))
    )
    accepted = await table.decide([(each, LETTERS.encode()) for each in compared])
    assert (accepted, table.unmade) == ({(compared[2], LETTERS.encode())}, set(compared[:2]))


async def test_a_pattern_that_took_too_long_is_left_out_for_a_while(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not cost its time again with the next change."""
    await table.create("text")
    (endless,) = await table.prepare(f"c=match.{ENDLESS}")
    await table.decide([(endless, LETTERS.encode())])
    # Without a limit, a second attempt would not end.
    monkeypatch.setattr(evaluator_module, "PATIENCE", (0, 0))
    assert await table.decide([(endless, LETTERS.encode())]) == set()


async def test_a_value_that_is_no_longer_of_the_type_matches_nothing(table: Table) -> None:
    """Somebody has altered the column since; whoever looks at another column goes on."""
    await table.create("inet")
    compared = await table.prepare("c=lt.10.0.0.1", "c=not.gt.10.0.0.1")
    assert await table.decide([(each, b"no address") for each in compared]) == set()


async def test_the_evaluator_makes_a_new_connection(table: Table) -> None:
    """Whoever asks is told that the old one is lost, and asks again."""
    await table.create("jsonb")
    (compared,) = await table.prepare("c=eq.1")
    await table.decide([(compared, b"1.0")])
    await table.admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'backbeat filters'"
    )
    with pytest.raises(psycopg.OperationalError):
        await table.decide([(compared, b"1.0")])
    assert await table.decide([(compared, b"1.0")]) == {(compared, b"1.0")}


# Many at once -----------------------------------------------------------------------------------------------


class Statements:
    """Counts what is sent to Postgres."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        execute = psycopg.AsyncConnection.execute

        async def counted(connection: psycopg.AsyncConnection[Any], *args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return await execute(connection, *args, **kwargs)

        monkeypatch.setattr(psycopg.AsyncConnection, "execute", counted)


def entry(number: object) -> list[Binding]:
    return [parse_binding({"table": "things", "filter": f"c=eq.{number}"}, 1)]


async def test_those_who_subscribe_together_are_looked_up_together(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, and whatever values they filter by: the first one, and all others at once."""
    await table.create("int")
    await table.registrar.prepare("first", entry(0), CLAIMS)
    statements = Statements(monkeypatch)
    await table.registrar.prepare("second", entry(0), CLAIMS)
    alone, statements.count = statements.count, 0
    prepared = await asyncio.gather(*(table.registrar.prepare(n, entry(n), CLAIMS) for n in range(1000)))
    assert [_wanted(each) for each, _ in prepared] == [str(n).encode() for n in range(1000)]
    assert statements.count == 2 * alone


async def test_one_who_asks_for_nonsense_spoils_nothing_for_the_others(table: Table) -> None:
    """Who came at the same time is not to blame."""
    await table.create("int")
    wanted = [*range(20), "nonsense", *range(20, 40)]
    prepared = await asyncio.gather(
        *(table.registrar.prepare(n, entry(n), CLAIMS) for n in wanted), return_exceptions=True
    )
    refused = [n for n, outcome in zip(wanted, prepared, strict=True) if isinstance(outcome, BadRequest)]
    assert (refused, sum(isinstance(each, Prepared) for each in prepared)) == (["nonsense"], 40)


async def test_those_who_subscribe_together_have_their_own_roles(table: Table) -> None:
    """What one role may read, another may not."""
    await table.create("int")
    await table.admin.execute("revoke select on things from anon")
    anon = Claims.of({"role": "anon", "exp": 2**31})
    prepared = await asyncio.gather(
        *(table.registrar.prepare(who.role, entry(1), who) for who in (CLAIMS, anon)), return_exceptions=True
    )
    assert [isinstance(each, Prepared) for each in prepared] == [True, False]


async def test_whoever_gives_up_leaves_the_others_waiting_for_nothing(table: Table) -> None:
    """Also when it was the one who looked things up for all."""
    await table.create("int")
    attempts = [asyncio.create_task(table.registrar.prepare(n, entry(n), CLAIMS)) for n in range(3)]
    await asyncio.sleep(0)
    attempts[0].cancel()
    prepared = await asyncio.gather(*attempts, return_exceptions=True)
    assert [isinstance(each, Prepared) for each in prepared] == [False, True, True]


async def test_everybody_is_told_that_the_database_is_away() -> None:
    """Each with a refusal of their own."""
    registrar = Registrar("postgresql://127.0.0.1:1/none", PUBLICATION)
    prepared = await asyncio.gather(
        *(registrar.prepare(n, entry(n), CLAIMS) for n in range(3)), return_exceptions=True
    )
    assert all(isinstance(each, Unavailable) for each in prepared)
    assert len({id(each) for each in prepared}) == 3


def _wanted(subscriptions: list[Subscription]) -> object:
    return subscriptions[0].comparisons[0].wanted
