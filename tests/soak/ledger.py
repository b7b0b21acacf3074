"""The books about messages: who sent what where, who was there, and what each of them got.

Each sender numbers its messages from 1. A *stay* is somebody's time at a place: from a join to a leave, or to
the end of the connection. The rules:

1. Whoever is there when a message is sent, and stays, gets it once.
2. What one sender sends arrives in the order it was sent.
3. Whoever leaves gets what was published before it asked to leave; what is sent around that time it may get.
4. Nothing arrives before the join was answered or after the leave was.
5. What was published before somebody asked to join never reaches it, but for a replay.
6. Nothing arrives that nobody sent, or that was sent elsewhere.
7. Whoever joins with a replay gets the newest of what is stored, too, once and in order with what follows.

A message counts as *accepted* when whoever took it has answered for it, and as *published* when it was
answered from within the room, or somebody there has it. What a sender wrote before its connection was cut may
be lost, but only for everybody alike.

Nothing is read from a clock here: the order of the calls is the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import NamedTuple

__all__ = ["Ledger", "Phase", "Place", "Sender", "Stay"]


class Place(NamedTuple):
    """Where messages go: a room, or the rows of a table that somebody may see.

    Attributes:
        name: what tells it from the others.
        at_once: whether a message is written to all who are there before anybody's leave is looked at.
    """

    name: str
    at_once: bool = True


class Phase(Enum):
    """Where in its life a stay is."""

    JOINING = "joining"
    UNSURE = "unsure"
    """It may get messages, and may miss some: what it may hear is being decided anew."""
    THERE = "there"
    LEAVING = "leaving"
    OVER = "over"


@dataclass(eq=False)
class Sender:
    """Somebody who sends to one place.

    Attributes:
        name: stands in every message.
        place: where they go.
        stored: whether they are kept, and replayed to those who join with a replay.
        sent: the number of the last one.
        accepted: up to which number they arrive for certain.
        published: up to which number they have been written to everybody who was there.
    """

    name: str
    place: Place
    stored: bool = False
    sent: int = 0
    accepted: int = 0
    published: int = 0


@dataclass(eq=False)
class _Account:
    """What one stay got of one sender."""

    due_from: float
    first: int = 0
    last: int = 0
    due_until: int = 0
    skipped: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Stay:
    """Somebody's time at a place.

    Attributes:
        who: for the report.
        place: where.
        without: the sender it does not hear, itself usually.
        replay: how many stored messages of each sender it gets when it joins.
        phase: where in its life it is.
    """

    who: str
    place: Place
    without: Sender | None = None
    replay: int = 0
    phase: Phase = Phase.JOINING
    accounts: dict[Sender, _Account] = field(default_factory=dict, repr=False)
    before: dict[Sender, int] = field(default_factory=dict, repr=False)
    """What had been published when it asked to join."""


class Ledger:
    """Keeps the books.

    Attributes:
        faults: what went wrong, in words.
        received: how many messages were received.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.received = 0
        self._senders: dict[str, Sender] = {}
        self._places: dict[Place, tuple[set[Sender], set[Stay]]] = {}

    def __repr__(self) -> str:
        return f"<Ledger received={self.received} faults={len(self.faults)}>"

    # Sending ------------------------------------------------------------------------------------------------

    def sender(self, name: str, place: Place, *, stored: bool = False) -> Sender:
        """Open the account of a sender, whose name nobody else has."""
        assert name not in self._senders
        sender = self._senders[name] = Sender(name, place, stored)
        senders, stays = self._at(place)
        senders.add(sender)
        for stay in stays:
            # Whoever is there hears it from the first message on.
            self._account(stay, sender, 1 if stay.phase is Phase.THERE else inf)
        return sender

    def sent(self, sender: Sender) -> int:
        """Count one more message, which is about to be sent; return its number."""
        sender.sent += 1
        return sender.sent

    def accepted(self, sender: Sender, number: int | None = None) -> None:
        """Note that messages arrive for certain: up to a number, or all that were sent."""
        sender.accepted = max(sender.accepted, sender.sent if number is None else number)

    def published(self, sender: Sender, number: int | None = None) -> None:
        """Note that messages were written to everybody who was there: up to a number, or all."""
        self.accepted(sender, number)
        if sender.place.at_once:
            sender.published = max(sender.published, sender.sent if number is None else number)

    # Staying ------------------------------------------------------------------------------------------------

    def joining(self, who: str, place: Place, *, without: Sender | None = None, replay: int = 0) -> Stay:
        """Begin a stay: the join is about to be sent."""
        stay = Stay(who, place, without, replay)
        senders, stays = self._at(place)
        stays.add(stay)
        stay.before = {sender: sender.published for sender in senders if not (replay and sender.stored)}
        for sender in senders:
            self._account(stay, sender, inf)
        return stay

    def unsure(self, stay: Stay) -> None:
        """Note that messages may come or not come until `joined` is called (again)."""
        if stay.phase in (Phase.JOINING, Phase.THERE):
            stay.phase = Phase.UNSURE
            for account in stay.accounts.values():
                account.due_from = inf

    def joined(self, stay: Stay) -> None:
        """Note that the join was answered: whatever is sent from now on is due, and a replay."""
        if stay.phase in (Phase.JOINING, Phase.UNSURE):
            replay = stay.replay if stay.phase is Phase.JOINING else 0
            stay.phase = Phase.THERE
            for sender, account in stay.accounts.items():
                account.due_from = max(1, sender.sent + 1 - (replay if sender.stored else 0))

    def leaving(self, stay: Stay) -> None:
        """Note that the stay is about to end by request: what was published until now is still due."""
        if stay.phase is Phase.OVER:
            return
        there, stay.phase = stay.phase is Phase.THERE, Phase.LEAVING
        for sender, account in stay.accounts.items():
            if there and account.due_from <= sender.published:
                account.due_until = sender.published

    def left(self, stay: Stay) -> None:
        """Note that the leave was answered: nothing may come any more."""
        for sender, account in stay.accounts.items():
            if sender is not stay.without and account.last < account.due_until:
                self._fault(
                    "lost", stay, sender, f"{account.last + 1} to {account.due_until}, before it left"
                )
        self.lost(stay)

    def lost(self, stay: Stay) -> None:
        """Note that the stay ended with its connection, or was ended: nothing more was due."""
        stay.phase = Phase.OVER
        self._at(stay.place)[1].discard(stay)

    # Receiving ----------------------------------------------------------------------------------------------

    def receive(self, stay: Stay, name: str, number: int, *, replayed: bool = False) -> None:
        """Note that somebody got a message; who gets a replay may be ahead of all the others."""
        self.received += 1
        sender = self._senders.get(name)
        if sender is None or sender.place != stay.place or not 0 < number <= sender.sent:
            self.faults.append(f"invented: {stay.who} at {stay.place.name} got {name} {number}")
            return
        account = stay.accounts.get(sender)
        if stay.phase is Phase.OVER or account is None:
            self._fault("late", stay, sender, str(number))
        elif stay.phase is Phase.JOINING:
            self._fault("early", stay, sender, str(number))
        elif number < account.first or number in account.skipped:
            self._fault("swapped", stay, sender, f"{number} after {account.last}")
        elif number <= account.last:
            self._fault("doubled", stay, sender, str(number))
        elif number <= stay.before.get(sender, 0):
            self._fault("stale", stay, sender, f"{number}, from before its join")
        elif sender is stay.without:
            self._fault("echoed", stay, sender, str(number))
        else:
            if number - 1 > account.last and number - 1 >= account.due_from:
                first = int(max(account.last + 1, account.due_from))
                self._fault("lost", stay, sender, f"{first} to {number - 1}")
            if account.first:
                account.skipped.update(range(account.last + 1, number))
            account.first = account.first or number
            account.last = number
            (self.accepted if replayed else self.published)(sender, number)

    # Reckoning ----------------------------------------------------------------------------------------------

    def missing(self) -> list[str]:
        """What somebody who is there is still waiting for, in words."""
        return [
            f"{stay.who} at {stay.place.name} waits for {sender.name} {account.last + 1} to {sender.accepted}"
            for _, stays in self._places.values()
            for stay in stays
            if stay.phase is Phase.THERE
            for sender, account in stay.accounts.items()
            if sender is not stay.without
            and account.due_from <= sender.accepted
            and account.last < sender.accepted
        ]

    def close(self) -> list[str]:
        """End the books: what is missing now is lost. Forgets everybody and returns all faults."""
        self.faults += [f"lost: {missing}" for missing in self.missing()]
        self._senders.clear()
        self._places.clear()
        return self.faults

    def _at(self, place: Place) -> tuple[set[Sender], set[Stay]]:
        return self._places.setdefault(place, (set(), set()))

    @staticmethod
    def _account(stay: Stay, sender: Sender, due_from: float) -> None:
        stay.accounts[sender] = _Account(due_from)

    def _fault(self, kind: str, stay: Stay, sender: Sender, what: str) -> None:
        self.faults.append(f"{kind}: {stay.who} at {stay.place.name}, from {sender.name}: {what}")
