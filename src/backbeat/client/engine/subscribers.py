"""Those who wait for a subscription: until when, and for how much of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from backbeat.client.engine.effects import Timer

if TYPE_CHECKING:
    from backbeat.client.engine.turn import Turn
    from backbeat.errors import BackbeatError

__all__ = ["Subscribers"]


@dataclass(frozen=True, slots=True)
class _Subscriber:
    ticket: int
    ready: Literal["joined", "streaming"]
    deadline: float


class Subscribers:
    """Everybody who waits for one channel.

    Args:
        turn: the engine's current turn.
        channel: the number of the channel.
    """

    def __init__(self, turn: Turn, channel: int) -> None:
        self._turn = turn
        self._timer = Timer("subscribe", channel)
        self._armed = math.inf
        self._waiting: list[_Subscriber] = []

    def add(self, ticket: int, ready: Literal["joined", "streaming"], timeout: float) -> None:
        """Somebody waits.

        Args:
            ticket: who.
            ready: for what.
            timeout: for how many seconds.
        """
        deadline = self._turn.now.steady + timeout
        self._waiting.append(_Subscriber(ticket, ready, deadline))
        self._arm(deadline)

    def settle(self, *, streaming: bool) -> None:
        """The channel is joined.

        Args:
            streaming: whether row changes arrive, or none were asked for.
        """
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each.ready == "joined" or streaming:
                self._turn.settle(each.ticket)
            else:
                self._waiting.append(each)

    def fail(self, error: BackbeatError, *, within: float = math.inf) -> None:
        """Give up on behalf of those who wait no longer than that.

        Args:
            error: why.
            within: seconds; nothing will get better before.
        """
        limit = self._turn.now.steady + within
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each.deadline <= limit:
                self._turn.fail(each.ticket, error)
            else:
                self._waiting.append(each)

    def expire(self, error: BackbeatError) -> None:
        """Handle the timer: give up on behalf of those whose time is over."""
        self.fail(error, within=0.0)
        self._armed = math.inf
        self._arm(min((each.deadline for each in self._waiting), default=math.inf))

    def close(self, error: BackbeatError) -> None:
        """Give up on behalf of everybody."""
        self.fail(error)
        self._armed = math.inf
        self._turn.stop(self._timer)

    def _arm(self, deadline: float) -> None:
        if deadline < self._armed:
            self._armed = deadline
            self._turn.start(self._timer, deadline - self._turn.now.steady)
