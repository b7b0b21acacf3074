"""Who wants which changes: found by table, and by value where a filter asks for one."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar
from uuid import UUID

from backbeat.protocol.bindings import ANY

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping

    from backbeat.postgres.pgoutput import Relation
    from backbeat.protocol.bindings import Binding, Form
    from backbeat.protocol.filters import Comparison, Normal
    from backbeat.tokens.claims import Claims

    Values: TypeAlias = Mapping[str, bytes | None]
    """The columns that came with a change."""

    Subjects: TypeAlias = Mapping[str, Collection[str]]
    """By role, the only users who may see a row. Roles that are not there are not narrowed down."""

__all__ = ["Subjects", "Subscription", "Subscriptions", "Values"]

_ANYBODY: Final[Subjects] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One binding of one subscriber, made ready for one table or a wildcard.

    Attributes:
        subscriber: who is to be told.
        claims: as whom the subscriber reads.
        binding: what was asked for.
        position: its place among the bindings of the subscriber.
        schema: the schema, or `*`.
        table: the table, or `*`.
        comparisons: what a row has to meet.
        types: the columns compared, with the oids of their types when the comparisons were made ready.
        id: the number the subscriber knows the binding by.
        event: `INSERT`, `UPDATE`, `DELETE` or `*`.
        form: what is shown of a row, and how.
        asked: those of the comparisons that only Postgres can make.
        subject: what `auth.uid()` is for the subscriber, as Postgres writes it: empty for nobody, None where
            Postgres has to say.
    """

    subscriber: Hashable
    claims: Claims
    binding: Binding
    position: int
    schema: str
    table: str
    comparisons: tuple[Comparison, ...] = ()
    types: tuple[tuple[str, int], ...] = ()
    id: int = field(init=False)
    event: str = field(init=False)
    form: Form = field(init=False)
    asked: tuple[Comparison, ...] = field(init=False)
    subject: str | None = field(init=False)

    def __post_init__(self) -> None:
        # All of them are looked at for every change.
        asked = tuple(each for each in self.comparisons if each.needs_database)
        object.__setattr__(self, "asked", asked)
        object.__setattr__(self, "subject", _subject(self.claims))
        for name in ("id", "event", "form"):
            object.__setattr__(self, name, getattr(self.binding, name))

    @property
    def wanted(self) -> Comparison | None:
        """The first comparison that only one value meets: it narrows down whom a change may concern."""
        return next((each for each in self.comparisons if each.wanted is not None), None)

    def matches(self, event: str, values: Values) -> bool:
        """Tell whether a change is wanted, as far as that can be told without asking; see `asked`.

        A column that did not come with the change meets no filter.
        """
        if self.event not in (ANY, event):
            return False
        for comparison in self.comparisons:
            if comparison.column not in values:
                return False
            if not comparison.needs_database and not comparison.accepts(values[comparison.column]):
                return False
        return True

    def suits(self, relation: Relation) -> bool:
        """Tell whether the columns compared are still what they were when the comparisons were made ready."""
        now = {column.name: column.type_oid for column in relation.columns}
        return all(now.get(name) == type_oid for name, type_oid in self.types)

    def may_be_among(self, subjects: Subjects) -> bool:
        """Tell whether the subscriber is one of those whom it makes sense to ask."""
        only = subjects.get(self.claims.role)
        return only is None or self.subject is None or self.subject in only


def _subject(claims: Claims) -> str | None:
    """What `auth.uid()` returns. Whatever Postgres reads as a UUID, Python does, too, and as the same one."""
    if not claims.sub:
        return "" if claims.values.get("sub") is None else None
    try:
        return str(UUID(claims.sub))
    except ValueError:
        return None


_Members: TypeAlias = "dict[Subscription, None]"
"""A set that keeps the order in which its members came."""


