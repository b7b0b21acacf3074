"""Whom the condition of a policy can let through at all, read from its text.

A condition is read as Postgres writes it with an empty search_path: every operator is in parentheses, and
what is not from pg_catalog stands there with its schema. What is understood is little, and only makes the set
of those who are asked smaller: who sees a row is for Postgres to say. So a part of an AND that is not
understood can be left out, while of an OR every part has to be understood.

Only what is monotone is understood: who is let through by `IN` or `EXISTS` when the viewer sees some rows of
the other table is let through, too, when they see more of them. That does not hold behind a NOT.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

__all__ = ["Limit", "Member", "Owner", "limits"]


@dataclass(frozen=True, slots=True)
class Owner:
    """Only the user whose id stands in a column of the row.

    Attributes:
        column: the column.
    """

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the row that are looked at."""
        return (self.column,)


@dataclass(frozen=True, slots=True)
class Member:
    """Only users whose id stands in another table.

    Attributes:
        schema: where the other table is.
        table: the other table.
        user: its column with the id of the user.
        matches: its columns that are equal to columns of the row, with those.
    """

    schema: str
    table: str
    user: str
    matches: tuple[tuple[str, str], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the row that are looked at."""
        return tuple(mine for _, mine in self.matches)


Limit: TypeAlias = Owner | Member


def limits(condition: str, table: str) -> frozenset[Limit] | None:
    """Tell whom a condition can let through.

    Args:
        condition: what `pg_get_expr` returns with an empty search_path.
        table: the name of the table whose rows it is about.

    Returns:
        One of these has to hold; None if anybody may be let through.
    """
    try:
        tree = _tree(condition)
    except ValueError:
        return None
    return _limits(tree, table)


# Reading ----------------------------------------------------------------------------------------------------


class _Name(NamedTuple):
    """An identifier."""

    text: str
    """Without the quotes."""


_Node: TypeAlias = "str | _Name | list[_Node]"
"""A token, or what stands in parentheses."""

_CONSTANTS: Final = ("true", "false", "null")
_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<name>[a-z_][a-z0-9_$]*)
    | "(?P<quoted>(?:[^"]|"")+)"
    | (?P<literal>E'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | [0-9][0-9.e+-]*)
    | (?P<other>[A-Z]+ | [()] | [\[\],.] | ::? | [-+*/<>=~!@\#%^&|`?]+)
    )""",
    re.VERBOSE | re.DOTALL,
)


def _tree(text: str) -> list[_Node]:
    """Take a text apart.

    Raises:
        ValueError: it has something in it that is unknown here.
    """
    levels: list[list[_Node]] = [[]]
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError("not a condition")
        position = found.end()
        if found["other"] == "(":
            levels.append([])
        elif found["other"] == ")":
            inner = levels.pop()
            if not levels:
                raise ValueError("a parenthesis too many")
            levels[-1].append(inner)
        elif found["name"] is not None and found["name"] not in _CONSTANTS:
            levels[-1].append(_Name(found["name"]))
        elif found["quoted"] is not None:
            levels[-1].append(_Name(found["quoted"].replace('""', '"')))
        else:
            levels[-1].append(found[0].strip())
    if len(levels) != 1:
        raise ValueError("a parenthesis too few")
    return levels[0]


# Understanding ----------------------------------------------------------------------------------------------


class _Column(NamedTuple):
    """A column.

    Attributes:
        table: as which table it is known, if that stands there.
        name: its own name.
    """

    table: str | None
    name: str


_UID: Final[list[_Node]] = [_Name("auth"), ".", _Name("uid"), []]


def _limits(tree: _Node, table: str) -> frozenset[Limit] | None:
    nodes = _bare(tree)
    if "OR" in nodes:
        parts = [_limits(part, table) for part in _split(nodes, "OR")]
        known = [part for part in parts if part is not None]
        return frozenset().union(*known) if len(known) == len(parts) else None
    if "AND" in nodes:
        found = [_limits(part, table) for part in _split(nodes, "AND")]
        return min((each for each in found if each is not None), key=_effort, default=None)
    limit = _equal(nodes, table) or _exists(nodes, table)
    return None if limit is None else frozenset({limit})


