"""What a server refused, how often, and what to do about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from backbeat.errors import StartError
from backbeat.protocol import reasons

__all__ = ["UNLIMITED", "Refusal", "Refusals", "Step"]

UNLIMITED: Final = "--max-joins-per-second 0 --max-concurrent-users 0 --max-events-per-second 0"
"""The flags of a server of ours that refuses no load."""

_LIMITS: Final = (
    reasons.JOIN_LIMIT_CONNECT,
    reasons.JOIN_LIMIT,
    reasons.CONNECTION_LIMIT,
    reasons.CONNECTIONS_LIMIT,
    reasons.ADDRESS_LIMIT,
    reasons.CHANNEL_LIMIT,
    reasons.EVENTS_LIMIT,
)


_HINT: Final = re.compile(r" Hint: .*?(?= Error code: |$)")


class Step(StrEnum):
    """What did not work."""

    CONNECT = "connection"
    TLS = "TLS handshake"
    UPGRADE = "handshake"
    JOIN = "join"
    MESSAGE = "message"
    CLOSED = "open connection"


class Refusal(msgspec.Struct, frozen=True):
    """One way in which a server refuses.

    Attributes:
        step: what it refuses.
        text: its own words, or those of the system.
        status: the HTTP status, if it answered in HTTP.
    """

    step: Step
    text: str
    status: int = 0

    @property
    def limit(self) -> bool:
        """Whether it is a limit: not what was asked for is wrong, but how much of it there was."""
        words = any(limit.code in self.text or limit.text in self.text for limit in _LIMITS)
        return words or self.status == 429

    @property
    def fleeting(self) -> bool:
        """Whether it ends what was under way: something opened before."""
        return self.step in (Step.MESSAGE, Step.CLOSED)


class Refusals:
    """All refusals of a run."""

    def __init__(self) -> None:
        self._counts: Counter[Refusal] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, refusal: Refusal, count: int = 1) -> None:
        """Count a refusal."""
        self._counts[refusal] += count

    def update(self, counted: Iterable[tuple[Refusal, int]]) -> None:
        """Count many."""
        for refusal, count in counted:
            self.add(refusal, count)

    def items(self) -> list[tuple[Refusal, int]]:
        """Each refusal, and how often it was met; the most frequent first."""
        return self._counts.most_common()

    @property
    def limited(self) -> bool:
        """Whether a limit was hit."""
        return any(refusal.limit for refusal in self._counts)

    def lines(self, target: str, asked: int = 0) -> list[str]:
        """What to tell.

        Args:
            target: whom to name.
            asked: how many sockets were asked for; 0 leaves it out.
        """
        of = f" of {asked:,}" if asked else ""
        return [
            _line(target, refusal, count, "" if refusal.fleeting else of) for refusal, count in self.items()
        ]

    def advice(self, start: str) -> str:
        """What to do about the most frequent one; an empty string if there is none.

        Args:
            start: the command that starts a server of ours.
        """
        if self.limited:
            return (
                f"These are the limits of the server. One of ours is started without them like this:\n\n"
                f"    {start} {UNLIMITED}\n\n"
                f"A self-hosted Supabase keeps them with its tenant."
            )
        return _remedy(self.items()[0][0], start) if self._counts else ""

    def error(self, target: str, start: str) -> StartError:
        """The error when not one socket could join."""
        return StartError(self.lines(target)[0], hint=self.advice(start))


def _line(target: str, refusal: Refusal, count: int, of: str) -> str:
    things = f"{refusal.step}s" if count != 1 or of else refusal.step.value
    status = f"HTTP {refusal.status} " if refusal.status else ""
    match refusal.step:
        case Step.CONNECT:
            return (
                f"{count:,}{of} connections to {target} failed: {refusal.text}."
                if count > 1
                else (f"Cannot connect to {target}: {refusal.text}.")
            )
        case Step.TLS:
            return f"The TLS handshake with {target} failed: {refusal.text}."
        case Step.CLOSED:
            return f"The server closed {count:,}{of} {things}: {refusal.text}."
    many = f"{count:,}{of} {things}" if count != 1 or of else f"a {things}"
    # What the server would tell its users is of no use to whoever measures it.
    text = _HINT.sub("", refusal.text)
    return f"The server refused {many}: {status}{text!r}."


def _remedy(refusal: Refusal, start: str) -> str:
    match refusal.step:
        case Step.CONNECT:
            return f"Is a server running there? One of ours is started like this:\n\n    {start} {UNLIMITED}"
        case Step.TLS:
            return (
                "Check that the URL names the host of the certificate, and that https is spoken at this port."
            )
        case Step.UPGRADE if refusal.status in (401, 403):
            return "Check --api-key: it has to be a key of this project."
        case Step.UPGRADE:
            return "Check the URL: that of a project, of its realtime service, or of the socket itself."
        case Step.JOIN:
            return "Check --api-key; where public channels are refused, use --private and --token."
        case _:
            return "The log of the server may tell why."
