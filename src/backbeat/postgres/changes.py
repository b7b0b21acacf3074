"""Row changes for those who may see them: what the stream tells, who subscribed, and what Postgres allows.

A change is matched with the subscriptions to its table, Postgres is asked about those that cannot be decided
without asking (`backbeat.postgres.visibility`), and the JSON is written once for all who see the same
columns in the same form. Everything that waits in the stream is handled together, in the order of the
commits.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import psycopg
import structlog

from backbeat.errors import Refusal, Unavailable
from backbeat.postgres.conditions import Member
from backbeat.postgres.drafts import Draft, drafts_of
from backbeat.postgres.evaluator import Evaluator
from backbeat.postgres.overtaken import Overtaken
from backbeat.postgres.payloads import Payload, trouble
from backbeat.postgres.policies import Audience
from backbeat.postgres.registrar import Registrar
from backbeat.postgres.row_changes import RowChange, last_versions, row_changes
from backbeat.postgres.subscriptions import Subscriptions
from backbeat.postgres.visibility import Visibility
from backbeat.postgres.withheld import Withheld
from backbeat.protocol import reasons

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence

    from backbeat.postgres.drafts import Wanted
    from backbeat.postgres.members import Users
    from backbeat.postgres.pgoutput import Relation
    from backbeat.postgres.policies import Access
    from backbeat.postgres.subscriptions import Subscription
    from backbeat.postgres.transactions import Transaction
    from backbeat.protocol.bindings import Binding, Form
    from backbeat.protocol.filters import Comparison
    from backbeat.protocol.reasons import Reason
    from backbeat.tokens.claims import Claims

__all__ = ["Changes", "Delivery"]

log = structlog.get_logger("backbeat.changes")

ROWS: Final = 1_000
"""How many changes are checked together, at most."""

PAIRS: Final = 200_000
"""How many pairs of change and subscription are checked together, or those of a single change."""

TURN: Final = 5_000
"""Pairs that are looked at in one turn of the event loop, or those of a single change."""

BACKOFF: Final = (0.1, 5.0)
"""The shortest and the longest pause before asking again, when the database is away. Seconds."""

MESSAGES: Final = ("realtime", "messages")
"""In the stream too, but not for subscribers of changes: `backbeat.postgres.messages` delivers them."""

NO_KEY: Final = "Error 400: Bad Request, no primary key"
UNAUTHORIZED: Final = "Error 401: Unauthorized"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A change, written for those who see the same columns of it in the same form.

    Attributes:
        data: JSON text of the `data` object (specification, 8.4).
        recipients: each subscriber, with the ids of those of its bindings that match.
    """

    data: bytes
    recipients: list[tuple[Hashable, tuple[int, ...]]]


class _Turns:
    """Lets others have theirs, while much is looked at."""

    def __init__(self) -> None:
        self._left = TURN

    async def after(self, pairs: int) -> None:
        """Note that so many pairs of change and subscription were looked at."""
        self._left -= pairs
        if self._left < 0:
            self._left = TURN
            await asyncio.sleep(0)


