"""The rooms of one server, and whose turn it is.

Rooms that have something to send take turns: each is written to a few hundred members, then the next. After
some milliseconds the event loop reads from its sockets again, so a flood in one room delays the messages of
the others by a turn, and nobody's heartbeat by more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from backbeat.server.room import Room

if TYPE_CHECKING:
    from backbeat.server.metrics import Metrics

__all__ = ["ROOM_BUDGET", "TURN_BUDGET", "Hub"]

log = structlog.get_logger("backbeat.hub")

ROOM_BUDGET: Final = 512
"""Writes of small messages a room may make before the next room has its turn: one takes 1 to 2 us."""

TURN_BUDGET: Final = 2500
"""Writes of small messages after which the event loop reads again. With more, others wait longer; with less,
fewer messages are published while a room is written to, and fewer can be joined."""


class Hub:
    """The rooms of one server.

    Public and private rooms of the same name are different rooms (section 6.1).

    Args:
        soon: calls a function in the next turn of the event loop.
        metrics: counts deliveries.
    """

    def __init__(self, soon: Callable[[Callable[[], None]], object], metrics: Metrics) -> None:
        self._soon = soon
        self._metrics = metrics
        self._rooms: dict[tuple[str, bool], Room] = {}
        # Each has something to send, and stands here once.
        self._waiting: deque[Room] = deque()
        self._scheduled: set[Room] = set()

    def __repr__(self) -> str:
        return f"<Hub rooms={len(self)} waiting={len(self._waiting)}>"

    def __len__(self) -> int:
        return len(self._rooms)

    def room(self, topic: str, *, private: bool) -> Room:
        """The room of a topic, made when it does not exist."""
        room = self._rooms.get((topic, private))
        if room is None:
            room = self._rooms[topic, private] = Room(topic, self._schedule, self._metrics)
        return room

    def find(self, topic: str, *, private: bool) -> Room | None:
        """The room of a topic, if anybody is there."""
        return self._rooms.get((topic, private))

    def release(self, room: Room, *, private: bool) -> None:
        """Forget a room that became empty."""
        if room.empty and self._rooms.get((room.topic, private)) is room:
            del self._rooms[room.topic, private]

    def _schedule(self, room: Room) -> None:
        """Let a room have a turn, if it is not waiting for one already."""
        if room in self._scheduled:
            return
        if not self._waiting:
            self._soon(self._turn)
        self._scheduled.add(room)
        self._waiting.append(room)

    def _turn(self) -> None:
        """Let rooms send until the budget is spent; the others, and what is left of these, have the next."""
        budget = TURN_BUDGET
        while self._waiting and budget > 0:
            room = self._waiting[0]
            try:
                budget -= max(1, room.send(min(budget, ROOM_BUDGET)))
            except Exception:
                # It costs what the room was about to send; the other rooms still have their turns.
                self._metrics.handler_failures += 1
                log.exception("fan-out failed", topic=room.topic)
            self._waiting.popleft()
            if room.waiting:
                self._waiting.append(room)
            else:
                self._scheduled.discard(room)
        if self._waiting:
            self._soon(self._turn)
