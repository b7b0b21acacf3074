r"""A column value as Postgres writes it, turned into the JSON a subscriber reads.

The law is `to_jsonb(value)`, without its spaces, with three exceptions at the top level of a column that
clients of the original know: an `oid` is a number, `bytea` has no `\x`, and a number that JSON cannot write
is `null` (specification of the server, 8.6). Inside arrays and composites `to_jsonb` holds without exception.
It also puts the fields of composites and of `json` in the order of jsonb, and leaves out all but the last of
several with one name; here they come as they were written, which reads as the same.

Whoever wants big numbers as text gets every `int8` and `numeric` as a string, also inside of arrays and
composites: JavaScript would round the number. The documents of `json` and `jsonb` are left as they are.

Values are the text of a session with `DateStyle=ISO`, `TimeZone=UTC`, `IntervalStyle=postgres`,
`bytea_output=hex` and `extra_float_digits` of 1 or more. Invalid UTF-8, possible in a database with
encoding `SQL_ASCII` only, becomes U+FFFD.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import msgspec
import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backbeat.protocol.bindings import BigNumbers

__all__ = ["Encoder", "TypeInfo", "encoder", "type_shown"]

Encoder: TypeAlias = "Callable[[bytes], bytes]"


class TypeInfo(msgspec.Struct, frozen=True):
    """What the catalogue says about a data type."""

    oid: int
    name: str
    """`pg_type.typname`: `int8`, `_text`, or the user's own."""
    kind: Literal["base", "enum", "domain", "composite", "array", "range"]
    element: int = 0
    """The type of an array's elements, or the type a domain is based on."""
    fields: tuple[tuple[str, int], ...] = ()
    """Name and type of each field of a composite."""
    delimiter: str = ","
    """What separates an array's elements: `;` for `box`, `,` for all others."""


def encoder(type_oid: int, types: Mapping[int, TypeInfo], big_numbers: BigNumbers = "number") -> Encoder:
    """Return the function that turns a column's text, which is never NULL, into JSON.

    Make it once per column: it resolves domains, arrays and composites here, not per value.

    Args:
        type_oid: the type of the column.
        types: the types of the database by oid; those built in without structure need not be there.
        big_numbers: how `int8` and `numeric` are written.

    Raises:
        KeyError: the type is not in `types`; it is younger than they are.

    The returned function raises ValueError when a value does not fit its type: a composite has changed since
    `types` were read.
    """
    base, notation = _base_of(type_oid, types), _NOTATIONS[big_numbers]
    return notation.column.get(base) or _nested(base, types, notation.nested)


def type_shown(type_oid: int, name: str, big_numbers: BigNumbers) -> str:
    """Return the name of a column's type that goes with its JSON.

    Stock clients go by it: supabase-js makes a float of a string whose type is `int8` or `numeric`. The other
    names that SQL has for these types mean nothing to them.

    Args:
        type_oid: the type of the column.
        name: its `pg_type.typname`.
        big_numbers: how `int8` and `numeric` are written.
    """
    return _ALIASES.get(type_oid, name) if big_numbers == "text" else name


def _base_of(type_oid: int, types: Mapping[int, TypeInfo]) -> int:
    while type_oid not in _SCALARS and types[type_oid].kind == "domain":
        type_oid = types[type_oid].element
    return type_oid


def _nested(type_oid: int, types: Mapping[int, TypeInfo], scalars: Mapping[int, Encoder]) -> Encoder:
    """Return what encodes a value just as `to_jsonb` does, but for scalars that are to be different."""
    base = _base_of(type_oid, types)
    if base in scalars:
        return scalars[base]
    info = types[base]
    match info.kind:
        case "array":
            return _array(_nested(info.element, types, scalars), info.delimiter)
        case "composite":
            fields = [(_string(name.encode()), _nested(oid, types, scalars)) for name, oid in info.fields]
            return _composite(fields)
        case _:
            return _string


def _string(text: bytes) -> bytes:
    return orjson.dumps(text.decode(errors="replace"))


def _plain(text: bytes) -> bytes:
    """Quote what cannot contain anything to escape."""
    return b'"' + text + b'"'


def _as_is(text: bytes) -> bytes:
    return text


def _boolean(text: bytes) -> bytes:
    return b"true" if text == b"t" else b"false"


def _number(text: bytes) -> bytes:
    """Write a numeric, or NaN and the infinities as strings."""
    return text if text[-1:].isdigit() else _plain(text)


def _float(text: bytes) -> bytes:
    """Write a float without an exponent, as jsonb does: it keeps numbers as numeric, which has none."""
    if b"e" in text:
        return format(Decimal(text.decode()), "f").encode()
    return b"0" if text == b"-0" else _number(text)


def _number_or_null(text: bytes) -> bytes:
    return text if text[-1:].isdigit() else b"null"


def _float_or_null(text: bytes) -> bytes:
    return _float(text) if text[-1:].isdigit() else b"null"


def _timestamp(text: bytes) -> bytes:
    # 'infinity' has no space; a year BC has its mark at the end, behind a second one.
    return b'"' + text.replace(b" ", b"T", 1) + b'"'


def _timestamptz(text: bytes) -> bytes:
    # The session is in UTC, so the offset is always +00.
    return b'"' + text.replace(b" ", b"T", 1).replace(b"+00", b"+00:00", 1) + b'"'


