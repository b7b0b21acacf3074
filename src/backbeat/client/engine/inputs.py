"""What the engine is told: by the socket, the timers, the token source and the user.

A `ticket` is a number chosen by whoever waits; the engine settles each one exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from backbeat.client.config import ChannelConfig
from backbeat.client.engine.effects import Timer

__all__ = [
    "AuthReady",
    "Broadcast",
    "ClearAuth",
    "Close",
    "Connect",
    "Disconnect",
    "FrameWritten",
    "FramesReceived",
    "Input",
    "Ping",
    "RemoveChannel",
    "SetAuth",
    "SocketClosed",
    "SocketFailed",
    "SocketOpened",
    "SocketRefused",
    "SourceChanged",
    "Subscribe",
    "TimerFired",
    "TokenFailed",
    "TokenResolved",
    "Track",
    "Unsubscribe",
    "UseSource",
]


@dataclass(frozen=True, slots=True)
class SocketOpened:
    """A socket is open.

    Attributes:
        server_time: the server's clock, in seconds since the epoch, if its answer told it.
    """

    connection: int
    server_time: float | None = None


@dataclass(frozen=True, slots=True)
class SocketRefused:
    """The upgrade was answered with something else than a socket.

    Attributes:
        status: the HTTP status.
        body: the beginning of the answer.
        retry_after: seconds the server asks to wait, if it does.
    """

    connection: int
    status: int
    body: bytes = b""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class SocketFailed:
    """There was no answer to the upgrade: no name, no port, no TLS, no HTTP."""

    connection: int
    reason: str


@dataclass(frozen=True, slots=True)
class SocketClosed:
    """A socket is gone, whoever closed it. 1006 stands for a connection that broke (RFC 6455, 7.4.1)."""

    connection: int
    code: int = 1006
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FramesReceived:
    """Frames arrived, in this order: text, or bytes."""

    connection: int
    frames: Sequence[str | bytes]


@dataclass(frozen=True, slots=True)
class FrameWritten:
    """A frame that was to be acknowledged is written: the other side may have it.

    Attributes:
        channel: the channel it is of.
        ref: its ref.
    """

    connection: int
    channel: int
    ref: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer ran out."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class TokenResolved:
    """The token source answered; None means that nobody is signed in."""

    request: int
    value: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenFailed:
    """The token source raised."""

    request: int
    error: Exception


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """The token source says that its token is another one now.

    Attributes:
        signed_out: nobody is signed in any more, so there is nothing to wait for.
    """

    signed_out: bool = False


@dataclass(frozen=True, slots=True)
class SetAuth:
    """Use this token.

    Attributes:
        token: the token.
        pin: until `UseSource` or `ClearAuth`; else only until the source answers the next time.
    """

    ticket: int
    token: str = field(repr=False)
    pin: bool = True


@dataclass(frozen=True, slots=True)
class UseSource:
    """Let an explicit token go, and ask the token source."""

    ticket: int


@dataclass(frozen=True, slots=True)
class ClearAuth:
    """Be nobody, until `SetAuth` or `UseSource`."""

    ticket: int


@dataclass(frozen=True, slots=True)
class AuthReady:
    """Tell when no question to the token source is open."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the connection, and tell when it is open."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection; channels stay, and join again after the next `Connect`."""

    ticket: int
    code: int = 1000
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Close:
    """End everything; nothing else is accepted afterwards."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Send a heartbeat now, and tell how long its answer takes."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Join a channel, and tell when that is done.

    Attributes:
        channel: the number of the channel, chosen by the caller.
        topic: its topic, without the prefix.
        config: what to ask for.
        ready: what to wait for: the reply, or also that row changes stream.
        timeout: seconds to wait.
    """

    ticket: int
    channel: int
    topic: str
    config: ChannelConfig
    ready: Literal["joined", "streaming"]
    timeout: float


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Leave a channel, and tell when that is done."""

    ticket: int
    channel: int


@dataclass(frozen=True, slots=True)
class RemoveChannel:
    """Forget a channel, as soon as it is left."""

    channel: int


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send a broadcast.

    Attributes:
        event: the event, chosen by the application.
        payload: JSON text, or bytes when not `is_json`.
        timeout: seconds to wait for a place on the wire, and then for the reply.
        hold: whether it may wait while the channel is not joined.
        wait: whether to settle with the reply, where the channel asks for one.
    """

    ticket: int
    channel: int
    event: str
    payload: bytes
    is_json: bool
    timeout: float
    hold: bool = True
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Track:
    """Track a presence, or untrack it when the payload is None."""

    ticket: int
    channel: int
    payload: dict[str, Any] | None
    timeout: float


Input: TypeAlias = (
    SocketOpened
    | SocketRefused
    | SocketFailed
    | SocketClosed
    | FrameWritten
    | FramesReceived
    | TimerFired
    | TokenResolved
    | TokenFailed
    | SourceChanged
    | SetAuth
    | UseSource
    | ClearAuth
    | AuthReady
    | Connect
    | Disconnect
    | Close
    | Ping
    | Subscribe
    | Unsubscribe
    | RemoveChannel
    | Broadcast
    | Track
)
"""Anything the engine may be told."""
