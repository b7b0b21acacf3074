"""What Postgres is asked about row changes, put together by table and role."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from backbeat.postgres.policies import Audience
from backbeat.postgres.question import Question, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from backbeat.postgres.policies import Access
    from backbeat.postgres.row_changes import RowChange
    from backbeat.postgres.subscriptions import Subscription
    from backbeat.tokens.claims import Claims

__all__ = ["Draft", "Wanted", "drafts_of"]

Wanted: TypeAlias = "tuple[RowChange, dict[str, list[Subscription]]]"
"""A change, with the subscriptions it matches by role."""


class Draft:
    """A question about rows of one table to those with one role, while it is put together; and its answer.

    Rows that the same subscriptions want are kept together: what is done for each of those is then done once,
    and not for each row. Viewers go by the identity of their claims, which compares faster than they do.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self.places: dict[RowChange, int] = {}
        self.versions: list[Version] = []
        self._groups: dict[tuple[Subscription, ...], list[int]] = {}
        self._claims: dict[int, Claims] = {}
        self._seen: dict[int, list[Subscription]] = {}
        self._refused: set[int] = set()
        self._unanswered: set[int] = set()

    def add(self, change: RowChange, version: Version, subscriptions: Iterable[Subscription]) -> None:
        """Ask about a version for the sake of some subscriptions."""
        place = self.places[change] = len(self.versions)
        self.versions.append(version)
        self._groups.setdefault(tuple(subscriptions), []).append(place)

    def question(self) -> Question:
        """Put the question: whoever is there several times with equal claims is asked once."""
        parts: dict[int, list[list[int]]] = {}
        for group, places in self._groups.items():
            for viewer, claims in {id(each.claims): each.claims for each in group}.items():
                self._claims[viewer] = claims
                parts.setdefault(viewer, []).append(places)
        viewers: dict[Claims, list[int]] = {}
        for viewer, lists in parts.items():
            claims = self._claims[viewer]
            places = lists[0] if len(lists) == 1 else sorted(chain.from_iterable(lists))
            known = viewers.get(claims, places)
            viewers[claims] = places if known == places else sorted({*known, *places})
        return Question(self.access, self.versions, viewers)

    def answered(self, answer: Mapping[Claims, set[int]]) -> None:
        """Take the answer; whoever is missing in it gave none, because something failed."""
        seen = {viewer: answer[claims] for viewer, claims in self._claims.items() if claims in answer}
        self._unanswered = self._claims.keys() - seen.keys()
        for group, places in self._groups.items():
            for place in places:
                self._seen[place] = []
            asked = {*places}
            for subscription in group:
                for place in asked.intersection(seen.get(id(subscription.claims), ())):
                    self._seen[place].append(subscription)
            self._refused.update(place for place in places if len(self._seen[place]) < len(group))

    def refused(self) -> list[RowChange]:
        """Tell which changes not everybody sees who was asked."""
        return [change for change, place in self.places.items() if place in self._refused]

    def undecided(self) -> list[Subscription]:
        """Tell for which subscriptions there was no answer."""
        if not self._unanswered:
            return []
        asked = dict.fromkeys(chain.from_iterable(self._groups))
        return [each for each in asked if id(each.claims) in self._unanswered]

    def decided(self) -> list[Claims]:
        """Tell for which viewers there was one."""
        return [claims for viewer, claims in self._claims.items() if viewer not in self._unanswered]

    def allowed(self, change: RowChange) -> list[Subscription]:
        """Tell which of the subscriptions that want a change are of those who may see it."""
        place = self.places.get(change)
        return [] if place is None else self._seen[place]


def drafts_of(
    wanted: Iterable[Wanted], access: Mapping[tuple[int, str], Access | None], last: set[RowChange]
) -> dict[tuple[int, str], Draft]:
    """Put together what Postgres has to be asked, by table and role.

    Args:
        wanted: the changes.
        access: what is known of their tables.
        last: those that made the version their transaction left behind.
    """
    drafts: dict[tuple[int, str], Draft] = {}
    for change, by_role in wanted:
        for role, subscriptions in by_role.items():
            pair = change.relation.oid, role
            seen = access[pair]
            if change.kind == "DELETE" or seen is None or seen.audience_at(change.lsn) is not Audience.ASK:
                continue
            key = change.key(seen)
            if key is None:
                continue
            if pair not in drafts:
                drafts[pair] = Draft(seen)
            xid = str(change.xid) if change in last and seen.key_canonical else None
            drafts[pair].add(change, Version(key, xid, change.values), subscriptions)
    return drafts
