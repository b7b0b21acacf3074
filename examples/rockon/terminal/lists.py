"""The four lists of a band: the tables, and the column that a row is called by."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

__all__ = ["LISTS", "Row", "title_of"]

Row: TypeAlias = dict[str, Any]

LISTS: Final = {"songs": "title", "setlists": "title", "shows": "venue", "practice_sessions": "place"}


def title_of(table: str, row: Row) -> str:
    """What a row is called, in a list and in a toast."""
    return str(row.get(LISTS[table], "something"))
