"""Reading query strings."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backbeat.local.rest.errors import RestError
from backbeat.local.rest.grammar import MAX_DEPTH, looks_like_condition, pairs_of, parse
from backbeat.local.rest.query import Arrow, Condition, Field, Item, Order, Query, Tree

ID, NAME, META = Field("id"), Field("name"), Field("meta")


def only(key: str, value: str) -> Condition | Tree:
    """The one condition of a query string with one parameter."""
    (part,) = parse([(key, value)]).where
    return part


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", [Item()]),
        ("", [Item()]),
        ("id,name", [Item(ID), Item(NAME)]),
        ("id, name", [Item(ID), Item(NAME)]),
        ("key:id", [Item(ID, alias="key")]),
        ("id::text", [Item(ID, cast="text")]),
        ("n:id::double precision,*", [Item(ID, "n", "double precision"), Item()]),
        ("tags::text[]", [Item(Field("tags"), cast="text[]")]),
        ('"a ""', None),
        ('"a \\" b","c,d"', [Item(Field('a " b')), Item(Field("c,d"))]),
        ("meta->k", [Item(Field("meta", (Arrow("k"),)))]),
        ("v:meta->0->>k", [Item(Field("meta", (Arrow("0", index=True), Arrow("k", text=True))), "v")]),
        ("id,", None),
        (",id", None),
        ("id::", None),
        ("id.name", None),
        ("*id", None),
    ],
)
def test_select(text: str, expected: list[Item] | None) -> None:
    """A select list is names, aliases, casts and arrows between commas, or a parse error."""
    if expected is None:
        with pytest.raises(RestError, match="failed to parse select parameter"):
            parse([("select", text)])
    else:
        assert parse([("select", text)]).select == tuple(expected)


@pytest.mark.parametrize(
    ("select", "code"),
    [
        ("*,other(*)", "PGRST200"),
        ("a:other!inner(id)", "PGRST200"),
        ("...other(id)", "PGRST200"),
        ("count()", "PGRST123"),
        ("total:amount.sum()", "PGRST123"),
    ],
)
def test_select_refuses(select: str, code: str) -> None:
    """Other tables and aggregates are refused as what they are, not as typing errors."""
    with pytest.raises(RestError) as caught:
        parse([("select", select)])
    assert (caught.value.code, caught.value.status) == (code, 400)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (META, "meta"),
        (Field("meta", (Arrow("k"), Arrow("0", index=True))), "k"),
        (Field("meta", (Arrow("0", index=True),)), "meta"),
    ],
)
def test_field_name(field: Field, name: str) -> None:
    """A field is called like its innermost member."""
    assert field.name == name


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("id", "eq.3", Condition(ID, "eq", "3")),
        ("id", "eq.", Condition(ID, "eq", "")),
        ("name", "eq.a.b,c)", Condition(NAME, "eq", "a.b,c)")),
        ("name", 'eq."a"', Condition(NAME, "eq", '"a"')),
        ("name", "not.like.*a*", Condition(NAME, "like", "%a%", negated=True)),
        ("name", "eq.*", Condition(NAME, "eq", "*")),
        ("name", "ilike(any).{a*,b}", Condition(NAME, "ilike", "{a%,b}", quantifier="any")),
        ("id", "in.(1,2)", Condition(ID, "in", ("1", "2"))),
        ("id", "in.()", Condition(ID, "in", ())),
        ("id", 'in.("")', Condition(ID, "in", ("",))),
        ("name", 'in.(a,"b,c","d\\"e\\\\",f"g)', Condition(NAME, "in", ("a", "b,c", 'd"e\\', 'f"g'))),
        ("id", "is.NULL", Condition(ID, "is", "null")),
        ("id", "not.is.unknown", Condition(ID, "is", "unknown", negated=True)),
        ("tags", "cs.{a,b}", Condition(Field("tags"), "cs", "{a,b}")),
        ("name", "fts.a & b", Condition(NAME, "fts", "a & b")),
        ("name", "wfts(german).a", Condition(NAME, "wfts", "a", configuration="german")),
        ("meta->>k", "eq.v", Condition(Field("meta", (Arrow("k", text=True),)), "eq", "v")),
        ('"a.b"', "eq.1", Condition(Field("a.b"), "eq", "1")),
    ],
)
def test_condition(key: str, value: str, expected: Condition) -> None:
    """A parameter named like a column is a condition on it."""
    assert only(key, value) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "3"),
        ("id", "eq"),
        ("id", "fizz.3"),
        ("id", "not.not.eq.3"),
        ("id", "in.1,2"),
        ("id", "in.(1,2"),
        ("id", "in.(1,2)x"),
        ("id", "is.maybe"),
        ("id", "neq(any).{1}"),
        ("id", "eq(some).{1}"),
        ("", "eq.1"),
        ("a b,c", "eq.1"),
        ("or", "id.eq.1"),
        ("or", "()"),
        ("or", "(id.eq.1"),
        ("or", "(id.eq.1)x"),
        ("or", "(id)"),
        ("limit", "-1"),
        ("limit", "²"),
        ("offset", "9223372036854775808"),
        ("order", "id.up"),
        ("order", "id.desc.asc"),
        ("columns", '"a'),
    ],
)
def test_parse_errors(key: str, value: str) -> None:
    """What does not follow the grammar is 400 PGRST100, with the place where it went wrong."""
    with pytest.raises(RestError, match=r"failed to parse .*line 1, column") as caught:
        parse([(key, value)])
    assert (caught.value.code, caught.value.status) == ("PGRST100", 400)


def test_parse_error_position() -> None:
    """The message names the parameter, and the column counts from one."""
    with pytest.raises(RestError) as caught:
        parse([("id", "eq")])
    assert caught.value.message == '"failed to parse filter (eq)" (line 1, column 3)'
    assert caught.value.details == 'unexpected end of input expecting "."'


def test_embedded_parameter() -> None:
    """A parameter of an embedded table is refused as that."""
    with pytest.raises(RestError) as caught:
        parse([("other.id", "eq.1")])
    assert caught.value.code == "PGRST108"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("or", "(id.eq.1,id.eq.2)", Tree("or", (Condition(ID, "eq", "1"), Condition(ID, "eq", "2")))),
        ("not.and", "(id.eq.1)", Tree("and", (Condition(ID, "eq", "1"),), negated=True)),
        (
            "and",
            "(id.not.in.(1,2),not.or(name.is.null))",
            Tree(
                "and",
                (
                    Condition(ID, "in", ("1", "2"), negated=True),
                    Tree("or", (Condition(NAME, "is", "null"),), negated=True),
                ),
            ),
        ),
        ("or", '(name.eq."a,)b")', Tree("or", (Condition(NAME, "eq", "a,)b"),))),
        ("or", '(meta.cs.{"k":"}"})', Tree("or", (Condition(META, "cs", '{"k":"}"}'),))),
        ("or", "(name.like(any).{a,b})", Tree("or", (Condition(NAME, "like", "{a,b}", quantifier="any"),))),
        ("or", "(name.eq.,id.eq.1)", Tree("or", (Condition(NAME, "eq", ""), Condition(ID, "eq", "1")))),
        ("or", "(android.eq.1)", Tree("or", (Condition(Field("android"), "eq", "1"),))),
    ],
)
def test_tree(key: str, value: str, expected: Tree) -> None:
    """Trees nest, negate, and quote what would end a value."""
    assert only(key, value) == expected


def test_tree_depth() -> None:
    """A tree deeper than anybody writes is refused instead of exhausting the stack."""
    deep = "(and" * (MAX_DEPTH * 20)
    with pytest.raises(RestError, match="failed to parse logic tree"):
        parse([("or", deep)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id", Order(ID)),
        ("id.desc", Order(ID, descending=True)),
        ("id.asc.nullsfirst", Order(ID, nulls="first")),
        ("id.nullslast", Order(ID, nulls="last")),
        ("meta->>k.desc", Order(Field("meta", (Arrow("k", text=True),)), descending=True)),
    ],
)
def test_order(text: str, expected: Order) -> None:
    """An order is a field, a direction and a place for nulls."""
    assert parse([("order", text)]).order == (expected,)


def test_the_rest() -> None:
    """Window, columns and conflict target are read beside each other."""
    pairs = [("limit", "3"), ("offset", "2"), ("columns", '"a","b,c"'), ("on_conflict", "a,b")]
    assert parse(pairs) == Query(limit=3, offset=2, columns=("a", "b,c"), on_conflict=("a", "b"))


def test_conditions_repeat() -> None:
    """Two conditions on one column both hold."""
    assert len(parse([("id", "gt.1"), ("id", "lt.9")]).where) == 2


def test_pairs() -> None:
    """Percent-encoding, plus signs and empty values are undone."""
    assert pairs_of(b"name=eq.%C3%A9+%26%2B&select=") == [("name", "eq.é &+"), ("select", "")]


@pytest.mark.parametrize("query", [b"a=%FF", b"a=\xff", b"a=%00", b"%00=a", b"a&" * 2000])
def test_pairs_refuse(query: bytes) -> None:
    """What cannot be text in PostgreSQL, or is too much, is 400."""
    with pytest.raises(RestError) as caught:
        pairs_of(query)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("value", "expected"),
    [("eq.1", True), ("not.in.(1)", True), ("like(any).{a}", True), ("1", False), ("island.x", False)],
)
def test_looks_like_condition(value: str, expected: bool) -> None:
    """A condition starts with an operator and a dot."""
    assert looks_like_condition(value) is expected


WORDS = """
select order limit offset columns on_conflict or and not. not.or in.( is. eq. like(any). fts( id name
-> ->> 0 -1 , . ( ) { } " \\ : :: * ... ! sum() null desc nullslast é
"""
PIECES = st.sampled_from(WORDS.split())
SCRIBBLE = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)


@given(st.lists(st.tuples(PIECES | SCRIBBLE, SCRIBBLE), max_size=4))
@example([("or", "(" * 5000)])
def test_parser_has_one_error(pairs: list[tuple[str, str]]) -> None:
    """Whatever is sent, the parser returns a query or raises its own error."""
    with suppress(RestError):
        assert parse(pairs).select


@given(st.binary(max_size=60))
def test_decoder_has_one_error(query: bytes) -> None:
    """Whatever bytes come in, decoding gives storable text or its own error."""
    with suppress(RestError):
        text = "".join(key + value for key, value in pairs_of(query))
        assert "\0" not in text.encode().decode()
