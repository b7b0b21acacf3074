"""What the engine wants done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import msgspec

from backbeat.client.events import Event

__all__ = [
    "AskToken",
    "CloseSocket",
    "Effect",
    "Emit",
    "OpenSocket",
    "Send",
    "Settle",
    "StartTimer",
    "StopAsking",
    "StopTimer",
    "Timer",
]


class Timer(NamedTuple):
    """The name of a timer.

    Attributes:
        name: what it is for.
        subject: the channel or the ticket it concerns.
    """

    name: str
    subject: int = 0


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Open a socket; answer with `SocketOpened`, `SocketRefused` or `SocketFailed`."""

    connection: int


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Close a socket, or give up opening it; answer with `SocketClosed`, soon, whatever the other side does.

    Attributes:
        code: the close code for the other side.
        reason: the same for people.
        silent: the other side is known not to answer; waiting for its goodbye would be in vain.
    """

    connection: int
    code: int
    reason: str
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Write a frame; the order of these is the order on the wire.

    Attributes:
        connection: the socket it is for; on another one it means nothing.
        compose: returns the text or the bytes of the frame. To be called when the frame is written, not
            earlier: it carries the newest token then. None stands for a frame that is no longer needed.
        size: how large the frame is, about, where that matters.
        receipt: whether to answer with `FrameWritten` once the frame is written: the channel, and the ref.
    """

    connection: int
    compose: Callable[[], str | bytes | None]
    size: int = 0
    receipt: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Answer with `TimerFired` after a delay in seconds; a running timer of that name starts anew."""

    timer: Timer
    delay: float


@dataclass(frozen=True, slots=True)
class StopTimer:
    """Let a timer not fire, if it is running."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class AskToken:
    """Ask the token source; answer with `TokenResolved` or `TokenFailed`.

    Attributes:
        refused: whether a server refused the token the source gave before: it has to get another one.
    """

    request: int
    refused: bool = False


@dataclass(frozen=True, slots=True)
class StopAsking:
    """The answer to a request is not wanted any more: cancel it."""

    request: int


@dataclass(frozen=True, slots=True)
class Settle:
    """End somebody's wait, with a value or an error."""

    ticket: int
    value: Any
    error: Exception | None


class Emit(msgspec.Struct, frozen=True):
    """Tell the user something.

    Attributes:
        event: what happened.
        channel: the channel it happened on; None for the client.
        bindings: which change bindings of the channel it matches.
    """

    event: Event
    channel: int | None
    bindings: tuple[int, ...] = ()


Effect: TypeAlias = (
    OpenSocket | CloseSocket | Send | StartTimer | StopTimer | AskToken | StopAsking | Settle | Emit
)
"""Anything the engine may want done."""
