"""What Postgres is asked about rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backbeat.postgres.policies import Access
    from backbeat.tokens.claims import Claims

__all__ = ["Call", "Question", "Version"]


@dataclass(frozen=True, slots=True)
class Version:
    """What a change made of a row.

    Attributes:
        key: the values of the primary key, in its order, as Postgres writes them.
        xid: the transaction of the change, if it is known to have been its last change to this row.
        values: the columns that came with the change.
    """

    key: tuple[str, ...]
    xid: str | None
    values: Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Question:
    """Who of those with one role sees which versions of the rows of one table.

    Attributes:
        access: the table as that role sees it.
        versions: the versions.
        viewers: who is asked about which of them, by index.
    """

    access: Access
    versions: Sequence[Version]
    viewers: Mapping[Claims, Sequence[int]]


class Call(NamedTuple):
    """A question, and those of its viewers who are asked together."""

    question: Question
    viewers: tuple[Claims, ...]