def _effort(limits: frozenset[Limit]) -> tuple[int, int]:
    return sum(isinstance(limit, Member) for limit in limits), len(limits)


def _equal(nodes: list[_Node], table: str) -> Limit | None:
    """Read `a = b`, `a IN (SELECT …)` and `a = (SELECT …)`."""
    sides = _sides(nodes)
    if sides is None:
        return None
    for left, right in (sides, sides[::-1]):
        column = _column(left)
        if column is not None and _is_uid(right):
            return Owner(column.name)
    wanted, query = sides
    # Who is let through by the only value of a query is let through by any of several.
    return _member(_bare(query), table, wanted)


def _exists(nodes: list[_Node], table: str) -> Limit | None:
    """Read `EXISTS (SELECT …)`."""
    return _member(_bare(nodes[1:]), table, None) if nodes[:1] == ["EXISTS"] else None


def _member(query: list[_Node], table: str, wanted: list[_Node] | None) -> Member | None:
    """Read a query of one table that has a user in it.

    Args:
        query: from SELECT on.
        table: the table of the row.
        wanted: what has to be equal to the one column that is selected; None if nothing has to.
    """
    match query:
        case ["SELECT", *selected, "FROM", _Name(schema), ".", _Name(other), "WHERE", where]:
            alias = other
        case ["SELECT", *selected, "FROM", _Name(schema), ".", _Name(other), _Name(alias), "WHERE", where]:
            pass
        case _:
            return None
    if any(isinstance(node, list) for node in selected):
        # A query that counts has a result for everybody.
        return None
    pairs = [_sides(part) for part in _conjuncts(where)]
    if wanted is not None:
        pairs.append((selected, wanted))
    users: list[str] = []
    matches: set[tuple[str, str]] = set()
    for left, right in filter(None, pairs):
        for inner, outer in ((left, right), (right, left)):
            column, compared = _column(inner), _column(outer)
            if column is None or column.table != alias:
                continue
            if _is_uid(outer):
                users.append(column.name)
            elif compared is not None and compared.table in (None, table):
                matches.add((column.name, compared.name))
    return Member(schema, other, users[0], tuple(sorted(matches))) if users else None


def _conjuncts(where: _Node) -> list[list[_Node]]:
    nodes = _bare(where)
    return [_bare(part) for part in _split(nodes, "AND")] if "OR" not in nodes else []


def _sides(nodes: list[_Node]) -> tuple[list[_Node], list[_Node]] | None:
    """Read what stands on both sides of the one operator, if that asks for equality."""
    for operator in ("=", "IN"):
        if nodes.count(operator) == 1:
            left, right = _split(nodes, operator)
            return left, right
    return None


def _is_uid(side: list[_Node]) -> bool:
    if len(side) == 1 and isinstance(side[0], list):
        return side[0] == ["SELECT", *_UID, "AS", _Name("uid")]
    return side == _UID


def _column(side: list[_Node]) -> _Column | None:
    """Read a column; of varchar the text is compared."""
    match side:
        case [list() as inner, "::", _Name("text")]:
            return _column(inner)
        case [_Name(name)]:
            return _Column(None, name)
        case [_Name(table), ".", _Name(name)]:
            return _Column(table, name)
    return None


def _bare(node: _Node) -> list[_Node]:
    """Take off the parentheses around everything."""
    while isinstance(node, list) and len(node) == 1:
        node = node[0]
    return node if isinstance(node, list) else [node]


def _split(nodes: list[_Node], word: str) -> list[list[_Node]]:
    """Divide at a word."""
    parts: list[list[_Node]] = [[]]
    for node in nodes:
        if node == word:
            parts.append([])
        else:
            parts[-1].append(node)
    return parts
