"""Clients that begin a message and do not get on with it: a decision only; the time is an argument.

A message may take long, for lines are slow. It may not take for ever, for a piece of one holds memory and a
place. So each has some time however short it is, and more in proportion to what has arrived: one byte a
second earns nothing.

Looking at all sockets every few seconds costs less than a timer for each, and costs the path of an ordinary
frame nothing. A message counts as begun when it is first seen unfinished.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backbeat.server.entrance import ConnectionSettings

__all__ = ["SlowSenders"]

SenderT = TypeVar("SenderT")


class SlowSenders(Generic[SenderT]):
    """Remembers since when messages have been unfinished.

    Args:
        settings: how long that may be.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._begun: dict[SenderT, tuple[bytearray, float]] = {}

    def look(self, held: Iterable[tuple[SenderT, bytearray, int]], now: float) -> list[SenderT]:
        """Look at everybody who is in the middle of a message.

        Args:
            held: who it is, what the message is kept in (the same object for as long as it is the same
                message, `FrameParser.unfinished`), and how many bytes of it have arrived.
            now: the time.

        Returns:
            Those that are too slow.
        """
        begun: dict[SenderT, tuple[bytearray, float]] = {}
        slow = []
        for sender, buffer, received in held:
            before = self._begun.get(sender)
            # Compared by identity, and the object is kept: another message would look the same in its place.
            since = before[1] if before is not None and before[0] is buffer else now
            begun[sender] = buffer, since
            if now - since > self._settings.time_for(received):
                slow.append(sender)
        self._begun = begun
        return slow

    def forget(self, sender: SenderT) -> None:
        """Let go of somebody who left.

        Args:
            sender: who, whether in the middle of a message or not.
        """
        self._begun.pop(sender, None)
