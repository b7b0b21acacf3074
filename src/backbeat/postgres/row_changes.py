"""What transactions did to rows: the events of the stream, with what is known of a row before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from backbeat.postgres.payloads import timestamp
from backbeat.postgres.pgoutput import UNCHANGED, Delete, Insert, Update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from backbeat.postgres.pgoutput import Relation, Row
    from backbeat.postgres.policies import Access
    from backbeat.postgres.transactions import Transaction

__all__ = ["Kind", "RowChange", "last_versions", "row_changes"]

Kind: TypeAlias = Literal["INSERT", "UPDATE", "DELETE"]


@dataclass(frozen=True, slots=True, eq=False)
class RowChange:
    """What a transaction did to a row.

    Attributes:
        kind: what happened.
        relation: the table.
        when: the time of the commit, as it is shown.
        transaction: which one, among those handled together.
        xid: its number.
        lsn: where it committed.
        complete: whether all of it is there; otherwise more of it follows later.
        new: the new row; what it left out is filled in where the old row has it. Of an INSERT, the row as its
            transaction left it: what it was before nobody could see.
        old: the old row, as far as it came along.
        updated: whether this is an INSERT of a row that its transaction changed once more.
        values: the columns a filter can look at.
    """

    kind: Kind
    relation: Relation
    when: str
    transaction: int
    xid: int
    lsn: int
    complete: bool
    new: Row | None
    old: Row | None
    updated: bool
    values: Mapping[str, bytes | None]

    def key(self, access: Access) -> tuple[str, ...] | None:
        """The primary key of the row, or None if it did not come along."""
        return self.texts(access.key)

    def key_before(self, access: Access) -> tuple[str, ...] | None:
        """The primary key it had before, or None if there was none or it did not come along."""
        return None if self.old is None else _texts(_known(self.relation, self.old), access.key)

    def texts(self, columns: Iterable[str]) -> tuple[str, ...] | None:
        """What stands in some columns, or None if one of them is NULL or did not come along."""
        return _texts(self.values, columns)


def _known(relation: Relation, row: Row) -> dict[str, bytes | None]:
    return {
        column.name: value
        for column, value in zip(relation.columns, row, strict=True)
        if value is not UNCHANGED
    }


def _texts(values: Mapping[str, bytes | None], columns: Iterable[str]) -> tuple[str, ...] | None:
    parts = [values.get(name) for name in columns]
    return tuple(part.decode() for part in parts if part is not None) if None not in parts else None


def row_changes(
    transactions: Iterable[Transaction], concerns: Callable[[Relation], bool]
) -> Iterator[RowChange]:
    """Pick the changes to rows, in the order of the stream.

    Args:
        transactions: in the order of their commits.
        concerns: whether the changes of a table are wanted.
    """
    for number, transaction in enumerate(transactions):
        when = timestamp(transaction.commit_time)
        for kind, relation, new, old, updated in _written(
            event
            for event in transaction.events
            if isinstance(event, Insert | Update | Delete) and concerns(event.relation)
        ):
            row = old if new is None else new
            assert row is not None
            yield RowChange(
                kind,
                relation,
                when,
                number,
                transaction.xid,
                transaction.commit_lsn,
                transaction.end_lsn is not None,
                new,
                old,
                updated,
                _known(relation, row),
            )


def last_versions(
    changes: Sequence[RowChange], access: Mapping[tuple[int, str], Access | None]
) -> set[RowChange]:
    """Find the changes that tell what their transaction left of a row: theirs is the version it wrote."""
    tables = {seen.oid: seen for seen in access.values() if seen is not None}
    found: set[RowChange] = set()
    passed: set[tuple[int, int, tuple[str, ...]]] = set()
    for change in reversed(changes):
        seen = tables.get(change.relation.oid)
        key = None if seen is None else change.key(seen)
        if key is None or not change.complete:
            continue
        row = change.transaction, change.relation.oid, key
        if row not in passed or change.updated:
            passed.add(row)
            found.add(change)
    return found


class _Written(NamedTuple):
    """An event, taken apart."""

    kind: Kind
    relation: Relation
    new: Row | None
    old: Row | None
    updated: bool


def _written(events: Iterable[Insert | Update | Delete]) -> list[_Written]:
    """Take the events of a transaction apart; what it inserted is told as it left it."""
    written: list[_Written] = []
    inserted: dict[tuple[int, tuple[object, ...]], int] = {}
    for event in events:
        relation = event.relation
        kind, new, old = _rows(event)
        at = None if old is None else inserted.pop(_place(relation, old), None)
        if at is not None:
            first = written[at]
            if new is None or first.new is None or first.relation != relation:
                written[at] = first._replace(updated=False)
            else:
                left = [
                    before if after is UNCHANGED else after
                    for before, after in zip(first.new, new, strict=True)
                ]
                written[at] = first._replace(new=left, updated=True)
                inserted[_place(relation, left)] = at
        elif kind == "INSERT" and new is not None and any(column.is_key for column in relation.columns):
            inserted[_place(relation, new)] = len(written)
        written.append(_Written(kind, relation, new, old, updated=False))
    return written


def _place(relation: Relation, row: Row) -> tuple[int, tuple[object, ...]]:
    """Tell by what a row is known again: the replica identity."""
    return relation.oid, tuple(
        value for column, value in zip(relation.columns, row, strict=True) if column.is_key
    )


def _rows(event: Insert | Update | Delete) -> tuple[Kind, Row | None, Row | None]:
    """Take the new and the old row out of an event; what is not known of them is `UNCHANGED`."""
    match event:
        case Insert():
            return "INSERT", event.new, None
        case Update(relation=relation, new=new, old=None):
            return "UPDATE", new, _identity(relation, new)
        case Update(relation=relation, new=new, old=old, old_kind=kind):
            assert old is not None
            known = old if kind == "O" else _identity(relation, old)
            merged = [
                before if after is UNCHANGED else after for before, after in zip(known, new, strict=True)
            ]
            return "UPDATE", merged, known
        case Delete(relation=relation, old=old, old_kind=kind):
            return "DELETE", None, old if kind == "O" else _identity(relation, old)


def _identity(relation: Relation, row: Row) -> Row:
    """Keep the columns of the replica identity: the others are written as NULL, and are not known."""
    return [
        value if column.is_key else UNCHANGED for column, value in zip(relation.columns, row, strict=True)
    ]
