"""Rooms, and the fan-out.

What is published in a room during one turn of the event loop is collected, joined once, and the same bytes
object is written to every member: one `send` a member and turn, however many messages there were. Nothing is
awaited on the way, and nobody waits for a slow reader: its transport reports it, and its socket drops it.

A large room is not written to in one go: after some hundred members the others of the server have their turn,
and what is published meanwhile is the next batch.

Order: a member that enters hears nothing from before. Before it leaves, and before anything is written to it
directly, it alone is given what is on its way to it. So a joiner never sees what was sent before it came, a
reply never overtakes a broadcast, and neither makes everybody else's batch smaller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Final

from backbeat.server.batch import Batch, Write, cost, write_each
from backbeat.server.delivery import Hears
from backbeat.server.presence import PresenceTable

if TYPE_CHECKING:
    from backbeat.protocol.codec import Serializer
    from backbeat.server.delivery import Delivery, Member
    from backbeat.server.metrics import Metrics

__all__ = ["MAX_BATCH_BYTES", "MAX_WAITING_BYTES", "Room"]

Members = Mapping["Member", Write]
Audible = Sequence[tuple[int, "Delivery", bytes]]

# Plain integers: this is asked for every message, and an enumeration answers it ten times slower.
BROADCAST: Final = int(Hears.BROADCAST)

NOBODY: Final[frozenset[Member]] = frozenset()

MAX_BATCH_BYTES: Final = 262_144
"""A room that collected this much does not wait for its turn to join it."""

MAX_WAITING_BYTES: Final = 2 * MAX_BATCH_BYTES
"""Bytes of batches that may wait in one room. With more they are all written at once, however long it takes:
memory is bounded, and nothing is lost. It has to be less than a client's buffer, or one that reads would be
taken for one that does not."""


class Room:
    """One topic, public or private: its members and what is on its way to them.

    Args:
        topic: the topic on the wire, prefix included.
        schedule: asks for a turn, in which `send` is called.
        metrics: counts deliveries.
    """

    __slots__ = (
        "_ahead",
        "_batches",
        "_groups",
        "_metrics",
        "_pending",
        "_pending_bytes",
        "_replayed",
        "_schedule",
        "_taps",
        "_waiting_bytes",
        "presence",
        "topic",
    )

    def __init__(self, topic: str, schedule: Callable[[Room], None], metrics: Metrics) -> None:
        self.topic = topic
        self.presence: PresenceTable[Member] = PresenceTable()
        self._schedule = schedule
        self._metrics = metrics
        self._groups: dict[tuple[Serializer, int], dict[Member, Write]] = {}
        self._pending: list[Delivery] = []
        self._pending_bytes = 0
        # Members that have had so many of the pending deliveries already, or came after them.
        self._ahead: dict[Member, int] = {}
        self._batches: deque[Batch] = deque()
        self._waiting_bytes = 0
        self._taps: list[list[Delivery]] = []
        self._replayed: dict[Member, frozenset[str]] = {}

    def __repr__(self) -> str:
        return f"<Room {self.topic!r} members={len(self)} pending={len(self._pending)}>"

    def __len__(self) -> int:
        return sum(len(members) for members in self._groups.values())

    @property
    def empty(self) -> bool:
        """Whether nobody is here, and nobody is about to enter."""
        return not self._groups and not self._taps

    @property
    def waiting(self) -> bool:
        """Whether something is on its way."""
        return bool(self._pending or self._batches)

    @contextmanager
    def tap(self) -> Iterator[list[Delivery]]:
        """Collect the stored messages that pass while somebody who is about to enter reads older ones.

        Without it, a message stored after those were read, and delivered before the reader is a member, would
        reach everybody but the reader.
        """
        passing: list[Delivery] = []
        self._taps.append(passing)
        try:
            yield passing
        finally:
            # By identity: two taps that collected the same are equal.
            self._taps = [tap for tap in self._taps if tap is not passing]

    def already_heard(self, member: Member, ids: frozenset[str]) -> None:
        """Leave stored messages out for a member that got them as a replay, also when its rights change.

        Args:
            member: who got them.
            ids: which ones; none ends it.
        """
        if ids:
            self._replayed[member] = ids
        else:
            self._replayed.pop(member, None)

    # Members ------------------------------------------------------------------------------------------------

    def enter(self, member: Member) -> None:
        """Let a member hear what its `hears` allows, from now on."""
        self._groups.setdefault((member.serializer, int(member.hears)), {})[member] = member.write
        if self._pending:
            self._ahead[member] = len(self._pending)

    def leave(self, member: Member, *, gone: bool = False) -> None:
        """Remove a member; before its rights change, too.

        Args:
            member: who.
            gone: whether nothing can be written to it any more; else it is given what is on its way to it.
        """
        if not gone:
            self.catch_up(member)
        group = member.serializer, int(member.hears)
        self._ahead.pop(member, None)
        members = self._groups.get(group)
        if members is not None:
            members.pop(member, None)
            if not members:
                del self._groups[group]

    def catch_up(self, member: Member) -> None:
        """Write to a member what is on its way to it, before something else is.

        Args:
            member: who; nothing happens to one who is not here.
        """
        for batch in self._batches:
            batch.catch_up(member)
        if not self._pending:
            return
        group = member.serializer, int(member.hears)
        if member not in self._groups.get(group, ()):
            return
        first = self._ahead.get(member, 0)
        # Only what is new: whoever sends much and wants each acknowledged is given little each time.
        own = self._own(member, self._audible(self._pending[first:], *group, first=first), first)
        self._ahead[member] = len(self._pending)
        if own:
            write_each((member.write,), self._counted(own, 1), self._metrics)

    # Fan-out ------------------------------------------------------------------------------------------------

    def publish(self, delivery: Delivery, size: int) -> None:
        """Send something to everyone concerned, from the end of this turn of the event loop on.

        Args:
            delivery: what to send.
            size: about how many bytes it is, to bound what is collected.
        """
        self._pending.append(delivery)
        if delivery.stored_as is not None:
            for tap in self._taps:
                tap.append(delivery)
        if delivery.audience & BROADCAST:
            self._metrics.broadcasts += 1
            self._metrics.payload_sizes.observe(size)
        self._pending_bytes += size
        if self._pending_bytes > MAX_BATCH_BYTES:
            self._make_batches()
        self._schedule(self)

    def send(self, budget: float) -> int:
        """Write to members, as many as may be written to in one turn.

        Args:
            budget: about how many writes of small messages may be made.

        Returns:
            About how many were.
        """
        spent = 0
        while self.waiting and spent < budget:
            if not self._batches:
                # What was published since the last batch is the next one.
                spent += self._make_batches(budget - spent)
            else:
                spent += self._batches[0].send(budget - spent)
                if self._batches[0].done:
                    self._waiting_bytes -= self._batches.popleft().size
        return spent

    def _make_batches(self, budget: float = 0) -> int:
        """Join what was collected, for each group of members that hear the same.

        Args:
            budget: a group that costs no more, and has nothing else to wait for, is written to at once.

        Returns:
            What that cost.
        """
        spent = 0
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        ahead, self._ahead = self._ahead, {}
        # Whoever must not get all of it: senders, those who had some of it, and those who came meanwhile.
        special = {delivery.sender for delivery in pending if delivery.sender is not None}
        special.update(self._replayed, ahead)
        for group, members in self._groups.items():
            audible = self._audible(pending, *group)
            if not audible:
                continue
            apart = special & members.keys()
            if others := len(members) - len(apart):
                spent += self._hand_out(self._counted(audible, others), members, apart, budget - spent)
            for member in apart:
                if own := self._own(member, audible, ahead.get(member, 0)):
                    alone = {member: members[member]}
                    spent += self._hand_out(self._counted(own, 1), alone, NOBODY, budget - spent)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            spent += self.send(inf)
        return spent

    def _hand_out(self, data: bytes, members: Members, apart: AbstractSet[Member], budget: float) -> int:
        """Write to members at once, if they wait for nothing else and it costs no more; else make a batch.

        Args:
            data: whole frames.
            members: whom they are for,
            apart: but for these.
            budget: what it may cost.

        Returns:
            What it cost.
        """
        price = (len(members) - len(apart)) * cost(data)
        if self._batches or price > budget:
            others = {member: write for member, write in members.items() if member not in apart}
            self._batches.append(Batch(data, others, self._metrics))
            self._waiting_bytes += len(data)
            return 0
        writes: Collection[Write] = members.values()
        if apart:
            # By identity, so that no member is looked at: most of thousands are in no cache.
            left_out = {id(members[member]) for member in apart}
            writes = [write for write in writes if id(write) not in left_out]
        write_each(writes, data, self._metrics)
        return price

    def _audible(
        self, deliveries: Sequence[Delivery], serializer: Serializer, hears: int, *, first: int = 0
    ) -> Audible:
        """The deliveries that a group may hear, with their frames, and at which position each is."""
        return [
            (position, delivery, frame)
            for position, delivery in enumerate(deliveries, first)
            if delivery.audience & hears and (frame := delivery.frame(serializer, self.topic))
        ]

    def _own(self, member: Member, audible: Audible, first: int) -> Audible:
        """What of it is for one member that must not get all of it, or had some already."""
        heard = self._replayed.get(member, frozenset())
        return [
            each
            for each in audible
            if each[0] >= first and each[1].sender is not member and each[1].stored_as not in heard
        ]

    def _counted(self, audible: Audible, members: int) -> bytes:
        """Join frames that so many members are about to get."""
        data = audible[0][2] if len(audible) == 1 else b"".join([frame for _, _, frame in audible])
        self._metrics.deliveries += members * len(audible)
        self._metrics.bytes_out += members * len(data)
        return data