class _Table:
    """The subscriptions to one table.

    Those that want one value of a column are kept by that value, and the others by role and by subject.
    """

    def __init__(self) -> None:
        self.roles: Counter[str] = Counter()
        self._others: dict[str, _Members] = {}
        self._by_subject: dict[tuple[str, str | None], _Members] = {}
        self._kept: dict[tuple[str, str], tuple[list[Subscription], list[Subscription]]] = {}
        self._by_value: dict[tuple[str, Normal], dict[Hashable, _Members]] = {}
        self._compared: _Members = {}
        self._unsuited: _Members = {}
        """Those that came since their columns were looked at, and those that did not suit them then."""
        self._relation: Relation | None = None

    def __bool__(self) -> bool:
        """Whether any subscription is there."""
        return bool(self.roles)

    def add(self, subscription: Subscription) -> None:
        role, wanted = subscription.claims.role, subscription.wanted
        self.roles[role] += 1
        if subscription.types:
            self._compared[subscription] = self._unsuited[subscription] = None
        if wanted is None:
            self._kept.clear()
            self._others.setdefault(role, {})[subscription] = None
            self._by_subject.setdefault((role, subscription.subject), {})[subscription] = None
        else:
            values = self._by_value.setdefault((wanted.column, wanted.normal), {})
            values.setdefault(wanted.wanted, {})[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        role, wanted = subscription.claims.role, subscription.wanted
        self.roles[role] -= 1
        if not self.roles[role]:
            del self.roles[role]
        self._compared.pop(subscription, None)
        self._unsuited.pop(subscription, None)
        if wanted is None:
            self._kept.clear()
            _remove(self._others, role, subscription)
            _remove(self._by_subject, (role, subscription.subject), subscription)
            return
        kind = wanted.column, wanted.normal
        _remove(self._by_value[kind], wanted.wanted, subscription)
        if not self._by_value[kind]:
            del self._by_value[kind]

    def unsuited(self, relation: Relation) -> Iterable[Subscription]:
        """Those whose columns are no longer what they were; who suits a description is looked at once."""
        if relation is not self._relation:
            self._relation, self._unsuited = relation, self._compared.copy()
        if self._unsuited:
            self._unsuited = {each: None for each in self._unsuited if not each.suits(relation)}
        return self._unsuited

    def collect(
        self, found: dict[str, list[Subscription]], event: str, values: Values, subjects: Subjects
    ) -> None:
        """Add the subscriptions that want a change to those found, by role."""
        for role in self._others:
            only = subjects.get(role)
            if only is None:
                plain, filtered = self._wanting(role, event)
                members = [*plain, *(each for each in filtered if each.matches(event, values))]
            else:
                members = [
                    each
                    for subject in (None, *only)
                    for each in self._by_subject.get((role, subject), ())
                    if each.matches(event, values)
                ]
            if members:
                found.setdefault(role, []).extend(members)
        for (column, normal), wanted in self._by_value.items():
            value = values.get(column)
            if value is not None:
                for each in wanted.get(normal(value), ()):
                    if each.matches(event, values) and each.may_be_among(subjects):
                        found.setdefault(each.claims.role, []).append(each)

    def _wanting(self, role: str, event: str) -> tuple[list[Subscription], list[Subscription]]:
        """Those that want every change of a kind, and those that look at values; kept until some change."""
        kept = self._kept.get((role, event))
        if kept is None:
            members = [each for each in self._others[role] if each.event in (ANY, event)]
            kept = self._kept[role, event] = (
                [each for each in members if not each.comparisons],
                [each for each in members if each.comparisons],
            )
        return kept


_Key = TypeVar("_Key", bound="Hashable")


def _remove(kept: dict[_Key, _Members], key: _Key, subscription: Subscription) -> None:
    """Take a subscription out, and what is kept for it when it was the last one there."""
    members = kept[key]
    del members[subscription]
    if not members:
        del kept[key]


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

    def of(self, subscriber: Hashable) -> tuple[Subscription, ...]:
        """What a subscriber has; nothing, when it is not there."""
        return self._of.get(subscriber, ())

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

    def roles(self, schema: str, table: str) -> set[str]:
        """Tell as which roles the subscribers to a table read it."""
        return {
            role
            for name in _names(schema, table)
            if name in self._tables
            for role in self._tables[name].roles
        }

    def unsuited(self, relation: Relation) -> set[Hashable]:
        """Find whose comparisons were made ready for columns that have other types now, or are gone.

        Args:
            relation: the table as the stream describes it.
        """
        # A filter is kept under the name of its table, never under a wildcard.
        table = self._tables.get((relation.schema, relation.table))
        return {each.subscriber for each in table.unsuited(relation)} if table is not None else set()

    def matching(
        self, schema: str, table: str, event: str, values: Values, subjects: Subjects = _ANYBODY
    ) -> dict[str, list[Subscription]]:
        """Find the subscriptions that want a change, by role.

        Args:
            schema: the schema of the table.
            table: the table.
            event: `INSERT`, `UPDATE` or `DELETE`.
            values: those of the new row, or of the deleted one.
            subjects: who may see it, as far as that is known.
        """
        found: dict[str, list[Subscription]] = {}
        for name in _names(schema, table):
            if name in self._tables:
                self._tables[name].collect(found, event, values, subjects)
        return found


def _names(schema: str, table: str) -> tuple[tuple[str, str], ...]:
    return (schema, table), (schema, ANY), (ANY, table), (ANY, ANY)
