"""Queries as SQL: what stands in a statement, and above all what does not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.local.rest import statement
from backbeat.local.rest.catalogue import Column, Function, Relation, Type
from backbeat.local.rest.errors import RestError
from backbeat.local.rest.grammar import parse
from backbeat.local.rest.payload import Arguments, read_row, read_rows
from backbeat.local.rest.preferences import Preferences
from backbeat.local.rest.query import (
    OPERATORS,
    SEARCHES,
    Arrow,
    Condition,
    Field,
    Item,
    Order,
    Query,
    Tree,
)
from backbeat.local.rest.statement import Statement

INT = Type("pg_catalog", "int4")
TEXT = Type("pg_catalog", "text")
ITEMS = Relation(
    "public",
    "items",
    {"id": Column("id", INT, "nextval('items_id_seq')", key=True), "name": Column("name", TEXT)},
)
SHOWN = Preferences(returned="representation")
BARE = Preferences()


def text(made: Statement) -> str:
    """The statement as PostgreSQL would be sent it."""
    return made.text.as_string()


def where(key: str, value: str) -> tuple[str, list[object]]:
    """The condition of a delete with one parameter, and the values in it."""
    made = statement.delete(ITEMS, parse([(key, value)]), BARE, single=False)
    return text(made).partition(" where ")[2].replace('"public"."items".', ""), [*made.values.values()]


@pytest.mark.parametrize(
    ("key", "value", "expected", "values"),
    [
        ("id", "eq.1", '("id" = %(p0)s)', ["1"]),
        ("id", "not.eq.1", 'not ("id" = %(p0)s)', ["1"]),
        ("id", 'in.(1,"a\\"b\\\\")', '("id" = any (%(p0)s))', ['{"1","a\\"b\\\\"}']),
        ("id", "in.()", '("id" = any (%(p0)s))', ["{}"]),
        ("id", "is.not_null", '("id" is not null)', []),
        ("name", "like(all).{a*}", '("name" like all (%(p0)s))', ["{a%}"]),
        ("name", "fts.x", '("name" @@ to_tsquery(%(p0)s))', ["x"]),
        (
            "name",
            "plfts(english).x",
            '("name" @@ plainto_tsquery(%(p0)s::regconfig, %(p1)s))',
            ["english", "x"],
        ),
        ("m->a->>0", "eq.x", '(("m" -> %(p0)s::text ->> %(p1)s::int) = %(p2)s)', ["a", "0", "x"]),
        ("not.or", "(id.eq.1,id.gt.2)", 'not (("id" = %(p0)s) or ("id" > %(p1)s))', ["1", "2"]),
    ],
)
def test_conditions(key: str, value: str, expected: str, values: list[object]) -> None:
    """Each kind of condition has its SQL, with the values beside it."""
    assert where(key, value) == (expected, values)


def test_bare_writes_do_not_return() -> None:
    """Without a representation no write has a RETURNING clause, which would need the right to read."""
    row = read_row(b'{"name":"x"}')
    made = [
        statement.insert(ITEMS, Query(), row, BARE, single=True),
        statement.insert(ITEMS, Query(), row, Preferences(resolution="merge-duplicates"), single=False),
        statement.update(ITEMS, Query(), row, BARE, single=False),
        statement.delete(ITEMS, Query(), BARE, single=False),
    ]
    assert [("returning" in text(each), each.returns) for each in made] == [(False, False)] * 4


def test_only_shown_columns_return() -> None:
    """A representation reads no more columns than it shows or sorts by, as a role may lack others."""
    query = Query(select=(Item(Field("name")),), order=(Order(Field("id")),))
    made = statement.delete(ITEMS, query, SHOWN, single=False)
    assert ' returning "public"."items"."name", "public"."items"."id") ' in text(made)


def test_count_repeats_the_condition() -> None:
    """A count asks the same condition with the same parameters, without the window."""
    query = parse([("id", "gt.1"), ("limit", "2")])
    made = statement.read(ITEMS, query, counted=True, single=False)
    condition = 'from "public"."items" where ("public"."items"."id" > %(p0)s)'
    assert (text(made).count(condition), text(made).count("limit")) == (2, 1)


def test_identifiers_keep_percent_signs() -> None:
    """A percent sign in a name is not taken for a parameter."""
    query = Query(select=(Item(Field("%(p0)s")),))
    made = statement.read(ITEMS, query, counted=False, single=False)
    assert '"public"."items"."%%(p0)s" as "%%(p0)s"' in text(made)


def test_defaults_keep_percent_signs() -> None:
    """A percent sign in a default of the catalogue is not taken for a parameter."""
    relation = Relation("public", "t", {"a": Column("a", INT, "(5 % 3)")})
    made = statement.insert(
        relation, Query(), read_rows(b'[{"a":1}]'), Preferences(missing="default"), single=False
    )
    assert '((5 %% 3))::"pg_catalog"."int4"' in text(made)


@pytest.mark.parametrize(
    ("cast", "expected"),
    [
        ("text", '::"text"'),
        ("BIGINT", '::"int8"'),
        ("double  precision", '::"float8"'),
        ("int[]", '::"int4"[]'),
    ],
)
def test_casts(cast: str, expected: str) -> None:
    """A cast names a type by an identifier, though SQL spells some with keywords."""
    query = Query(select=(Item(Field("id"), cast=cast),))
    made = statement.read(ITEMS, query, counted=False, single=False)
    assert f'("public"."items"."id"){expected} as "id"' in text(made)


def test_unknown_column() -> None:
    """A write to a column that is not there is refused before it is sent."""
    with pytest.raises(RestError, match="Could not find the 'x' column of 'items' in the schema cache"):
        statement.insert(ITEMS, Query(), read_rows(b'{"x":1}'), BARE, single=False)


def test_differing_keys() -> None:
    """Objects with different keys need to be told which columns are meant."""
    with pytest.raises(RestError, match="All object keys must match"):
        statement.insert(ITEMS, Query(), read_rows(b'[{"id":1},{"name":"x"}]'), BARE, single=False)


def test_merge_target() -> None:
    """An upsert finds rows by the primary key unless it is told otherwise."""
    merge = Preferences(resolution="merge-duplicates")
    row = read_rows(b'{"name":"x"}')
    by_key = text(statement.insert(ITEMS, Query(), row, merge, single=False))
    by_name = text(statement.insert(ITEMS, Query(on_conflict=("name",)), row, merge, single=False))
    assert ('on conflict ("id") do update' in by_key, 'on conflict ("name") do update' in by_name) == (
        True,
        True,
    )


ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
FIELDS = st.builds(
    Field,
    ANY,
    st.lists(st.builds(Arrow, ANY, st.booleans(), st.booleans()), max_size=2).map(tuple),
)
CONDITIONS = st.builds(
    Condition,
    FIELDS,
    st.sampled_from([*OPERATORS, *SEARCHES]),
    ANY,
    st.booleans(),
    st.none(),
    st.none() | ANY,
) | st.builds(Condition, FIELDS, st.just("in"), st.lists(ANY, max_size=3).map(tuple), st.booleans())
TREES = st.recursive(
    CONDITIONS,
    lambda parts: st.builds(
        Tree,
        st.sampled_from(["and", "or"]),
        st.lists(parts, min_size=1, max_size=3).map(tuple),
        st.booleans(),
    ),
    max_leaves=4,
)
QUERIES = st.builds(
    Query,
    select=st.lists(
        st.builds(Item, st.none() | FIELDS, st.none() | ANY, st.none() | ANY), min_size=1, max_size=3
    ).map(tuple),
    where=st.lists(TREES, max_size=3).map(tuple),
    order=st.lists(
        st.builds(Order, FIELDS, st.booleans(), st.sampled_from([None, "first", "last"])), max_size=2
    ).map(tuple),
    limit=st.none() | st.integers(0, 2**63 - 1),
    offset=st.integers(0, 2**63 - 1),
    on_conflict=st.lists(ANY, max_size=2).map(tuple),
)
RELATIONS = st.builds(
    lambda schema, name, columns: Relation(schema, name, {c: Column(c, INT, key=True) for c in columns}),
    ANY,
    ANY,
    st.lists(ANY, min_size=1, max_size=3),
)
PREFERENCES = st.builds(
    Preferences,
    resolution=st.sampled_from([None, "merge-duplicates", "ignore-duplicates"]),
    returned=st.sampled_from([None, "representation", "headers-only"]),
    count=st.sampled_from([None, "exact"]),
)

WORDS = """
with as materialized select from where and or not in is null any limit offset order by desc nulls first last
insert into update set delete on conflict do nothing excluded returning case when then else end
count coalesce json_agg row_to_json json_array_elements json_to_record value json text int bigint regconfig
to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery like ilike distinct
set_config current_setting nullif true
"""
LITERALS = frozenset({"'backbeat.merged'", "'[]'", "''", "'0'"})


def vocabulary(made: Statement) -> set[str]:
    """What is left of a statement without quoted identifiers, parameters, punctuation and our own words."""
    rest = re.sub(r'"(?:[^"]|"")*"', " ", text(made))
    rest = re.sub(r"%\(p\d+\)s", " ", rest)
    tokens = set(re.findall(r"'[^']*'|[^\W\d]\w*|[^\s]", rest))
    return tokens - set(WORDS.split()) - LITERALS - set("()[],.*:=<>~@&|-+!01")


@given(RELATIONS, QUERIES, PREFERENCES, st.booleans())
def test_statements_hold_nothing_of_the_caller(
    relation: Relation,
    query: Query,
    preferences: Preferences,
    single: bool,
) -> None:
    """Outside of parameters and quoted identifiers a statement consists of our own words."""
    payload = read_rows(b"{}")
    columns = replace(query, columns=tuple(relation.columns))
    made = [
        statement.read(relation, query, counted=True, single=single),
        statement.insert(relation, columns, payload, preferences, single=single),
        statement.update(relation, columns, payload, preferences, single=single),
        statement.delete(relation, query, preferences, single=single),
    ]
    assert [vocabulary(each) for each in made] == [set()] * 4


FUNCTIONS = st.builds(
    lambda schema, name, names, shape: Function(
        schema, name, True, True, shape, dict.fromkeys(names, INT), frozenset()
    ),
    ANY,
    ANY,
    st.lists(ANY, max_size=3, unique=True),
    st.sampled_from(["row", "value"]),
)


@given(FUNCTIONS, QUERIES)
def test_calls_hold_nothing_of_the_caller(function: Function, query: Query) -> None:
    """Calls consist of our own words as well, whether their arguments came as JSON or in the query string."""
    names = tuple(function.arguments)
    made = [
        statement.call(function, arguments, query, counted=True, single=False)
        for arguments in (
            Arguments(names, literals=dict.fromkeys(names, "'x'")),
            Arguments(names, text="{'y'}"),
        )
    ]
    assert [vocabulary(each) for each in made] == [set()] * 2
