"""What is known of a row before and after what a transaction did to it."""

from __future__ import annotations

from typing import Any

import pytest

from backbeat.postgres.pgoutput import UNCHANGED, Column, Delete, Insert, OldKind, Relation, Update
from backbeat.postgres.row_changes import RowChange, row_changes
from backbeat.postgres.transactions import Transaction


def relation(identity: str = "d", *, columns: int = 2) -> Relation:
    """A table with the key `id`; with full identity everything counts as one."""
    names = ("id", "title", "body")[:columns]
    keys = {"d": ("id",), "f": names, "n": ()}[identity]
    described = tuple(Column(name, 25, -1, is_key=name in keys) for name in names)
    return Relation(1, "public", "songs", identity, described)


SONGS, FULL, NO_IDENTITY = relation(), relation("f"), relation("n")


def insert(*row: Any, of: Relation = SONGS) -> Insert:
    return Insert(of, [*row])


def update(*row: Any, old: list[Any] | None = None, of: Relation = SONGS) -> Update:
    whole: OldKind = "O" if of.replica_identity == "f" else "K"
    return Update(of, old, None if old is None else whole, [*row])


def delete(*row: Any) -> Delete:
    return Delete(SONGS, [*row], "K")


def changes(*events: Any) -> list[RowChange]:
    transaction = Transaction(7, 100, 0, [*events], end_lsn=101)
    return list(row_changes([transaction], lambda _: True))


def summary(*events: Any) -> list[tuple[str, Any, bool]]:
    return [(change.kind, change.new, change.updated) for change in changes(*events)]


def test_an_insert_is_told_as_its_transaction_left_the_row() -> None:
    """What it was before nobody could see."""
    assert summary(insert(b"1", b"a"), update(b"1", b"b"), update(b"1", b"c")) == [
        ("INSERT", [b"1", b"c"], True),
        ("UPDATE", [b"1", b"b"], False),
        ("UPDATE", [b"1", b"c"], False),
    ]


def test_a_row_is_known_again_by_its_new_key() -> None:
    """An update may change the key, which then comes along as it was."""
    assert summary(insert(b"1", b"a"), update(b"2", b"b", old=[b"1", None]), update(b"2", b"c"))[0] == (
        "INSERT",
        [b"2", b"c"],
        True,
    )


def test_with_full_identity_a_row_is_known_by_all_it_holds() -> None:
    """The whole old row comes along with each update."""
    events = insert(b"1", b"a", of=FULL), update(b"1", b"b", old=[b"1", b"a"], of=FULL)
    assert summary(*events)[0] == ("INSERT", [b"1", b"b"], True)


def test_a_large_value_that_did_not_come_along_again_is_kept() -> None:
    """An update leaves out what it did not change and what is stored elsewhere."""
    assert summary(insert(b"1", b"a"), update(b"1", UNCHANGED))[0] == ("INSERT", [b"1", b"a"], True)


def test_a_row_that_was_deleted_is_not_the_one_that_is_inserted_after_it() -> None:
    """Both have the same key, and the first was never there for anybody."""
    first, *_, last = summary(insert(b"1", b"a"), update(b"1", b"b"), delete(b"1", None), insert(b"1", b"c"))
    assert (first[2], last) == (False, ("INSERT", [b"1", b"c"], False))


def test_without_an_identity_rows_are_not_taken_for_each_other() -> None:
    """There is nothing to know them by."""
    events = insert(b"1", b"a", of=NO_IDENTITY), insert(b"2", b"b", of=NO_IDENTITY)
    assert summary(*events) == [("INSERT", [b"1", b"a"], False), ("INSERT", [b"2", b"b"], False)]


def test_a_table_that_was_altered_on_the_way_keeps_its_insert_as_it_was() -> None:
    """The row of before has other columns."""
    wider = relation(columns=3)
    events = insert(b"1", b"a"), update(b"1", b"b", None, of=wider)
    assert summary(*events)[0] == ("INSERT", [b"1", b"a"], False)


def test_the_next_transaction_is_told_apart() -> None:
    """What it does to the row could be seen in between."""
    one = Transaction(1, 1, 0, [insert(b"1", b"a")], end_lsn=2)
    two = Transaction(2, 3, 0, [update(b"1", b"b")], end_lsn=4)
    assert [change.new for change in row_changes([one, two], lambda _: True)] == [[b"1", b"a"], [b"1", b"b"]]


@pytest.mark.parametrize(
    ("columns", "expected"), [(("id",), ("1",)), (("id", "title"), None), (("gone",), None)]
)
def test_texts_are_there_only_when_every_column_is(columns: tuple[str, ...], expected: Any) -> None:
    """NULL equals nothing, and what did not come along may be anything."""
    (change,) = changes(insert(b"1", None))
    assert change.texts(columns) == expected
