"""Texts that Postgres reads as values: of every type it is built with, awkward ones first, then at random."""

from __future__ import annotations

import itertools
import json
import re
import string
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID

__all__ = ["array", "awkward", "composite", "randomly"]


def _apart(text: str) -> tuple[str, ...]:
    """Split where there are two blanks or more."""
    return tuple(re.split(r"\s{2,}", text.strip()))


_TEXTS: Final = (
    *_apart(
        r"""
        a  A  é  日本  🎸  NULL  null  Null  t  true  {  }  {}  ()  (,)  ,  ;  [0:1]={a,b}  =  %s  <b>  a'b
        %  _  "  ""  '  \  \\  \"  a"b\c,d;e  {"a\\"}  ('a""b')  ("a""b")  \N  \.
        """
    ),
    *("", " ", "  a b ", "\t", "\n", "\r\n", "\v\f", "\b", "\x01", "\x1f", "\x7f", "\x80", "x" * 300),
    *("e\u0301", "\ue000", "\uffff", "\u2028", "\ufeff", "\u202e"),
)
_NUMBERS: Final = (
    *_apart(
        """
        0  -0  1  -1  127  -128  255  32767  -32768  2147483647  -2147483648  4294967295  9007199254740993
        9223372036854775807  -9223372036854775808  18446744073709551615  0x1F  0b101  1_000
        1.0  1.50  -1.500  0.10  .5  5.  1e3  1e-3  1.5E+10  1e20  1e-20  0e0  1.1  0.1  16777217
        0.30000000000000004  3.4028235e38  1.1754944e-38  1e-45  1.7976931348623157e308
        2.2250738585072014e-308  5e-324  1e-1000  1e1000  NaN  Infinity  -Infinity  inf
        """
    ),
    "9" * 60 + "." + "9" * 60,
)
_MOMENTS: Final = _apart(
    """
    00:00  24:00:00  23:59:59.999999  12:00:00.5  12:00:00.000001  13:14:15+02  00:00:00-12:30  allballs
    04:05:06.789-15:59:59  04:05 PM
    2024-02-29  0001-01-01  9999-12-31  10000-01-01  5874897-12-31  0044-03-15 BC  4714-11-24 BC
    infinity  -infinity  epoch  January 8, 1999
    2024-01-01 12:00  2024-01-01 12:00:00.123456  2024-01-01 12:00:00.100+02  2024-03-10 02:30 -0800
    0044-03-15 12:00 BC  0044-03-15 12:00:00.5+00 BC  4714-11-24 00:00:00+00 BC  12024-01-01 00:00Z
    294276-12-31 23:59:59.999999  294276-12-31 23:59:59.999999+00  1999-12-31 23:59:60
    1 year 2 mons 3 days 04:05:06.7  -1 year +2 days  00:00:00.000001  -00:00:01  P1Y2M3DT4H5M6S
    178000000 years  @ 1 minute ago
    """
)
_DOCUMENTS: Final = _apart(
    r"""
    {}  []  ""  [[], {}]  {"b": [1, 2.50, 1e2], "aa": null, "a": true}  {"a": 1, "a": 2}  "\ud83d\ude00"
    {"é": "\u00e9\u0007\n\"\\\/", "": "<>&\u2028"}  1E400  -1.0e-7  {"k": 12345678901234567890123}
    [1.10, -0, 0.0]  {"a": {"b": {"c": [{"d": []}]}}}
    """
)
_OTHERS: Final = _apart(
    r"""
    (1,2)  (-0,1e-20)  (Infinity,NaN)  (1e308,-1e-308)  {1,2,3}  [(0,0),(1,1)]  (1,1),(0,0)  <(1,2),3.5>
    [(0,0),(1,1),(2,0)]  ((0,0),(1,1),(2,0))  (0,1)  (4294967295,65535)
    10.0.0.1  10.0.0.1/8  10.0.0.0/8  ::1  ::ffff:10.0.0.1  fe80::/10  2001:db8::1/64
    08:00:2b:01:02:03  08:00:2b:01:02:03:04:05  08002b010203
    a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11  A0EEBC999C0B4EF8BB6D6BB9BD380A11  \x  \x00ff  \xDEADbeef  a\000b
    101  $12.34  -$1,000.00  0/16B3748  FFFFFFFF/FFFFFFFF  10:20:10,14,15  1 2 3  -1 0 1  1 4294967295
    a & b  !'a b' | (c <-> d):*AB  a:1A,2 'b c':3 '''':4  a b c  $.a[*] ? (@."x y" > 1)  strict $
    pg_class  pg_catalog.now  now()  -  integer  character varying  pg_catalog.pg_type[]  =(integer,integer)
    postgres  pg_catalog  "C"  english  simple  template1  postgres=arwdDxt/postgres  =r/postgres  ||/
    abs(integer)  \351  YES
    """
)
_BOUNDS: Final = (
    *(("1", "5"), ("-9", "10"), ("1.0", "5.00"), ("-Infinity", "Infinity"), ("0", "9223372036854775806")),
    *(("2024-01-01", "2024-02-01"), ("0044-03-15 BC", "infinity"), ("-infinity", "2024-01-01 00:00")),
    *(("2024-01-01 00:00+02", "2024-01-01 00:00-02"), ("2024-01-01 00:00", "2024-02-01 12:00:00.5")),
    *(("a", "b"), ("", "a b"), ("(", ")"), ('"', "\\"), (",", "é")),
)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ranges(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield from ("empty", "(,)", "[,]")
    for low, high in pairs:
        a, b = _quoted(low), _quoted(high)
        yield from (f"[{a},{b})", f"({a},{b}]", f"[{a},{a}]", f"[{a},)", f"(,{b}]")
        yield from (f"{{[{a},{b})}}", f"{{(,{a}),[{b},)}}")
    yield "{}"


def awkward() -> list[str]:
    """Texts at the edges of every type; most types read only a few of them."""
    return [*_TEXTS, *_NUMBERS, *_MOMENTS, *_DOCUMENTS, *_OTHERS, *_ranges(_BOUNDS)]


# At random --------------------------------------------------------------------------------------------------

_SIGNS: Final = string.ascii_letters[:8] + string.digits[:4] + " \t\n\x01\x7f,;{}()[]\"\\'=:.%éß日🎸\u2028"


def _text(dice: Random) -> str:
    return "".join(dice.choices(_SIGNS, k=dice.randint(0, 12)))


def _number(dice: Random) -> str:
    match dice.randrange(4):
        case 0:
            return str(dice.randint(-(2 ** dice.randint(1, 64)), 2 ** dice.randint(1, 64)))
        case 1:
            return f"{dice.uniform(-1, 1) * 10 ** dice.randint(-30, 30)!r}"
        case 2:
            return f"{dice.uniform(-1, 1):.{dice.randint(0, 25)}f}"
        case _:
            return f"{dice.uniform(-10, 10)!r}e{dice.randint(-307, 307)}"


def _moment(dice: Random) -> str:
    when = datetime(1, 1, 1) + timedelta(microseconds=dice.randrange(10**17))  # noqa: DTZ001 (of no zone)
    text = when.isoformat(" ", timespec=dice.choice(["minutes", "seconds", "milliseconds", "microseconds"]))
    zone = dice.choice(["", "Z", "+05:45", "-08"])
    text = dice.choice([text, text[:10], text[11:]]) + zone
    return text + dice.choice(["", "", " BC"])


def _interval(dice: Random) -> str:
    parts = [f"{dice.randint(-50, 50)} {unit}" for unit in ("years", "mons", "days", "hours", "secs")]
    return " ".join(dice.sample(parts, dice.randint(1, 5))) + f" {dice.uniform(-9, 9):.6f} secs"


def _document(dice: Random, depth: int = 3) -> Any:
    kind = dice.randrange(7 if depth else 5)
    if kind == 5:
        return [_document(dice, depth - 1) for _ in range(dice.randrange(4))]
    if kind == 6:
        return {_text(dice): _document(dice, depth - 1) for _ in range(dice.randrange(4))}
    return (None, True, _text(dice), dice.randint(-(2**60), 2**60), dice.uniform(-9, 9))[kind]


def _point(dice: Random) -> str:
    return f"({_number(dice)},{_number(dice)})"


def _shape(dice: Random) -> str:
    points = ",".join(_point(dice) for _ in range(dice.randint(1, 4)))
    return dice.choice([points, f"[{points}]", f"({points})", f"<{_point(dice)},{dice.random()}>"])


def _address(dice: Random) -> str:
    text = ".".join(str(dice.randrange(256)) for _ in range(4))
    six = ":".join(f"{dice.randrange(65536):x}" for _ in range(8))
    mac = ":".join(f"{dice.randrange(256):02x}" for _ in range(dice.choice([6, 8])))
    return dice.choice([text, f"{text}/{dice.randrange(33)}", six, f"{six}/{dice.randrange(129)}", mac])


def _bytes(dice: Random) -> str:
    return dice.choice(
        [
            "\\x" + dice.randbytes(dice.randrange(9)).hex(),
            f"{dice.getrandbits(dice.randint(1, 20)):b}",
            str(UUID(int=dice.getrandbits(128))),
            f"{dice.getrandbits(32):X}/{dice.getrandbits(32):X}",
        ]
    )


def _range(dice: Random) -> str:
    make = dice.choice([_number, _moment, _text])
    low, high = sorted((make(dice), make(dice)), key=lambda text: (len(text), text))
    return dice.choice(list(_ranges([(low, high), (high, low)])))


def _json(dice: Random) -> str:
    return json.dumps(_document(dice), ensure_ascii=dice.random() < 0.5)


_MAKERS: Final = (_text, _number, _moment, _interval, _shape, _address, _bytes, _range, _json)


def randomly(dice: Random, count: int) -> list[str]:
    """Texts of all kinds, the same for the same dice.

    Args:
        dice: where they come from.
        count: how many.
    """
    return [make(dice) for make in itertools.islice(itertools.cycle(_MAKERS), count)]


# Put together -----------------------------------------------------------------------------------------------


def array(dice: Random, values: Sequence[str | None], delimiter: str) -> str:
    """Write an array of some of the values, perhaps empty, nested, or with other bounds than usual.

    Args:
        dice: what it looks like.
        values: the texts of its elements; None stands for NULL.
        delimiter: what separates elements of the type.
    """
    sizes = [dice.randint(1, 3) for _ in range(dice.choice([0, 1, 1, 1, 1, 2, 3]))]
    if not sizes:
        return "{}"
    lows = [dice.choice([1, 1, 0, -2, 5]) for _ in sizes]

    def level(depth: int) -> str:
        if depth == len(sizes):
            value = dice.choice(values)
            return "NULL" if value is None else _quoted(value)
        return "{" + delimiter.join(level(depth + 1) for _ in range(sizes[depth])) + "}"

    bounds = "".join(f"[{low}:{low + size - 1}]" for low, size in zip(lows, sizes, strict=True))
    return level(0) if lows == [1] * len(lows) else f"{bounds}={level(0)}"


def composite(values: Sequence[str | None]) -> str:
    """Write a row.

    Args:
        values: the texts of its fields; None stands for NULL.
    """
    return "(" + ",".join("" if value is None else _quoted(value) for value in values) + ")"
