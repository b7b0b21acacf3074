"""What a channel does about a refusal: at once, with another token, later, or never (1.7; 2.5, C1 to C5)."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Final

from backbeat.client import events
from backbeat.errors import BindingMismatch, Retry, TokenRefused
from backbeat.protocol.reasons import REPLAY_FAILED

if TYPE_CHECKING:
    from backbeat.client.engine.keeper import TokenKeeper
    from backbeat.client.engine.ledger import Ledger
    from backbeat.client.engine.turn import Turn
    from backbeat.errors import BackbeatError

__all__ = ["Recovery", "Remedy"]

REFRESH_PAUSE: Final = 30.0
"""Seconds between two times that a refused token is replaced at once."""


class Remedy(Enum):
    """What may help."""

    WITHOUT_REPLAY = "without replay"
    REFRESH = "refresh"
    LATER = "later"
    NOTHING = "nothing"


class Recovery:
    """Remembers what one channel has tried.

    Args:
        turn: the engine's current turn.
        keeper: the tokens.
        ledger: the token the server went by.
    """

    def __init__(self, turn: Turn, keeper: TokenKeeper, ledger: Ledger) -> None:
        self._turn = turn
        self._keeper = keeper
        self._ledger = ledger
        self._attempts = 0
        self._mismatches = 0
        self._refreshed_at = -math.inf

    def begin(self) -> None:
        """Somebody wants the channel joined, and what was tried before does not count."""
        self.joined()
        self._refreshed_at = -math.inf

    def joined(self) -> None:
        """The channel is joined."""
        self._attempts = self._mismatches = 0

    def remedy(self, error: BackbeatError, *, replaying: bool) -> Remedy:
        """What may help against an error.

        Args:
            error: why the channel is not joined.
            replaying: whether the join asked for stored messages.
        """
        if replaying and error.code == REPLAY_FAILED.code:
            return Remedy.WITHOUT_REPLAY
        if isinstance(error, TokenRefused) and self._may_refresh():
            self._refreshed_at = self._turn.now.steady
            return Remedy.REFRESH
        if isinstance(error, BindingMismatch):
            self._mismatches += 1
            return Remedy.LATER if self._mismatches == 1 else Remedy.NOTHING
        if error.retry is Retry.NEVER:
            return Remedy.NOTHING
        self._suspect_clock(error)
        return Remedy.LATER

    def wait(self, error: BackbeatError) -> float:
        """How many seconds to wait before the next attempt."""
        self._attempts += 1
        limited = error.retry is Retry.SLOW
        return self._turn.back_off(
            self._attempts, at_least=self._turn.settings.limited_backoff if limited else 0.0
        )

    def _may_refresh(self) -> bool:
        """Whether a new token may help: once, and only if the refused one came from a source to ask."""
        pause = self._turn.now.steady - self._refreshed_at
        return pause >= REFRESH_PAUSE and self._keeper.asks and self._ledger.told is not None

    def _suspect_clock(self, error: BackbeatError) -> None:
        token = self._ledger.told
        if error.retry is Retry.REFRESH and token is not None and token.expires_at is not None:
            left = token.expires_at - self._turn.now.wall
            if left > 0:
                self._turn.emit(events.ClockSkewSuspected(at=self._turn.now.wall, seconds_left=left))
