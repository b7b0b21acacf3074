"""Who wants which changes: found by table, and by value where a filter asks for one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from backbeat.protocol.bindings import ANY

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from backbeat.protocol.filters import Comparison, Normal
    from backbeat.tokens.claims import Claims

    Values: TypeAlias = Mapping[str, bytes | None]
    """The columns that came with a change."""

__all__ = ["Subscription", "Subscriptions", "Values"]


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One binding of one subscriber, made ready for one table or a wildcard.

    Attributes:
        subscriber: who is to be told.
        claims: as whom the subscriber reads.
        id: the number the subscriber knows the binding by.
        position: its place among the bindings of the subscriber.
        event: `INSERT`, `UPDATE`, `DELETE` or `*`.
        schema: the schema, or `*`.
        table: the table, or `*`.
        comparisons: what a row has to meet.
        select: the columns wanted beside the primary key; None stands for all.
    """

    subscriber: Hashable
    claims: Claims
    id: int
    position: int
    event: str
    schema: str
    table: str
    comparisons: tuple[Comparison, ...]
    select: tuple[str, ...] | None

    @property
    def wanted(self) -> Comparison | None:
        """The first comparison that only one value meets: it narrows down whom a change may concern."""
        return next((each for each in self.comparisons if each.wanted is not None), None)

    def matches(self, event: str, values: Values) -> bool:
        """Tell whether a change is wanted; a column that did not come with it meets no filter."""
        if self.event not in (ANY, event):
            return False
        for comparison in self.comparisons:
            if comparison.column not in values or not comparison.accepts(values[comparison.column]):
                return False
        return True


_Members: TypeAlias = "dict[Subscription, None]"
"""A set that keeps the order in which its members came."""


class _Table:
    """The subscriptions to one table. Those that want one value of a column are kept by that value."""

    def __init__(self) -> None:
        self._others: _Members = {}
        self._by_value: dict[tuple[str, Normal], dict[Hashable, _Members]] = {}

    def __bool__(self) -> bool:
        """Whether any subscription is there."""
        return bool(self._others or self._by_value)

    def add(self, subscription: Subscription) -> None:
        wanted = subscription.wanted
        if wanted is None:
            self._others[subscription] = None
        else:
            values = self._by_value.setdefault((wanted.column, wanted.normal), {})
            values.setdefault(wanted.wanted, {})[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        wanted = subscription.wanted
        if wanted is None:
            del self._others[subscription]
            return
        kind = wanted.column, wanted.normal
        members = self._by_value[kind][wanted.wanted]
        del members[subscription]
        if not members:
            del self._by_value[kind][wanted.wanted]
        if not self._by_value[kind]:
            del self._by_value[kind]

    def candidates(self, values: Values) -> Iterator[Subscription]:
        yield from self._others
        for (column, normal), wanted in self._by_value.items():
            value = values.get(column)
            if value is not None:
                yield from wanted.get(normal(value), ())


class Subscriptions:
    """All subscriptions of a server."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], _Table] = defaultdict(_Table)
        self._of: dict[Hashable, tuple[Subscription, ...]] = {}

    def __len__(self) -> int:
        """How many subscribers there are."""
        return len(self._of)

    def __contains__(self, subscriber: Hashable) -> bool:
        return subscriber in self._of

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._of)

    def replace(self, subscriber: Hashable, subscriptions: Iterable[Subscription]) -> None:
        """Give a subscriber new subscriptions, in one step."""
        self.remove(subscriber)
        self._of[subscriber] = tuple(subscriptions)
        for subscription in self._of[subscriber]:
            self._tables[subscription.schema, subscription.table].add(subscription)

    def remove(self, subscriber: Hashable) -> None:
        """Forget a subscriber; nothing happens to one that is not there."""
        for subscription in self._of.pop(subscriber, ()):
            name = subscription.schema, subscription.table
            self._tables[name].remove(subscription)
            if not self._tables[name]:
                del self._tables[name]

    def concern(self, schema: str, table: str) -> bool:
        """Tell whether anybody wants changes of a table."""
        return any(name in self._tables for name in _names(schema, table))

    def matching(self, schema: str, table: str, event: str, values: Values) -> list[Subscription]:
        """Find the subscriptions that want a change.

        Args:
            schema: the schema of the table.
            table: the table.
            event: `INSERT`, `UPDATE` or `DELETE`.
            values: those of the new row, or of the deleted one.
        """
        return [
            subscription
            for name in _names(schema, table)
            if name in self._tables
            for subscription in self._tables[name].candidates(values)
            if subscription.matches(event, values)
        ]


def _names(schema: str, table: str) -> tuple[tuple[str, str], ...]:
    return (schema, table), (schema, ANY), (ANY, table), (ANY, ANY)
