"""Which token the server was told, with a join or after it (client specification, 2.4 and 2.5)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backbeat.client.engine.tokens import ResolvedToken

__all__ = ["Ledger", "Verdict", "same_token"]


class Verdict(Enum):
    """What a new token means for a channel."""

    NOTHING = "nothing"
    TELL = "tell"
    """Push it: the same user, or the first one."""

    LEAVE = "leave"
    """Another user, or nobody: servers would go on sending what the old one may see, until its token ends."""


class Ledger:
    """The token of one channel, as far as the server knows.

    Attributes:
        told: the token the server was told last; None stands for the API key.
        written: whether the join of now was written; what it carries is decided then.
    """

    def __init__(self) -> None:
        self.told: ResolvedToken | None = None
        self.written = False

    def join_queued(self) -> None:
        """A join waits to be written."""
        self.written = False

    def wrote(self, token: ResolvedToken | None) -> None:
        """The server is told a token."""
        self.told = token
        self.written = True

    def forget(self) -> None:
        """The server knows nothing of the channel any more."""
        self.told = None
        self.written = False

    def compare(self, token: ResolvedToken | None, *, guarded: bool, now: float) -> Verdict:
        """What is to be done about the newest token.

        Args:
            token: the newest token; None when nobody is signed in.
            guarded: whether row level security decides what the channel gets.
            now: seconds since the epoch.
        """
        told = self.told
        if same_token(told, token):
            return Verdict.NOTHING
        if token is None:
            # Nothing takes a token back: a channel that does not depend on it keeps it until it ends.
            return Verdict.LEAVE if guarded else Verdict.NOTHING
        if token.is_expired(now):
            return Verdict.NOTHING
        if told is not None and not told.same_identity(token):
            if guarded:
                return Verdict.LEAVE
            return Verdict.TELL if token.is_jwt else Verdict.NOTHING
        return Verdict.TELL

    def describe(self, now: float) -> str:
        """Say which token the server went by, for a hint.

        Args:
            now: seconds since the epoch.
        """
        if self.told is None:
            return "Asked with the API key alone: the join carried no user's token."
        return f"Asked with the {self.told.describe(now)}."


def same_token(one: ResolvedToken | None, other: ResolvedToken | None) -> bool:
    """Whether both are the same token, wherever they came from."""
    return (one and one.value) == (other and other.value)
