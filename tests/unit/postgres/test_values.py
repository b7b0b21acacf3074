"""Column text to JSON, type by type. The integration ring compares with Postgres' own `to_jsonb`."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.postgres.values import TypeInfo, encoder

TYPES = {
    t.oid: t
    for t in [
        TypeInfo(600, "point", "base"),
        TypeInfo(603, "box", "base"),
        TypeInfo(790, "money", "base"),
        TypeInfo(1186, "interval", "base"),
        TypeInfo(1560, "bit", "base"),
        TypeInfo(3904, "int4range", "range"),
        TypeInfo(199, "_json", "array", 114),
        TypeInfo(1000, "_bool", "array", 16),
        TypeInfo(1001, "_bytea", "array", 17),
        TypeInfo(1007, "_int4", "array", 23),
        TypeInfo(1009, "_text", "array", 25),
        TypeInfo(1020, "_box", "array", 603, delimiter=";"),
        TypeInfo(1016, "_int8", "array", 20),
        TypeInfo(1022, "_float8", "array", 701),
        TypeInfo(1028, "_oid", "array", 26),
        TypeInfo(1115, "_timestamp", "array", 1114),
        TypeInfo(9001, "mood", "enum"),
        TypeInfo(9002, "positive", "domain", 23),
        TypeInfo(9003, "very_positive", "domain", 9002),
        TypeInfo(9004, "tags", "domain", 1009),
        TypeInfo(9005, "note", "composite", fields=(("x", 23), ('"y"', 25))),
        TypeInfo(9006, "_note", "array", 9005),
        TypeInfo(9007, "chord", "composite", fields=(("root", 9005), ("notes", 9006), ("raw", 17))),
        TypeInfo(9008, "nothing", "composite"),
        TypeInfo(9009, "amount", "domain", 1700),
        TypeInfo(9010, "bill", "composite", fields=(("no", 20), ("sum", 9009), ("parts", 1016), ("n", 23))),
    ]
}


@pytest.mark.parametrize(
    ("type_oid", "text", "expected"),
    [
        pytest.param(20, "9223372036854775807", "9223372036854775807", id="bigint"),
        pytest.param(26, "4294967295", "4294967295", id="oid"),
        pytest.param(1700, "1.500", "1.500", id="numeric keeps its scale"),
        pytest.param(1700, "NaN", "null", id="numeric NaN"),
        pytest.param(1700, "-Infinity", "null", id="numeric infinity"),
        pytest.param(701, "1.1", "1.1", id="float"),
        pytest.param(701, "1e-05", "0.00001", id="small float"),
        pytest.param(701, "-1.5e+20", "-150000000000000000000", id="large float"),
        pytest.param(701, "-0", "0", id="negative zero"),
        pytest.param(701, "Infinity", "null", id="float infinity"),
        pytest.param(16, "t", "true", id="true"),
        pytest.param(16, "f", "false", id="false"),
        pytest.param(25, 'a"\\\n\x01é😀', '"a\\"\\\\\\n\\u0001é😀"', id="text"),
        pytest.param(1042, "ab   ", '"ab   "', id="char(n) whole"),
        pytest.param(1560, "101", '"101"', id="bit(n) whole"),
        pytest.param(790, "$12.34", '"$12.34"', id="money"),
        pytest.param(600, "(1,2)", '"(1,2)"', id="point"),
        pytest.param(3904, "[1,5)", '"[1,5)"', id="range"),
        pytest.param(1186, "1 mon 3 days 04:05:06.7", '"1 mon 3 days 04:05:06.7"', id="interval"),
        pytest.param(1082, "2024-02-29", '"2024-02-29"', id="date"),
        pytest.param(1083, "13:14:15.5", '"13:14:15.5"', id="time"),
        pytest.param(1266, "13:14:15+02", '"13:14:15+02"', id="timetz"),
        pytest.param(1114, "2024-01-01 12:00:00.123456", '"2024-01-01T12:00:00.123456"', id="timestamp"),
        pytest.param(1114, "0044-03-15 12:00:00 BC", '"0044-03-15T12:00:00 BC"', id="timestamp BC"),
        pytest.param(1114, "-infinity", '"-infinity"', id="timestamp infinity"),
        pytest.param(1184, "2024-01-01 10:00:00.5+00", '"2024-01-01T10:00:00.5+00:00"', id="timestamptz"),
        pytest.param(1184, "0044-03-15 12:00:00+00 BC", '"0044-03-15T12:00:00+00:00 BC"', id="BC"),
        pytest.param(1184, "infinity", '"infinity"', id="timestamptz infinity"),
        pytest.param(3802, '{"a": [1, 2]}', '{"a": [1, 2]}', id="jsonb spliced"),
        pytest.param(17, "\\x0102", '"0102"', id="bytea without prefix"),
        pytest.param(1001, '{"\\\\x0102"}', '["\\\\x0102"]', id="bytea[] with prefix"),
        pytest.param(1028, "{1}", '["1"]', id="oid[] as to_jsonb"),
        pytest.param(1022, "{1e-05,NaN}", '[0.00001,"NaN"]', id="float[] as to_jsonb"),
        pytest.param(22, "1 2", "[1,2]", id="int2vector"),
        pytest.param(30, "1 2", '["1","2"]', id="oidvector"),
        pytest.param(1007, "{}", "[]", id="empty array"),
        pytest.param(1007, "{1,2,NULL}", "[1,2,null]", id="array with NULL"),
        pytest.param(1007, "{{1,2},{3,4}}", "[[1,2],[3,4]]", id="nested array"),
        pytest.param(1007, "[0:1][-1:0]={{1,2},{3,4}}", "[[1,2],[3,4]]", id="array with bounds"),
        pytest.param(1000, "{t,f}", "[true,false]", id="bool[]"),
        pytest.param(1009, r'{a,"","NULL","{","d\"\\e"}', r'["a","","NULL","{","d\"\\e"]', id="text[]"),
        pytest.param(1115, '{"2024-01-01 12:00:00"}', '["2024-01-01T12:00:00"]', id="timestamp[]"),
        pytest.param(199, r'{"{\"a\": 1}",2}', '[{"a": 1},2]', id="json[] spliced"),
        pytest.param(1020, "{(1,1),(0,0);(2,2),(1,1)}", '["(1,1),(0,0)","(2,2),(1,1)"]', id="box[]"),
        pytest.param(9001, "happy", '"happy"', id="enum"),
        pytest.param(9003, "5", "5", id="domain over a domain"),
        pytest.param(9004, "{a}", '["a"]', id="domain over an array"),
        pytest.param(9005, '(1,"a,b")', '{"x":1,"\\"y\\"":"a,b"}', id="composite"),
        pytest.param(9005, "(,)", '{"x":null,"\\"y\\"":null}', id="composite of NULLs"),
        pytest.param(9005, '(1,"")', '{"x":1,"\\"y\\"":""}', id="composite with an empty string"),
        pytest.param(9005, r'(1,"""\\")', r'{"x":1,"\"y\"":"\"\\"}', id="composite with quotes"),
        pytest.param(
            9007,
            r'("(1,""a b"")","{""(2,\\""c,d\\"")"",NULL}","\\x01")',
            r'{"root":{"x":1,"\"y\"":"a b"},"notes":[{"x":2,"\"y\"":"c,d"},null],"raw":"\\x01"}',
            id="composites and arrays in a composite",
        ),
        pytest.param(9008, "()", "{}", id="composite without fields"),
    ],
)  # fmt: skip
def test_text_becomes_json(type_oid: int, text: str, expected: str) -> None:
    """Each kind of value has the JSON of section 8.6."""
    assert encoder(type_oid, TYPES)(text.encode()).decode() == expected


