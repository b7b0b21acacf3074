"""The channels of a client beside each other: who may join now, and whose turn is next.

A topic has one owner at a time: a channel that leaves keeps it until the server said so. Joins are sent at a
pace that servers accept (client specification, RJ-4).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from backbeat.client.engine.effects import Timer

if TYPE_CHECKING:
    from backbeat.client.engine.membership import Membership
    from backbeat.client.engine.turn import Turn

__all__ = ["PACE", "Roster"]

PACE: Final = Timer("pace")


class Roster:
    """Knows which channels want to join.

    Args:
        turn: the engine's current turn.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._owners: dict[str, Membership] = {}
        self._queue: dict[Membership, None] = {}
        self._paced = False
        self._sent: deque[float] = deque(maxlen=turn.settings.joins_per_second)

    def owner(self, topic: str) -> Membership | None:
        """The channel that messages of a topic are for."""
        return self._owners.get(topic)

    def await_turn(self, membership: Membership) -> None:
        """Let a channel join when it may."""
        self._queue[membership] = None

    def may_join(self, membership: Membership) -> bool:
        """Whether the topic is free, and the pace allows another join; then both are taken."""
        if self._owners.get(membership.topic, membership) is not membership:
            return False
        now = self._turn.now.steady
        if len(self._sent) == self._sent.maxlen and now - self._sent[0] < 1.0:
            self._paced = True
            self._turn.start(PACE, self._sent[0] + 1.0 - now)
            return False
        self._sent.append(now)
        self._owners[membership.topic] = membership
        return True

    def release(self, membership: Membership) -> None:
        """A channel left its topic."""
        if self._owners.get(membership.topic) is membership:
            del self._owners[membership.topic]
        self._queue.pop(membership, None)

    def advance(self) -> None:
        """Let every channel join that may."""
        self._paced = False
        for membership in list(self._queue):
            if membership in self._queue and membership.proceed():
                self._queue.pop(membership, None)
            if self._paced:
                break
