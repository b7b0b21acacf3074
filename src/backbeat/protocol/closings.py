"""Every way a Backbeat server ends a socket that did not break RFC 6455: name, code and text.

Breaches of the RFC have the codes it names and say in words what was wrong; `backbeat.websocket.frames` has
those. A client reads the code and the text in the close frame; an operator finds the name in the log and in
`backbeat_closes_total`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "CLOSINGS",
    "CONTROL_FLOOD",
    "GARBAGE_FLOOD",
    "IDLE",
    "MESSAGE_TOO_SLOW",
    "NO_CHANNELS",
    "RESTARTING",
    "SLOW_READER",
    "TLS_FAILED",
    "TLS_TOO_SLOW",
    "Closing",
]


@dataclass(frozen=True, slots=True)
class Closing:
    """One way to be sent away.

    Attributes:
        name: the stable name.
        code: the close code; 1006 where nothing can be sent any more and the connection is cut.
        text: the same for people.
    """

    name: str
    code: int
    text: str


IDLE: Final = Closing("IdleTimeout", 1000, "idle timeout")
"""Nothing was heard for `idle_timeout`: without heartbeats nobody is there. The code is the original's."""

NO_CHANNELS: Final = Closing("NoChannels", 1000, "no channels")
"""All channels were left `alone_timeout` ago."""

RESTARTING: Final = Closing("RealtimeRestarting", 1012, "Realtime is restarting")
"""The server stops; clients come back by themselves."""

MESSAGE_TOO_SLOW: Final = Closing("MessageTooSlow", 1008, "a message took too long to arrive")
"""A message was begun and did not come at `min_message_rate` (`message_timeout`)."""

CONTROL_FLOOD: Final = Closing("TooManyControlFrames", 1008, "too many pings and pongs")
"""More than `max_control_frames_per_second`."""

GARBAGE_FLOOD: Final = Closing("TooManyMalformedFrames", 1008, "too many frames that are no message")
"""The same limit, for frames that are dropped: each costs a line in the log."""

SLOW_READER: Final = Closing("SlowReader", 1006, "")
"""More than `write_buffer_bytes` waits for the client; a close frame would have to wait behind it."""

TLS_FAILED: Final = Closing("TlsHandshakeFailed", 1006, "")
"""One side broke the handshake of TLS off: the client does not trust the certificate, or speaks no TLS."""

TLS_TOO_SLOW: Final = Closing("TlsHandshakeTimeout", 1006, "")
"""A handshake of TLS took longer than `handshake_timeout`."""

CLOSINGS: Final = {value.name: value for value in list(globals().values()) if isinstance(value, Closing)}
"""Every closing by its name."""
