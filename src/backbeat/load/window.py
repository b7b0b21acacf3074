"""How many messages may be sent now, so that a given number of them is in flight."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Window"]


class Window:
    """A closed loop: so many messages are in flight, until all members have them.

    It is refilled when half of it is free: then messages go out a few at a time, as they do from a busy
    application. Members may be spread over several processes; a message has arrived when all have told so.

    Args:
        size: messages in flight at most.
        members: members of a topic, by process.

    Attributes:
        members: the same.
        sent: messages sent so far.
    """

    def __init__(self, size: int, members: Sequence[int]) -> None:
        self._size = size
        self.members = members
        self._arrived = [0] * len(members)
        self.sent = 0

    def arrived(self, process: int, messages: int) -> None:
        """Note how many messages all members in a process have got by now."""
        self._arrived[process] = max(self._arrived[process], messages)

    def take(self) -> int:
        """How many messages to send now; they count as sent."""
        room = self._size - (self.sent - min(self._arrived))
        if room < self._half:
            return 0
        self.sent += room
        return room

    def next_look(self, process: int) -> int:
        """The number of deliveries at which this process can make a difference."""
        return max(self.sent - self._size + self._half, self._arrived[process] + 1) * self.members[process]

    @property
    def _half(self) -> int:
        return (self._size + 1) // 2