def _vector(text: bytes) -> bytes:
    return b"[" + text.replace(b" ", b",") + b"]"


def _oid_vector(text: bytes) -> bytes:
    return _vector(re.sub(rb"\d+", rb'"\g<0>"', text))


def _bytea(text: bytes) -> bytes:
    return b'"' + text[2:] + b'"'


_ESCAPED = re.compile(rb'[\\"](.)', re.DOTALL)


def _unescape(quoted: bytes) -> bytes:
    r"""Undo `\"` and `\\`, and the `""` of composites."""
    return _ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted or b'"' in quoted else quoted


_ARRAY_TOKENS = {
    delimiter: re.compile(
        rb'([{}%s])|"((?:[^"\\]++|\\.)*+)"|([^{}"\\%s]++)' % (delimiter.encode(), delimiter.encode()),
        re.DOTALL,
    )
    for delimiter in ",;"
}
_BRACKETS = {b"{": b"[", b"}": b"]", b",": b",", b";": b","}


def _array(element: Encoder, delimiter: str) -> Encoder:
    """Return what rewrites an array literal token by token (PostgreSQL manual, 8.15.6)."""
    tokens = _ARRAY_TOKENS[delimiter]

    def encode(text: bytes) -> bytes:
        # Bounds other than one stand in front: [0:1]={1,2}
        position = text.index(b"=") + 1 if text.startswith(b"[") else 0
        out = []
        while position < len(text):
            token = tokens.match(text, position)
            if token is None:
                raise ValueError("not an array")
            position = token.end()
            punctuation, quoted, bare = token.groups()
            if punctuation is not None:
                out.append(_BRACKETS[punctuation])
            elif quoted is not None:
                out.append(element(_unescape(quoted)))
            else:
                out.append(b"null" if bare == b"NULL" else element(bare))
        return b"".join(out)

    return encode


_FIELD = re.compile(rb'(?:"((?:[^"\\]++|\\.|"")*+)"|([^,"\\()]*+))([,)])', re.DOTALL)


def _composite(fields: list[tuple[bytes, Encoder]]) -> Encoder:
    """Return what rewrites a row literal field by field (PostgreSQL manual, 8.16.6)."""

    def encode(text: bytes) -> bytes:
        if not fields and text == b"()":
            return b"{}"
        out = []
        position = 1
        for name, field in fields:
            match = _FIELD.match(text, position)
            if match is None:
                raise ValueError("a composite value has other fields than its type")
            position = match.end()
            quoted, bare, _ = match.groups()
            if quoted is not None:
                out.append(name + b":" + field(_unescape(quoted)))
            else:
                out.append(name + b":" + (field(bare) if bare else b"null"))
        if position != len(text):
            raise ValueError("a composite value has other fields than its type")
        return b"{" + b",".join(out) + b"}"

    return encode


# The oids of built-in types never change (pg_type.dat in the sources of Postgres). Every type that is neither
# named here nor has structure is a string.
_BOOL, _BYTEA, _INT8, _INT2, _INT4, _OID, _JSON = 16, 17, 20, 21, 23, 26, 114
_FLOAT4, _FLOAT8, _DATE, _TIME, _TIMESTAMP, _TIMESTAMPTZ, _TIMETZ = 700, 701, 1082, 1083, 1114, 1184, 1266
_TEXT, _BPCHAR, _VARCHAR, _NUMERIC, _UUID, _JSONB = 25, 1042, 1043, 1700, 2950, 3802
_INT2VECTOR, _OIDVECTOR = 22, 30

_SCALARS: dict[int, Encoder] = {
    _BOOL: _boolean,
    _INT2: _as_is,
    _INT4: _as_is,
    _INT8: _as_is,
    _OID: _plain,
    _NUMERIC: _number,
    _FLOAT4: _float,
    _FLOAT8: _float,
    _JSON: _as_is,
    _JSONB: _as_is,
    _TEXT: _string,
    _BPCHAR: _string,
    _VARCHAR: _string,
    _BYTEA: _string,
    _UUID: _plain,
    _DATE: _plain,
    _TIME: _plain,
    _TIMETZ: _plain,
    _TIMESTAMP: _timestamp,
    _TIMESTAMPTZ: _timestamptz,
    _INT2VECTOR: _vector,
    _OIDVECTOR: _oid_vector,
}
_BIG: dict[int, Encoder] = {_INT8: _plain, _NUMERIC: _plain}
_ALIASES = {_INT8: "bigint", _NUMERIC: "decimal"}
_COLUMNS: dict[int, Encoder] = {
    _OID: _as_is,
    _BYTEA: _bytea,
    _NUMERIC: _number_or_null,
    _FLOAT4: _float_or_null,
    _FLOAT8: _float_or_null,
}


class _Notation(NamedTuple):
    """How scalars are written: as the value of a column, where that is different, and anywhere."""

    column: Mapping[int, Encoder]
    nested: Mapping[int, Encoder]


_NOTATIONS: dict[BigNumbers, _Notation] = {
    "number": _Notation(_COLUMNS, _SCALARS),
    "text": _Notation(_COLUMNS | _BIG, _SCALARS | _BIG),
}
