"""The filter of a change subscription: `column=operator.value`, joined by commas (specification, 8.2).

Comparing takes two steps. Postgres casts the value of a filter to the type of its column and gives back the
text of what it understood; a row from the replication stream is written by the same output functions. So rows
are compared with filters as text, or as what stands in the text, wherever that gives the same answer as
Postgres gives. Where it might not, a comparison names the `Relation` by which Postgres has to compare.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from backbeat.protocol import reasons

__all__ = [
    "EQUALITIES",
    "MAX_IN_VALUES",
    "ORDERS",
    "PATTERNS",
    "Comparison",
    "Condition",
    "Normal",
    "Operator",
    "Relation",
    "as_integer",
    "as_moment",
    "as_number",
    "as_padded",
    "as_text",
    "parse_filter",
]

Operator: TypeAlias = Literal[
    "eq", "neq", "lt", "lte", "gt", "gte", "in", "like", "ilike", "is", "match", "imatch", "isdistinct"
]
OPERATORS: Final = frozenset(get_args(Operator))

EQUALITIES: Final = frozenset({"eq", "neq", "in", "isdistinct"})
"""The operators that ask whether two values are equal."""

ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
"""The operators that ask which of two values comes first."""

PATTERNS: Final = frozenset({"like", "ilike", "match", "imatch"})
"""The operators that compare a text with a pattern."""

MAX_IN_VALUES: Final = 100

Normal: TypeAlias = Callable[[bytes], Hashable | None]
"""Maps the texts of equal values to equal objects, and to ordered ones where it serves for that. None stands
for a text that is not of the type: the type of the column has changed since the filter was read."""


@dataclass(frozen=True, slots=True)
class Relation:
    """How Postgres compares the value of a column with that of a filter.

    Attributes:
        role: as whom it is asked: comparing may call functions that somebody else wrote.
        left: the type of the column, below any domain, as SQL writes it.
        right: the type of the filter's value.
        symbol: the operator, as SQL writes it.
        schema: where that operator is.
        collation: the collation of the column as SQL writes it, if its type has one.
    """

    role: str
    left: str
    right: str
    symbol: str
    schema: str
    collation: str | None


@dataclass(frozen=True, slots=True)
class Condition:
    """One segment of a filter, as the client wrote it.

    Attributes:
        column: the name of the column.
        operator: how to compare.
        values: what to compare with: one value, or those of an `in` list, where None is an unquoted NULL.
        negated: whether `not.` stood before the operator.
    """

    column: str
    operator: Operator
    values: tuple[str | None, ...]
    negated: bool = False

    def __str__(self) -> str:
        """Write the condition as the original does in its error texts."""
        value = self.values[0] if self.operator != "in" else None
        if value is None:
            value = "{" + ",".join("NULL" if v is None else _list_item(v) for v in self.values) + "}"
        return (
            f"{{{quote(self.column)}, {quote(self.operator)}, {quote(value)}, {str(self.negated).lower()}}}"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """A condition made ready for the type of its column.

    A comparison with NULL is never true, negated or not; only `is` and `isdistinct` see NULLs.

    Attributes:
        column: the name of the column.
        operator: how to compare.
        values: normalised values as Postgres writes them; the keyword, for `is`.
        negated: whether the result is turned around.
        with_null: whether an `in` list holds NULL: then nothing is known to be outside of it.
        normal: brings the text of a row to the form of `values`.
        relation: how Postgres compares, where it has to be asked; `values` are plain texts then.
    """

    column: str
    operator: Operator
    values: frozenset[Hashable]
    negated: bool
    with_null: bool
    normal: Normal
    relation: Relation | None = None

    def __hash__(self) -> int:
        # Comparisons are looked up for every change; these parts tell them apart, and have cheap hashes.
        return hash((self.column, self.operator, self.values))

    @classmethod
    def of(
        cls,
        condition: Condition,
        canonical: Sequence[bytes | None],
        normal: Normal,
        relation: Relation | None = None,
    ) -> Comparison:
        """Make a condition ready.

        Args:
            condition: what the client wrote.
            canonical: its values as the column's type writes them.
            normal: how the texts of that type are compared; `as_text`, where Postgres compares.
            relation: how Postgres compares, where it has to be asked.
        """
        if condition.operator in PATTERNS and relation is None:
            raise ValueError(f"only Postgres can tell what {condition.operator} matches")
        return cls(
            condition.column,
            condition.operator,
            frozenset(normal(value) for value in canonical if value is not None),
            condition.negated,
            None in canonical,
            normal,
            relation,
        )

    @property
    def needs_database(self) -> bool:
        """Whether Postgres has to be asked: then `concludes` takes the place of `accepts`."""
        return self.relation is not None

    @property
    def wanted(self) -> Hashable | None:
        """The only value that matches, where there is just one: subscriptions are found by it."""
        if self.operator == "eq" and not self.negated and not self.needs_database:
            return next(iter(self.values), None)
        return None

    def accepts(self, value: bytes | None) -> bool:
        """Tell whether a row with this value in the column matches.

        Args:
            value: the text as Postgres writes it, or None for NULL.
        """
        if self.operator == "is":
            return self._is(value) is not self.negated
        if value is None:
            return self.concludes(None, holds=False)
        normal = self.normal(value)
        if normal is None:
            return False
        order = ORDERS.get(self.operator)
        if order is None:
            return self.concludes(value, holds=normal in self.values)
        return self.concludes(value, holds=all(order(normal, other) for other in self.values))

    def concludes(self, value: bytes | None, *, holds: bool) -> bool:
        """Tell whether a row matches, when it is known how its value compares.

        Args:
            value: the text as Postgres writes it, or None for NULL.
            holds: whether it equals one of `values`, or stands in the wanted order to the only one, or fits
                the pattern. Means nothing for NULL.
        """
        if self.operator == "isdistinct":
            return (value is None or not holds) is not self.negated
        if value is None or (self.with_null and not holds):
            return False
        return holds is not (self.negated is not (self.operator == "neq"))

    def _is(self, value: bytes | None) -> bool:
        if b"true" in self.values:
            return value == b"t"
        if b"false" in self.values:
            return value == b"f"
        return value is None


def as_text(text: bytes) -> Hashable | None:
    """Compare the text itself, byte by byte: most types write equal values alike."""
    return text


def as_padded(text: bytes) -> Hashable | None:
    """Compare without the blanks at the end, which mean nothing in a `char(n)`."""
    return text.rstrip(b" ")


def as_integer(text: bytes) -> Hashable | None:
    """Compare as whole numbers."""
    try:
        return int(text)
    except ValueError:
        return None


def as_number(text: bytes) -> Hashable | None:
    """Compare as numbers: `1.50` is `1.5`, `-0` is `0`, and to Postgres `NaN` is itself, above all others."""
    try:
        number = Decimal(text.decode())
    except (InvalidOperation, UnicodeDecodeError):
        return None
    return (True, 0) if number.is_nan() else (False, number)


_MOMENT = re.compile(rb"(?P<year>\d{4,})(?P<rest>-\d\d-\d\d(?: [\d:.]+(?:\+00)?)?)(?P<before> BC)?")


def as_moment(text: bytes) -> Hashable | None:
    """Compare as dates, with or without a time, in ISO form and UTC.

    Below the year, which may be longer than four digits or before Christ, their texts come in the order of
    the values: all parts have a fixed width apart from the fraction, and what may follow the seconds, `+`,
    comes before `.`.
    """
    if text in (b"infinity", b"-infinity"):
        return (float(text), b"")
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    year = int(found["year"])
    return (-year if found["before"] else year, found["rest"])


def parse_filter(text: str) -> tuple[Condition, ...]:
    """Read a filter.

    Args:
        text: what the client sent; a blank one has no conditions.

    Returns:
        The conditions; a row has to meet all of them.

    Raises:
        BadRequest: the text does not follow the grammar.
    """
    if not text.strip():
        return ()
    segments = [segment.strip() for segment in _split(text.strip())]
    if not all(segments):
        raise _malformed("filter must not contain empty segments (check for extra commas)")
    return tuple(_condition(segment) for segment in segments)


def quote(text: str) -> str:
    """Write a text in double quotes, as error texts show it."""
    return json.dumps(text, ensure_ascii=False)


_SEGMENT = re.compile(r"(?P<column>[^=]*)=(?P<negated>not\.)?(?P<operator>[^.]*)\.(?P<value>.*)", re.DOTALL)


def _condition(segment: str) -> Condition:
    found = _SEGMENT.fullmatch(segment)
    if found is None:
        raise _malformed(_dump(segment.split("=", 1)))
    column, operator, value = found["column"], found["operator"], found["value"]
    if operator not in OPERATORS or not column:
        raise _malformed(_dump([column, operator, value]))
    values: tuple[str | None, ...] = (_unquoted(value),)
    if operator == "in":
        if not (value.startswith("(") and value.endswith(")")):
            raise _malformed("`in` filter value must be wrapped by parentheses")
        values = tuple(_item(item) for item in _split(value[1:-1])) if value[1:-1].strip() else ()
    return Condition(column, cast("Operator", operator), values, found["negated"] is not None)


def _split(text: str) -> list[str]:
    """Split at the commas outside of parentheses and quotes.

    A quote counts only directly after `.`, `(` or `,`, or at the beginning.
    """
    parts, start, depth, position = [], 0, 0, 0
    while position < len(text):
        character = text[position]
        if character == '"' and (position == 0 or text[position - 1] in ".(,"):
            position = _quote_end(text, position)
        elif character == "(":
            depth += 1
        elif character == ")":
            depth = max(depth - 1, 0)
        elif character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
        position += 1
    return [*parts, text[start:]]


def _quote_end(text: str, start: int) -> int:
    """Find the quote that closes the one at `start`, or the end of the text."""
    position = start + 1
    while position < len(text) and text[position] != '"':
        position += 2 if text[position] == "\\" else 1
    return position


def _unquoted(value: str) -> str:
    """Take the quotes off. Without a closing quote, or with text behind it, a value is meant literally."""
    if not value.startswith('"') or _quote_end(value, 0) != len(value) - 1:
        return value
    return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)


def _item(item: str) -> str | None:
    """Read an element of an `in` list: blanks around it mean nothing, and NULL is one unless quoted."""
    item = item.strip()
    return None if item.upper() == "NULL" else _unquoted(item)


def _list_item(value: str) -> str:
    plain = re.fullmatch(r"[^\s\"\\{},]+", value) and value.upper() != "NULL"
    return value if plain else quote(value)


def _dump(parts: Sequence[str]) -> str:
    return "[" + ", ".join(quote(part) for part in parts) + "]"


def _malformed(detail: str) -> Exception:
    return reasons.CHANGES_BAD_FILTER.refusal(detail=detail)
