"""Which changes were overtaken: the row had changed again before anybody was asked about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from backbeat.postgres.policies import Access
    from backbeat.postgres.row_changes import RowChange

__all__ = ["Overtaken"]


class Overtaken:
    """Counts changes that somebody may have missed, for the next one came before they were asked.

    A row is looked up as it is now. When somebody does not see it, and it turns out that the row had been
    changed or deleted by then, nobody can tell any more whether they could have seen it before.

    Attributes:
        count: how many there have been.
    """

    def __init__(self) -> None:
        self.count = 0
        self._refused: dict[tuple[int, tuple[str, ...]], int] = {}
        """Rows that somebody did not see, with the end of the WAL when they were asked; the oldest first."""

    def note(
        self,
        changes: Sequence[RowChange],
        access: Mapping[tuple[int, str], Access | None],
        refused: Collection[RowChange],
        until: int,
    ) -> None:
        """Take note of changes that have been handled.

        Args:
            changes: all of them, in the order of their commits.
            access: what is known of their tables.
            refused: those that somebody was asked about who did not see the row.
            until: where the WAL ended when they had been asked.
        """
        tables = {seen.oid: seen for seen in access.values() if seen is not None}
        for change in changes:
            seen = tables.get(change.relation.oid)
            if seen is None:
                continue
            before, after = change.key_before(seen), change.key(seen)
            if before is not None and self._refused.pop((seen.oid, before), 0) >= change.lsn:
                self.count += 1
            if change in refused and after is not None:
                self._refused[seen.oid, after] = until
        # What commits from here on was not there when those were asked.
        self._refused = {row: end for row, end in self._refused.items() if end >= changes[-1].lsn}