@pytest.mark.parametrize(
    ("type_oid", "text", "expected"),
    [
        pytest.param(20, "9223372036854775807", '"9223372036854775807"', id="bigint"),
        pytest.param(1700, "1.500", '"1.500"', id="numeric keeps its scale"),
        pytest.param(1700, "-Infinity", '"-Infinity"', id="a numeric that is no number to JSON"),
        pytest.param(9009, "0.1", '"0.1"', id="domain"),
        pytest.param(1016, "{{1,NULL}}", '[["1",null]]', id="bigint[]"),
        pytest.param(
            9010, '(1,2.50,"{3}",4)', '{"no":"1","sum":"2.50","parts":["3"],"n":4}', id="within a composite"
        ),
        pytest.param(23, "5", "5", id="int fits"),
        pytest.param(701, "1e-05", "0.00001", id="float is a double already"),
        pytest.param(26, "4294967295", "4294967295", id="oid fits"),
        pytest.param(17, "\\x0102", '"0102"', id="bytea without prefix, as ever"),
        pytest.param(3802, '{"a": 9223372036854775807}', '{"a": 9223372036854775807}', id="a document"),
    ],
)  # fmt: skip
def test_a_big_number_may_be_a_text(type_oid: int, text: str, expected: str) -> None:
    """Every number that JavaScript might round, wherever it stands outside of documents."""
    assert encoder(type_oid, TYPES, "text")(text.encode()).decode() == expected


@pytest.mark.parametrize("text", ["(1)", "(1,a,b)", "(1,a", "", '(1,"a)', "((1),a)"])
def test_composite_of_other_shape_is_refused(text: str) -> None:
    """A composite whose fields are not those of its type is refused, not guessed."""
    with pytest.raises(ValueError, match="other fields"):
        encoder(9005, TYPES)(text.encode())


def test_array_that_is_none_is_refused() -> None:
    """Text that breaks the syntax of arrays is refused."""
    with pytest.raises(ValueError, match="not an array"):
        encoder(1009, TYPES)(b'{"a')


def test_unknown_type_is_a_key_error() -> None:
    """A type younger than the catalogue read is reported, so that the caller reads it again."""
    with pytest.raises(KeyError):
        encoder(99_999, TYPES)


def test_invalid_utf8_is_replaced() -> None:
    """A byte that is no UTF-8 does not spoil the frame of everyone."""
    assert encoder(25, TYPES)(b"caf\xe9") == '"caf\ufffd"'.encode()


def array_literal(value: str | list[str | None]) -> str:
    """Write a text[] with every element quoted, as Postgres may."""
    quoted = ("NULL" if v is None else '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in value)
    return "{" + ",".join(quoted) + "}"


@given(st.lists(st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_any_text_array_survives(values: list[str | None]) -> None:
    """Whatever the elements contain, they arrive as they were."""
    assert json.loads(encoder(1009, TYPES)(array_literal(values).encode())) == values


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_survives_without_exponent(value: float) -> None:
    """A float is written without an exponent and reads back as itself."""
    encoded = encoder(701, TYPES)(repr(value).encode())
    assert b"e" not in encoded
    assert float(encoded) == value
