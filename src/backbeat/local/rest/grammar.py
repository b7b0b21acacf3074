"""Reads the query string of `/rest/v1`. No I/O, and one way to fail: `RestError`.

The grammar is section 5.2 of the HTTP surface specification::

    select=id,task,note:title,done::text,meta->tags->>0     items
    qty=gt.3    tags=not.cs.{a,b}    meta->>k=in.(a,"b,c")  conditions, all of which must hold
    or=(qty.gt.3,and(name.eq.a,not.or(id.eq.1,id.eq.2)))    trees of conditions
    order=id.desc,name.asc.nullsfirst    limit=3    offset=2
    columns="a","b"    on_conflict=name                     for writes
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl

from backbeat.local.rest import errors
from backbeat.local.rest.query import (
    OPERATORS,
    SEARCHES,
    TRUTHS,
    Arrow,
    Condition,
    Field,
    Item,
    Order,
    Query,
    Tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backbeat.local.rest.errors import RestError

__all__ = ["looks_like_condition", "pairs_of", "parse"]

T = TypeVar("T")

QUANTIFIABLE = frozenset({"eq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch"})

MAX_DEPTH = 50
"""How deep `and(…)` and `or(…)` may nest; real ones stay below five."""

MAX_PARAMETERS = 1000

MAX_NUMBER = 2**63 - 1
"""PostgreSQL's limit of LIMIT."""

NAME = re.compile(r'(?:(?!->)[^.,:()"])+')
QUOTED = re.compile(r'"((?:[^"\\]|\\.)+)"', re.DOTALL)
QUOTED_VALUE = re.compile(r'"((?:[^"\\]|\\.)*)"(?=[,)]|\Z)', re.DOTALL)
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
BRACED = re.compile(r'\{(?:[^"{}\\]|\\.|"(?:[^"\\]|\\.)*")*\}(?=[,)])', re.DOTALL)
BARE = re.compile(r"[^,)]*")
REST = re.compile(r".*", re.DOTALL)
CAST = re.compile(r"[A-Za-z_][A-Za-z0-9_ ]*(?:\[\])?")
INDEX = re.compile(r"-?[0-9]+")
WORD = re.compile(r"[a-z_]+")
AGGREGATE = re.compile(r"\.?(?:avg|count|max|min|sum)\(\)")
CONDITION = re.compile(rf"(?:not\.)?(?:{'|'.join([*OPERATORS, *SEARCHES, 'in', 'is'])})(?:\([^)]*\))?\.")


def pairs_of(query_string: bytes) -> list[tuple[str, str]]:
    """Undo the percent-encoding of a query string.

    Raises:
        RestError: 400 when that does not give text PostgreSQL could store, or there are too many parameters.
    """
    try:
        pairs = parse_qsl(
            query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError as error:
        raise errors.unparsable("query string", "…", 0, "not percent-encoded UTF-8, or too long") from error
    if any("\0" in key or "\0" in value for key, value in pairs):
        raise errors.unparsable("query string", "…", 0, "U+0000 cannot be part of a text")
    return pairs


def looks_like_condition(value: str) -> bool:
    """Tell `eq.3` from the bare value of a function argument."""
    return CONDITION.match(value) is not None


def parse(pairs: Iterable[tuple[str, str]]) -> Query:
    """Read the parameters of a query string; of repeated ones other than conditions, the last counts.

    Args:
        pairs: names and values, percent-encoding undone.

    Raises:
        RestError: 400 when one of them does not follow the grammar.
    """
    select: tuple[Item, ...] = ()
    where: list[Condition | Tree] = []
    order: tuple[Order, ...] = ()
    limit: int | None = None
    offset = 0
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] = ()
    for key, value in pairs:
        match key:
            case "select":
                select = _Scanner("select parameter", value).list_of(_Scanner.item)
            case "order":
                order = _Scanner("order", value).list_of(_Scanner.order)
            case "limit":
                limit = _number(key, value)
            case "offset":
                offset = _number(key, value)
            case "columns":
                columns = _Scanner("columns parameter", value).list_of(_Scanner.name) or None
            case "on_conflict":
                on_conflict = _Scanner("on_conflict parameter", value).list_of(_Scanner.name)
            case "and" | "or" | "not.and" | "not.or":
                where.append(_Scanner("logic tree", value).lone_tree(key))
            case _:
                field = _Scanner("column", key).lone_field()
                where.append(_Scanner("filter", value).lone_condition(field))
    return Query(select or (Item(),), tuple(where), order, limit, offset, columns, on_conflict)


