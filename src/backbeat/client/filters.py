"""The filter builder: `(F("age") >= 18) & F("status").in_(["new", "open"])` (client specification, 1.20)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Literal, NoReturn, TypeAlias
from uuid import UUID

from backbeat.errors import ConfigurationError
from backbeat.protocol.filters import MAX_IN_VALUES

__all__ = ["F", "Filter"]

Value: TypeAlias = str | int | float | bool | Decimal | date | datetime | time | UUID | None
"""What a column can be compared with."""

_NEEDS_QUOTES = re.compile(r"[,()\"\\]|^\s|\s$|^$")


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions a row has to meet, all of them; made with `F`.

    Attributes:
        conditions: each as it is sent, `column=operator.value`.
    """

    conditions: tuple[str, ...]

    def __and__(self, other: Filter) -> Filter:
        """Both."""
        return Filter(self.conditions + other.conditions)

    def __invert__(self) -> Filter:
        """The opposite of one condition: `~F("title").like("a%")`.

        Raises:
            ConfigurationError: there are several: the opposite of that would be an `or`.
        """
        if len(self.conditions) != 1:
            raise ConfigurationError("Only a single condition can be turned around.")
        column, _, comparison = self.conditions[0].partition("=")
        turned = comparison.removeprefix("not.")
        return Filter((f"{column}={turned if turned != comparison else 'not.' + comparison}",))

    def __or__(self, other: object) -> NoReturn:
        """Not possible.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "A filter of row changes has no `or`.",
            hint="Use `in_` for several values of one column, or one subscription for each case.",
        )

    def __bool__(self) -> NoReturn:
        # `1 <= F("x") <= 3` and `a and b` would silently lose one of the two.
        raise ConfigurationError("A filter is no truth value: join filters with `&`, not with `and`.")

    def __str__(self) -> str:
        return ",".join(self.conditions)


class F:
    """A column to compare.

    A comparison with NULL is never true, negated or not; `is_` and `is_distinct` see NULLs.

    Args:
        column: its name.

    Raises:
        ConfigurationError: the name is empty, or holds what would end it.
    """

    __slots__ = ("_column",)

    def __init__(self, column: str) -> None:
        if not column or set(column) & set("=,"):
            raise ConfigurationError(f"{column!r} cannot be the column of a filter.")
        self._column = column

    def __repr__(self) -> str:
        return f"F({self._column!r})"

    __hash__ = None  # type: ignore[assignment] # == does not compare columns

    def __eq__(self, value: Value) -> Filter:  # type: ignore[override]
        """Equal."""
        return self._compare("eq", value)

    def __ne__(self, value: Value) -> Filter:  # type: ignore[override]
        """Not equal."""
        return self._compare("neq", value)

    def __lt__(self, value: Value) -> Filter:
        """Less."""
        return self._compare("lt", value)

    def __le__(self, value: Value) -> Filter:
        """Less or equal."""
        return self._compare("lte", value)

    def __gt__(self, value: Value) -> Filter:
        """Greater."""
        return self._compare("gt", value)

    def __ge__(self, value: Value) -> Filter:
        """Greater or equal."""
        return self._compare("gte", value)

    def in_(self, values: Iterable[Value]) -> Filter:
        """One of several values.

        Raises:
            ConfigurationError: there is none, or there are more than 100.
        """
        texts = list(dict.fromkeys(_quoted(value, null_is_word=True) for value in values))
        if not texts:
            raise ConfigurationError("Realtime 'in' filter requires at least one value.")
        if len(texts) > MAX_IN_VALUES:
            raise ConfigurationError(f"A filter takes {MAX_IN_VALUES} values at most.")
        return self._filter("in", f"({','.join(texts)})")

    def like(self, pattern: str) -> Filter:
        """Matches a pattern with `%` and `_`."""
        return self._compare("like", pattern)

    def ilike(self, pattern: str) -> Filter:
        """Matches a pattern with `%` and `_`, whatever the case."""
        return self._compare("ilike", pattern)

    def match(self, pattern: str) -> Filter:
        """Matches a POSIX regular expression."""
        return self._compare("match", pattern)

    def imatch(self, pattern: str) -> Filter:
        """Matches a POSIX regular expression, whatever the case."""
        return self._compare("imatch", pattern)

    def is_(self, value: Literal["null", "true", "false", "unknown"] | bool | None) -> Filter:
        """Is NULL, true, false or unknown.

        Raises:
            ConfigurationError: it is something else.
        """
        word = value if isinstance(value, str) else _text(value)
        if word not in ("null", "true", "false", "unknown"):
            raise ConfigurationError(f"`is_` takes None, True, False or 'unknown', and not {value!r}.")
        return self._filter("is", word)

    def is_distinct(self, value: Value) -> Filter:
        """Is not equal, where NULL is a value like others."""
        return self._compare("isdistinct", value)

    def _compare(self, operator: str, value: Value) -> Filter:
        return self._filter(operator, _quoted(value))

    def _filter(self, operator: str, value: str) -> Filter:
        return Filter((f"{self._column}={operator}.{value}",))


def _text(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return str(value)


def _quoted(value: Value, *, null_is_word: bool = False) -> str:
    """Write a value so that it is read as it was meant."""
    text = _text(value)
    is_null_text = null_is_word and isinstance(value, str) and text.upper() == "NULL"
    if not is_null_text and _NEEDS_QUOTES.search(text) is None:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
