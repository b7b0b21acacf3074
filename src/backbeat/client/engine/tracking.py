"""What a channel tracks about itself, and how often it may say so (client specification, PR-3 to PR-5).

Servers close a channel that tracks too often. So a call too many waits until it is allowed, and while it
waits, a newer one takes its place: only the latest is worth telling.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backbeat.client.engine.effects import Timer

if TYPE_CHECKING:
    from backbeat.client.engine.turn import Turn

__all__ = ["PresenceCall", "Tracking"]


@dataclass(slots=True)
class PresenceCall:
    """Something to say about oneself.

    Attributes:
        payload: what to track; None to untrack.
        waiting: until when somebody waits for it by the steady clock, by their tickets.
    """

    payload: dict[str, Any] | None
    waiting: dict[int, float] = field(default_factory=dict)


class Tracking:
    """What one channel tracks.

    Args:
        turn: the engine's current turn.
        channel: the number of the channel.

    Attributes:
        tracked: the object tracked last, to be tracked again after a rejoin.
        waiting: what has to be said, and may not be said yet.
    """

    def __init__(self, turn: Turn, channel: int) -> None:
        self._turn = turn
        self._turn_comes = Timer("presence", channel)
        self._patience = Timer("track", channel)
        self._said: deque[float] = deque(maxlen=turn.settings.presence_calls)
        self.tracked: dict[str, Any] | None = None
        self.waiting: PresenceCall | None = None

    def call(self, payload: dict[str, Any] | None, ticket: int, timeout: float) -> None:
        """Have something said; it takes the place of what waits.

        Args:
            payload: what to track; None to untrack.
            ticket: who waits for it.
            timeout: how many seconds.
        """
        self.tracked = payload
        before = {} if self.waiting is None else self.waiting.waiting
        self.waiting = PresenceCall(payload, before | {ticket: self._turn.now.steady + timeout})
        self._turn.start(self._patience, min(self.waiting.waiting.values()) - self._turn.now.steady)

    def rejoined(self) -> None:
        """The channel is joined, and the server knows nothing of it yet."""
        if self.waiting is None and self.tracked is not None:
            self.waiting = PresenceCall(self.tracked)

    def due(self) -> PresenceCall | None:
        """What may be said now; if it may not be said yet, a timer is started."""
        if self.waiting is None:
            return None
        now = self._turn.now.steady
        window = self._turn.settings.presence_window
        if len(self._said) == self._said.maxlen and now - self._said[0] < window:
            self._turn.start(self._turn_comes, self._said[0] + window - now)
            return None
        self._said.append(now)
        self._turn.stop(self._patience)
        call, self.waiting = self.waiting, None
        return call

    def late(self) -> list[int]:
        """Let go of those who waited long enough; what they wanted said is said when it may be.

        Returns:
            Their tickets.
        """
        if self.waiting is None:
            return []
        now, waiting = self._turn.now.steady, self.waiting.waiting
        late = [ticket for ticket, deadline in waiting.items() if deadline <= now]
        for ticket in late:
            del waiting[ticket]
        if waiting:
            self._turn.start(self._patience, min(waiting.values()) - now)
        return late

    def forget(self) -> list[int]:
        """Track nothing any more.

        Returns:
            The tickets of whoever waits.
        """
        self._turn.stop(self._turn_comes)
        self._turn.stop(self._patience)
        waiting, self.waiting, self.tracked = self.waiting, None, None
        return [] if waiting is None else list(waiting.waiting)