def _number(what: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > MAX_NUMBER:
        raise errors.unparsable(what, text, 0, "expecting a number that is not negative")
    return int(text)


class _Scanner:
    """Reads one parameter from left to right; every method but the first four is a rule of the grammar.

    Args:
        what: what is read, for error texts.
        text: the parameter.
    """

    def __init__(self, what: str, text: str) -> None:
        self._what = what
        self._text = text
        self._at = 0

    def expecting(self, what: str) -> RestError:
        found = f'"{self._text[self._at]}"' if self._at < len(self._text) else "end of input"
        return errors.unparsable(self._what, self._text, self._at, f"unexpected {found} expecting {what}")

    def take(self, literal: str) -> bool:
        """Step over a literal if it comes next."""
        taken = self._text.startswith(literal, self._at)
        if taken:
            self._at += len(literal)
        return taken

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Step over what a pattern matches here, if it does."""
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def require(self, literal: str) -> None:
        """Step over a literal that must come next."""
        if not self.take(literal):
            raise self.expecting(f'"{literal}"')

    def end(self) -> None:
        if self._at < len(self._text):
            raise self.expecting("end of input")

    def list_of(self, element: Callable[[_Scanner], T]) -> tuple[T, ...]:
        """A whole parameter of elements between commas; nothing at all is the empty list."""
        if not self._text:
            return ()
        elements = [element(self)]
        while self.take(","):
            elements.append(element(self))
        self.end()
        return tuple(elements)

    def name(self) -> str:
        if quoted := self.match(QUOTED):
            return ESCAPED.sub(r"\1", quoted[1])
        bare = self.match(NAME)
        if bare is None or not bare[0].strip():
            raise self.expecting("a name")
        return bare[0].strip()

    def field(self) -> Field:
        return self._field_from(self.name())

    def _field_from(self, column: str) -> Field:
        path = []
        while self.take("->"):
            text = self.take(">")
            key = self.name()
            path.append(Arrow(key, INDEX.fullmatch(key) is not None, text))
        return Field(column, tuple(path))

    def lone_field(self) -> Field:
        """The name of a parameter."""
        field = self.field()
        if self.take("."):
            raise errors.embedded_parameter(field.column)
        self.end()
        return field

    def item(self) -> Item:
        if self.take("*"):
            return Item()
        if self.take("..."):
            raise errors.embedding(self.name().partition("!")[0])
        name, alias = self._output_name(), None
        if not self._text.startswith("::", self._at) and self.take(":"):
            alias, name = name, self._output_name()
        field = self._field_from(name)
        cast = None
        if self.take("::"):
            found = self.match(CAST)
            if found is None:
                raise self.expecting("a type")
            cast = found[0].strip()
        return Item(field, alias, cast)

    def _output_name(self) -> str:
        """A name in `select`, unless it is that of another table or of an aggregate."""
        if self.match(AGGREGATE):
            raise errors.aggregate()
        name = self.name()
        if self.match(AGGREGATE):
            raise errors.aggregate()
        if self.take("("):
            raise errors.embedding(name.partition("!")[0])
        return name

    def order(self) -> Order:
        field = self.field()
        if self.take("("):
            raise errors.embedding(field.column)
        descending, nulls, words = False, None, []
        while self.take("."):
            word = self.match(WORD)
            words.append(word[0] if word else "")
        if words and words[0] in ("asc", "desc"):
            descending = words.pop(0) == "desc"
        if words and words[0] in ("nullsfirst", "nullslast"):
            nulls = words.pop(0).removeprefix("nulls")
        if words:
            raise self.expecting("asc, desc, nullsfirst or nullslast")
        return Order(field, descending, nulls)

    def lone_condition(self, field: Field) -> Condition:
        """The value of a parameter that is named like a column."""
        condition = self._condition_of(field, nested=False)
        self.end()
        return condition

    def lone_tree(self, key: str) -> Tree:
        """The value of a parameter `and`, `or`, `not.and` or `not.or`."""
        tree = self._tree(key.removeprefix("not."), negated=key.startswith("not."), depth=1)
        self.end()
        return tree

    def _tree(self, operator: str, *, negated: bool, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise self.expecting(f"no more than {MAX_DEPTH} levels")
        self.require("(")
        parts = [self._part(depth)]
        while self.take(","):
            parts.append(self._part(depth))
        self.require(")")
        return Tree(operator, tuple(parts), negated)

    def _part(self, depth: int) -> Condition | Tree:
        for prefix in ("not.", ""):
            for operator in ("and", "or"):
                if self._text.startswith(f"{prefix}{operator}(", self._at):
                    self._at += len(prefix) + len(operator)
                    return self._tree(operator, negated=bool(prefix), depth=depth + 1)
        field = self.field()
        self.require(".")
        return self._condition_of(field, nested=True)

    def _condition_of(self, field: Field, *, nested: bool) -> Condition:
        """Operator and value; a nested value ends at a comma or parenthesis, a lone one at the end."""
        negated = self.take("not.")
        word = self.match(WORD)
        operator = word[0] if word else ""
        argument = None
        if self.take("("):
            found = self.match(BARE)
            argument = found[0] if found else ""
            self.require(")")
        quantified = operator in QUANTIFIABLE and argument in ("any", "all")
        known = operator in OPERATORS or operator in SEARCHES or operator in ("in", "is")
        if not known or (argument is not None and not (quantified or operator in SEARCHES)):
            raise self.expecting("operator (eq, gt, ...)")
        self.require(".")
        if operator == "in":
            return Condition(field, operator, self._values(), negated)
        value = self._value() if nested else self._bare(REST)
        if operator == "is":
            value = value.lower()
            if value not in TRUTHS:
                raise self.expecting(", ".join(TRUTHS))
        elif operator in ("like", "ilike"):
            value = value.replace("*", "%")
        return Condition(
            field,
            operator,
            value,
            negated,
            quantifier=argument if quantified else None,
            configuration=argument if operator in SEARCHES else None,
        )

    def _values(self) -> tuple[str, ...]:
        self.require("(")
        if self.take(")"):
            return ()
        values = [self._value()]
        while self.take(","):
            values.append(self._value())
        self.require(")")
        return tuple(values)

    def _value(self) -> str:
        if quoted := self.match(QUOTED_VALUE):
            return ESCAPED.sub(r"\1", quoted[1])
        return self._bare(BRACED) or self._bare(BARE)

    def _bare(self, pattern: re.Pattern[str]) -> str:
        found = self.match(pattern)
        return found[0] if found else ""
