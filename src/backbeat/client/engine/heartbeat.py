"""Heartbeats: whether the other side is still there (client specification, 1.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backbeat.client import events
from backbeat.client.engine.effects import Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from backbeat.client.engine.turn import Turn

__all__ = ["BEAT", "SILENCE", "HeartbeatMonitor"]

BEAT: Final = Timer("heartbeat")
SILENCE: Final = Timer("heartbeat timeout")

PROBE_TIMEOUT: Final = 5.0
"""Seconds an answer may take when the connection is suspect, for instance after the machine slept."""


class HeartbeatMonitor:
    """Sends heartbeats on one connection and waits for their answers.

    Args:
        turn: the engine's current turn.
        send: writes a heartbeat and returns its ref.

    Attributes:
        latency: seconds the last answer took.
    """

    def __init__(self, turn: Turn, send: Callable[[], str]) -> None:
        self._turn = turn
        self._send = send
        self._pending: tuple[str, float] | None = None
        self._waiting: list[int] = []
        self._due_at = 0.0
        self.latency: float | None = None

    def begin(self) -> None:
        """Send the first heartbeat after one interval: the connection has just proved itself."""
        self._schedule()

    @property
    def late(self) -> float:
        """By how many seconds the heartbeat that is due now is late."""
        return self._turn.now.steady - self._due_at

    def _schedule(self) -> None:
        interval = self._turn.settings.heartbeat_interval
        self._due_at = self._turn.now.steady + interval
        self._turn.start(BEAT, interval)

    def beat(self) -> None:
        """Send a heartbeat, unless one is unanswered."""
        self._ask(self._turn.settings.heartbeat_timeout)

    def probe(self) -> None:
        """Send a heartbeat to a connection that may be dead, and wait less."""
        timeout = min(PROBE_TIMEOUT, self._turn.settings.heartbeat_timeout)
        self._ask(timeout)
        self._turn.start(SILENCE, timeout)

    def ping(self, ticket: int) -> None:
        """Send a heartbeat, unless one is unanswered; settle the ticket with the latency."""
        self._waiting.append(ticket)
        self.beat()

    def answered(self, ref: str | None) -> bool:
        """Take an answer; tell whether it was the one waited for."""
        if self._pending is None or self._pending[0] != ref:
            return False
        self.latency = self._turn.now.steady - self._pending[1]
        self._pending = None
        self._turn.stop(SILENCE)
        self._schedule()
        self._turn.emit(events.Heartbeat(at=self._turn.now.wall, status="ok", latency=self.latency))
        for ticket in self._waiting:
            self._turn.settle(ticket, self.latency)
        self._waiting.clear()
        return True

    def end(self, error: Exception) -> None:
        """Stop: the connection is gone."""
        self._pending = None
        self._turn.stop(BEAT)
        self._turn.stop(SILENCE)
        for ticket in self._waiting:
            self._turn.fail(ticket, error)
        self._waiting.clear()

    def _ask(self, timeout: float) -> None:
        if self._pending is not None:
            return
        self._pending = (self._send(), self._turn.now.steady)
        self._turn.stop(BEAT)
        self._turn.start(SILENCE, timeout)
        self._turn.emit(events.Heartbeat(at=self._turn.now.wall, status="sent"))