class Changes:
    """Keeps subscriptions to row changes and turns transactions into deliveries.

    Args:
        database_url: where Postgres is; the login is a member of the subscribers' roles and may create
            temporary functions, which every role may unless it was revoked.
        deliver: takes what is to be sent, in the order of the commits; the next when it is done.
        publication: the tables that may be subscribed to.
        withhold_deletes: whether a DELETE is told only where row level security hides nothing. Otherwise
            every subscriber of a table learns the primary keys of deleted rows, as with the original.
        classify: whether the catalogue decides what it can; otherwise everybody is asked about every row,
            which is what `bench/changes.py` compares with.
        on_refused: called with a subscriber whose filter no longer suits its column, which ended its
            subscription; with why, and a time before the first change it did not get, in seconds since 1970.
        on_withheld: called with a subscriber from whom changes are withheld for now, and with what fails.
        on_restored: called when that is over, with the subscriber and since when changes are missing.

    Attributes:
        sent: how many pairs of change and subscriber were delivered.
    """

    def __init__(
        self,
        database_url: str,
        *,
        deliver: Callable[[Sequence[Delivery]], Awaitable[None]],
        publication: str = "supabase_realtime",
        withhold_deletes: bool = False,
        classify: bool = True,
        on_refused: Callable[[Hashable, Refusal, float], None] = lambda *_: None,
        on_withheld: Callable[[Hashable, Refusal], None] = lambda *_: None,
        on_restored: Callable[[Hashable, float], None] = lambda *_: None,
    ) -> None:
        self.sent = 0
        self._on_refused = on_refused
        self._on_withheld = on_withheld
        self._on_restored = on_restored
        self._withhold_deletes = withhold_deletes
        self._deliver = deliver
        self._subscriptions = Subscriptions()
        self._attempts: dict[Hashable, object] = {}
        self._visibility = Visibility(database_url, classify=classify)
        self._overtaken = Overtaken()
        self._registrar = Registrar(database_url, publication)
        self._evaluator = Evaluator(database_url)
        self._withheld = Withheld()
        self._payloads: dict[tuple[int, str, Form], tuple[Relation, Access, Payload]] = {}

    def __repr__(self) -> str:
        return f"<Changes subscribers={len(self._subscriptions)} sent={self.sent}>"

    @property
    def checked(self) -> int:
        """How many pairs of row and viewer Postgres was asked about."""
        return self._visibility.checked

    @property
    def dropped_stale(self) -> int:
        """How many of those were not sent because the row had changed again before it was asked about."""
        return self._visibility.dropped_stale

    @property
    def overtaken(self) -> int:
        """How many changes not everybody who was asked could see, while the row had changed again by then."""
        return self._overtaken.count

    @property
    def denied_by_error(self) -> int:
        """How many of those were not sent because a policy failed or took too long."""
        return self._visibility.denied_by_error

    def subscribers(self) -> list[Hashable]:
        """Everybody who is subscribed at the moment."""
        return list(self._subscriptions)

    async def aclose(self) -> None:
        """Close the connections. Nothing may be handled or subscribed any more."""
        await self._visibility.aclose()
        await self._registrar.aclose()
        await self._evaluator.aclose()

    # Subscribing --------------------------------------------------------------------------------------------

    async def subscribe(self, subscriber: Hashable, bindings: Sequence[Binding], claims: Claims) -> None:
        """Subscribe to changes, all bindings or none.

        A subscriber that is there already keeps what it has until the new subscriptions replace it in one
        step. When they are refused it has none at all: what it had belonged to other claims.

        Args:
            subscriber: who is to be told; named in `Delivery.recipients`.
            bindings: what is wanted.
            claims: as whom the rows are read.

        Raises:
            BadRequest: a table is not published, a column is not there or not readable, or a value does not
                suit its type.
            Unavailable: the database cannot be reached.
        """
        attempt = self._attempts[subscriber] = object()
        try:
            subscriptions, tables = await self._registrar.prepare(subscriber, bindings, claims)
            await self._read_ahead({(oid, claims.role) for oid in tables})
            # Whoever unsubscribed in the meantime stays away; of two attempts the later one counts.
            if self._attempts.get(subscriber) is attempt:
                self._replace(subscriber, subscriptions)
        except Refusal:
            if self._attempts.get(subscriber) is attempt:
                self._remove(subscriber)
            raise
        finally:
            if self._attempts.get(subscriber) is attempt:
                del self._attempts[subscriber]

    async def _read_ahead(self, pairs: set[tuple[int, str]]) -> None:
        """Read the rules of tables before their first change, so that it is known to have been under them."""
        try:
            await self._visibility.access(pairs)
        except psycopg.Error as error:
            # Read with the first change, they are as right, but that change has to be asked about.
            log.info("rules not read ahead", reason=str(error))

    def unsubscribe(self, subscriber: Hashable) -> None:
        """Forget a subscriber: it gets nothing any more, not even what is being checked just now."""
        self._attempts.pop(subscriber, None)
        self._remove(subscriber)

    def _replace(self, subscriber: Hashable, subscriptions: Sequence[Subscription]) -> None:
        self._subscriptions.replace(subscriber, subscriptions)
        # Filters and claims may be others now: what failed before is not asked again, and what fails is news.
        if (since := self._withheld.forget(subscriber)) is not None:
            self._on_restored(subscriber, since)

    def _remove(self, subscriber: Hashable) -> None:
        self._subscriptions.remove(subscriber)
        self._withheld.forget(subscriber)

    def hand_over(self, subscriber: Hashable, successor: Hashable, claims: Claims) -> None:
        """Give what somebody is subscribed to to a successor, who reads it with other claims from now on.

        What is being checked just now with the old claims reaches neither of them. The successor's rights to
        the columns of its filters are looked at when it subscribes; who sees a row is asked as the successor.

        Args:
            subscriber: who loses its subscriptions.
            successor: who gets them.
            claims: as whom the rows are read.
        """
        held = self._subscriptions.of(subscriber)
        self.unsubscribe(subscriber)
        if held:
            self._subscriptions.replace(
                successor, [replace(each, subscriber=successor, claims=claims) for each in held]
            )

    # Handling -----------------------------------------------------------------------------------------------

    async def handle(self, transactions: Sequence[Transaction]) -> None:
        """Deliver what subscribers may see of committed transactions.

        When it returns everything has been delivered. While the database is away it waits, and asks
        again: what is being handled is not lost.

        Args:
            transactions: in the order of their commits.
        """
        changes = list(row_changes(transactions, self._concern))
        while changes:
            since = transactions[0].commit_time / 1_000_000
            shortest, longest = BACKOFF
            pause = shortest
            while True:
                try:
                    next_ = _under_one_definition(changes[:ROWS])
                    await self._suit(next_, since=since)
                    handled, deliveries = await self._deliveries(next_, changes, since=since)
                    break
                except (psycopg.Error, Unavailable):
                    log.warning("row changes wait for the database", exc_info=True)
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
                    pause = min(pause * 2, longest)
            del changes[:handled]
            if deliveries:
                self.sent += sum(len(delivery.recipients) for delivery in deliveries)
                await self._deliver(deliveries)

    async def _suit(self, changes: Sequence[RowChange], *, since: float) -> None:
        """Make filters ready anew whose columns have other types now, or are gone.

        The catalogue is read as it is now: while the stream is behind, what was written before the latest of
        several definitions is compared as what it would be under that one.

        Raises:
            psycopg.OperationalError: the connection was lost.
            Unavailable: the database cannot be reached.
        """
        relations = {change.relation.oid: change.relation for change in changes}
        unsuited = {who for each in relations.values() for who in self._subscriptions.unsuited(each)}
        if not unsuited:
            return
        # What wrote these rows did so under the new definition, or made it.
        await self._visibility.over({change.xid for change in changes})
        outcomes = [self._prepare_again(who, since) for who in unsuited]
        for outcome in await asyncio.gather(*outcomes, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _prepare_again(self, subscriber: Hashable, since: float) -> None:
        held = self._subscriptions.of(subscriber)
        bindings = {each.position: each.binding for each in held}
        subscriptions: Sequence[Subscription] = ()
        refused: Refusal | None = None
        try:
            subscriptions, _ = await self._registrar.prepare(subscriber, [*bindings.values()], held[0].claims)
        except Unavailable:
            raise
        except Refusal as refusal:
            refused = refusal
        # Whoever left or subscribed anew in the meantime knows better.
        if self._subscriptions.of(subscriber) is not held:
            return
        if refused is None:
            self._replace(subscriber, subscriptions)
        else:
            self._remove(subscriber)
            self._on_refused(subscriber, refused, since)

    def _concern(self, relation: Relation) -> bool:
        """Tell whether somebody is subscribed to a table."""
        name = relation.schema, relation.table
        return name != MESSAGES and self._subscriptions.concern(*name)

    async def _deliveries(
        self, changes: Sequence[RowChange], waiting: Sequence[RowChange], *, since: float
    ) -> tuple[int, list[Delivery]]:
        """Find out who gets the next changes, and write them.

        Args:
            changes: those to handle now.
            waiting: the same and all that follow, among them later changes to the same rows.
            since: a time before all of them, in seconds since 1970.

        Returns:
            How many of them were handled, and what is to be sent.
        """
        tables = {change.relation.oid: change.relation for change in changes}
        pairs = {
            (oid, role)
            for oid, relation in tables.items()
            for role in self._subscriptions.roles(relation.schema, relation.table)
        }
        while True:
            access = await self._visibility.access(pairs)
            candidates = await self._candidates(changes, access)
            wanted, changes = await self._wanted(changes, access, candidates)
            wanted = await self._evaluated(wanted, since=since)
            # Whom it is no use to ask may have changed with the catalogue. `ask` tells, asked or not.
            if not wanted and not any(seen is not None and seen.limits for seen in access.values()):
                self._overtaken.note(changes, access, (), 0)
                return len(changes), []
            # Beyond the transaction of the last one nothing tells which version of a row these left behind.
            end = bisect_right(waiting, changes[-1].transaction, key=attrgetter("transaction"))
            drafts = drafts_of(wanted, access, last_versions(waiting[:end], access))
            answers = await self._visibility.ask(
                {oid for oid, _ in pairs},
                [draft.question() for draft in drafts.values()],
                # Also of those nobody is asked about: what they did to the catalogue has to be seen.
                {change.xid for change in changes},
            )
            if answers is not None:
                break
        for draft, answer in zip(drafts.values(), answers, strict=True):
            draft.answered(answer)
        self._mind_policies(drafts.values(), since)
        refused = {change for draft in drafts.values() for change in draft.refused()}
        self._overtaken.note(changes, access, refused, self._visibility.asked_until)
        deliveries: list[Delivery] = []
        turns = _Turns()
        for change, by_role in wanted:
            for role, subscriptions in by_role.items():
                await turns.after(len(subscriptions))
                pair = change.relation.oid, role
                seen = access[pair]
                if seen is not None:
                    deliveries += await self._for_role(change, seen, drafts.get(pair), subscriptions)
        return len(changes), deliveries

    async def _for_role(
        self, change: RowChange, access: Access, draft: Draft | None, subscriptions: list[Subscription]
    ) -> list[Delivery]:
        """Write a change for those with one role who may see it."""
        error = _trouble(change, access)
        if error is not None:
            return self._addressed(trouble(change.relation, change.kind, error), subscriptions)
        if access.audience_at(change.lsn) is Audience.EVERYBODY:
            allowed = subscriptions
        elif change.kind == "DELETE":
            # Nobody can be asked about a row that is gone.
            allowed = [] if self._withhold_deletes and access.row_security else subscriptions
        else:
            allowed = [] if draft is None else draft.allowed(change)
        by_form: dict[Form, list[Subscription]] = {}
        for subscription in allowed:
            by_form.setdefault(subscription.form, []).append(subscription)
        deliveries: list[Delivery] = []
        for form, group in by_form.items():
            deliveries += self._addressed(await self._write(change, access, form), group)
        return deliveries

    async def _candidates(
        self, changes: Sequence[RowChange], access: Mapping[tuple[int, str], Access | None]
    ) -> dict[tuple[RowChange, str], set[str]]:
        """Find whom it is of use to ask about a change, by role; where that is missing it may be anybody.

        Raises:
            psycopg.OperationalError: the connection was lost.
        """
        found: dict[tuple[RowChange, str], set[str]] = {}
        if any(isinstance(limit, Member) for seen in access.values() if seen for limit in seen.limits):
            # A transaction that made somebody a member, too, has to be over for everybody.
            await self._visibility.over({change.xid for change in changes})
        for (oid, role), seen in access.items():
            if seen is None or not seen.limits:
                continue
            columns = {column for limit in seen.limits for column in limit.columns}
            limited = [
                change
                for change in changes
                # A column that did not come along may hold anything.
                if change.relation.oid == oid and change.kind != "DELETE" and change.values.keys() >= columns
            ]
            known: list[dict[RowChange, Collection[str]]] = []
            for limit in seen.limits:
                values = {
                    change: texts for change in limited if (texts := change.texts(limit.columns)) is not None
                }
                users: Users | None = {each: each for each in values.values()}
                if isinstance(limit, Member):
                    users = await self._visibility.members(seen, limit, {*values.values()})
                if users is None:
                    break
                known.append({change: users.get(texts, ()) for change, texts in values.items()})
            else:
                for change in limited:
                    found[change, role] = {user for each in known for user in each.get(change, ())}
        return found

    async def _wanted(
        self,
        changes: Sequence[RowChange],
        access: Mapping[tuple[int, str], Access | None],
        candidates: Mapping[tuple[RowChange, str], set[str]],
    ) -> tuple[list[Wanted], Sequence[RowChange]]:
        """Find who wants which changes, and how many changes there are until that is enough for now."""
        wanted: list[Wanted] = []
        pairs = 0
        turns = _Turns()
        for number, change in enumerate(changes):
            by_role = self._matching(change, access, candidates)
            count = sum(len(found) for found in by_role.values())
            await turns.after(count)
            pairs += count
            if pairs > PAIRS and number:
                return wanted, changes[:number]
            if by_role:
                wanted.append((change, by_role))
        return wanted, changes

    def _matching(
        self,
        change: RowChange,
        access: Mapping[tuple[int, str], Access | None],
        candidates: Mapping[tuple[RowChange, str], set[str]],
    ) -> dict[str, list[Subscription]]:
        """Find the subscriptions that want a change, by role, without those whom it is no use to ask.

        A role that is not in `access` has subscribed since that was read, and to what comes later.
        """
        relation = change.relation
        roles = [role for oid, role in access if oid == relation.oid]
        subjects = {role: candidates[change, role] for role in roles if (change, role) in candidates}
        by_role = self._subscriptions.matching(
            relation.schema, relation.table, change.kind, change.values, subjects
        )
        return {role: found for role, found in by_role.items() if role in roles}

    async def _evaluated(self, wanted: list[Wanted], *, since: float) -> list[Wanted]:
        """Keep the subscriptions whose filters are met by what Postgres says, where only it can tell.

        Args:
            wanted: changes, and who wants them as far as can be told without.
            since: a time before all of them, in seconds since 1970.

        Raises:
            psycopg.OperationalError: the connection was lost.
        """
        asked: dict[Comparison, set[bytes | None]] = defaultdict(set)
        for change, by_role in wanted:
            for subscriptions in by_role.values():
                for subscription in subscriptions:
                    for comparison in subscription.asked:
                        asked[comparison].add(change.values[comparison.column])
        if not asked:
            return wanted
        accepted, unmade = await self._evaluator.accepted(asked)
        if unmade:
            self._withhold_unfiltered(wanted, unmade, since)
        if self._withheld:
            self._restore(asked.keys() - unmade)
        met: list[Wanted] = []
        for change, by_role in wanted:
            kept: dict[str, list[Subscription]] = {}
            for role, subscriptions in by_role.items():
                for subscription in subscriptions:
                    if all(change.values[each.column] in accepted[each] for each in subscription.asked):
                        kept.setdefault(role, []).append(subscription)
            if kept:
                met.append((change, kept))
        return met

    def _withhold_unfiltered(self, wanted: Iterable[Wanted], unmade: set[Comparison], since: float) -> None:
        """Tell those who may miss a change that their filters could not be evaluated."""
        for _, by_role in wanted:
            for subscription in chain.from_iterable(by_role.values()):
                for comparison in unmade.intersection(subscription.asked):
                    reason, who = reasons.CHANGES_UNFILTERED, subscription.subscriber
                    self._withhold(who, comparison, reason, comparison.column, since)

    def _mind_policies(self, drafts: Collection[Draft], since: float) -> None:
        """Tell those who may miss a change that the policies of its table gave no answer for them."""
        for draft in drafts:
            oid, table = draft.access.oid, f"{draft.access.schema}.{draft.access.table}"
            for subscription in draft.undecided():
                cause, who = (oid, subscription.claims), subscription.subscriber
                self._withhold(who, cause, reasons.CHANGES_UNDECIDED, table, since)
        if self._withheld:
            self._restore({(draft.access.oid, claims) for draft in drafts for claims in draft.decided()})

    def _withhold(self, who: Hashable, cause: Hashable, reason: Reason, detail: str, since: float) -> None:
        # Whoever left meanwhile misses nothing.
        if who in self._subscriptions:
            now = asyncio.get_running_loop().time()
            if self._withheld.fails(who, cause, since=since, now=now):
                self._on_withheld(who, reason.refusal(detail=detail))

    def _restore(self, causes: Collection[Hashable]) -> None:
        for who, since in self._withheld.works(causes, now=asyncio.get_running_loop().time()):
            self._on_restored(who, since)

    def _addressed(self, data: bytes, subscriptions: Iterable[Subscription]) -> list[Delivery]:
        """Address a change to whoever is still subscribed."""
        matching: dict[Hashable, list[Subscription]] = {}
        for subscription in subscriptions:
            matching.setdefault(subscription.subscriber, []).append(subscription)
        recipients = [(who, _ids(those)) for who, those in matching.items() if who in self._subscriptions]
        return [Delivery(data, recipients)] if recipients else []

    async def _write(self, change: RowChange, access: Access, form: Form) -> bytes:
        """Write a change; a type that has changed since the types were read is read again."""
        # An old row cannot be looked up any more. Whoever has to be asked about rows gets its key only.
        # The same holds for one that was replaced or deleted when other rules may have been in force.
        asked = change.lsn < access.since or (
            access.row_security and (change.kind == "DELETE" or access.audience is Audience.ASK)
        )
        for attempt in range(2):
            try:
                payload = self._payload(change.relation, access, form)
                return payload.write(change.kind, change.when, new=change.new, old=change.old, key_only=asked)
            except (KeyError, ValueError):
                if attempt:
                    log.exception("a change could not be written", table=change.relation.table)
                    break
                await self._registrar.read_types()
                self._payloads.clear()
        return trouble(change.relation, change.kind, "Error 500: Internal Server Error")

    def _payload(self, relation: Relation, access: Access, form: Form) -> Payload:
        name = relation.oid, access.role, form
        kept = self._payloads.get(name)
        if kept is None or kept[0] is not relation or kept[1] is not access:
            kept = self._payloads[name] = (
                relation,
                access,
                Payload(relation, access, form, self._registrar.types),
            )
        return kept[2]


def _under_one_definition(changes: Sequence[RowChange]) -> Sequence[RowChange]:
    """Take the first changes, until a table is described anew."""
    relations: dict[int, Relation] = {}
    for number, change in enumerate(changes):
        if relations.setdefault(change.relation.oid, change.relation) is not change.relation:
            return changes[:number]
    return changes


def _trouble(change: RowChange, access: Access) -> str | None:
    """Tell why a subscriber can be shown nothing of any change of this kind (specification, 8.5 rule 3)."""
    if not access.key:
        whole_identity = change.relation.replica_identity == "f"
        shown = change.kind == "DELETE" or (change.kind == "UPDATE" and not whole_identity)
        return None if shown else NO_KEY
    return None if access.key_readable else UNAUTHORIZED


def _ids(subscriptions: Sequence[Subscription]) -> tuple[int, ...]:
    """The ids of a subscriber's matching bindings, the last binding first; equal bindings share one."""
    if len(subscriptions) == 1:
        return (subscriptions[0].id,)
    ordered = sorted(subscriptions, key=lambda each: each.position, reverse=True)
    return tuple(dict.fromkeys(each.id for each in ordered))
