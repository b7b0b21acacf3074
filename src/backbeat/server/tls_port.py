"""A port that speaks TLS: whoever connects takes a place at once, and handshakes that fail are told.

An event loop that is given a certificate shakes hands by itself. It tells nobody how many handshakes are
under way, so any number of connections that never finish theirs could be held open; nor whose failed, and a
client that does not trust the certificate would leave no trace here.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from backbeat.protocol import closings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from backbeat.protocol.closings import Closing
    from backbeat.protocol.reasons import Reason
    from backbeat.server.arrival import Arrival
    from backbeat.server.certificate import Certificate
    from backbeat.server.realtime import Realtime

__all__ = ["TlsPort"]

log = structlog.get_logger("backbeat.tls")

AT_ONCE: Final = 64
"""Connections accepted in one turn of the event loop."""

PAUSE: Final = 1.0
"""Seconds until the next try when no connection can be accepted: the process has no open file left."""

DISTRUST: Final = "The client does not trust the certificate: look at its names and dates."

HINTS: Final = {
    "HTTP_REQUEST": "The client speaks http to a port of https.",
    "SSLV3_ALERT_BAD_CERTIFICATE": DISTRUST,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "The certificate has ended: renew it.",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": DISTRUST,
    "TLSV1_ALERT_UNKNOWN_CA": "The client does not know the authority. Behind the certificate of the server,"
    " --tls-cert has to hold those that lead to one that is known.",
    "UNSUPPORTED_PROTOCOL": "The client speaks nothing newer than TLS 1.1.",
}
"""What to do about an error of OpenSSL, by its name."""


class TlsPort:
    """Accepts connections of one listener until it is closed; to uvicorn, it is like a server of asyncio.

    Args:
        realtime: the server; its entrance has the places, and it owns the tasks.
        listener: where to listen. It is closed in the end.
        certificate: has what speaks TLS.
        make_arrival: makes what takes the first bytes behind a handshake; gets the place of the connection.
    """

    def __init__(
        self,
        realtime: Realtime,
        listener: socket.socket,
        certificate: Certificate,
        *,
        make_arrival: Callable[[str | Reason], Arrival],
    ) -> None:
        self._realtime = realtime
        self._entrance = realtime.entrance
        self._listener = listener
        self._certificate = certificate
        self._make_arrival = make_arrival
        self._patience = realtime.settings.connections.handshake_timeout
        self._handshakes: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._listen()

    def __repr__(self) -> str:
        return f"<TlsPort handshakes={len(self._handshakes)}>"

    def close(self) -> None:
        """Accept nobody any more, and finish no handshake; connections that are open stay."""
        self._realtime.loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()
        for handshake in self._handshakes:
            handshake.cancel()

    async def wait_closed(self) -> None:
        """Wait until the handshakes have ended that `close` ended."""
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    def _listen(self) -> None:
        self._pause = None
        self._realtime.loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Accept those who wait, or some of them: who is here has a turn in between."""
        for _ in range(AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                log.exception("no connection can be accepted")
                self._realtime.loop.remove_reader(self._listener)
                self._pause = self._realtime.loop.call_later(PAUSE, self._listen)
                return
            connection.setblocking(False)
            self._receive(connection, str(address[0]))

    def _receive(self, connection: socket.socket, address: str) -> None:
        """Take a place, and begin with TLS; that there is none can be told behind the handshake only."""
        place = self._entrance.enter(address)
        if not isinstance(place, str):
            self._entrance.lingering += 1
            if self._entrance.crowded:
                self._entrance.lingering -= 1
                self._realtime.count_refusal(place.refusal())
                connection.close()
                return
        arrival = self._make_arrival(place)
        handshake = self._realtime.spawn(
            self._shake_hands(arrival, connection, address), name="tls handshake"
        )
        self._handshakes.add(handshake)
        # Not at the end of the task: one that is cancelled before its first step never runs.
        handshake.add_done_callback(partial(self._over, arrival, connection, place))

    async def _shake_hands(self, arrival: Arrival, connection: socket.socket, address: str) -> None:
        try:
            await self._realtime.loop.connect_accepted_socket(
                lambda: arrival,
                connection,
                ssl=self._certificate.context,
                ssl_handshake_timeout=self._patience,
                ssl_shutdown_timeout=self._patience,
            )
        except ConnectionAbortedError:
            self._failed(closings.TLS_TOO_SLOW, address)
        except ssl.SSLError as error:
            self._failed(closings.TLS_FAILED, address, reason=error.reason, hint=HINTS.get(error.reason, ""))
        except OSError as error:
            self._failed(closings.TLS_FAILED, address, reason=type(error).__name__)

    def _over(
        self,
        arrival: Arrival,
        connection: socket.socket,
        place: str | Reason,
        handshake: asyncio.Task[None],
    ) -> None:
        """Give back what was taken for a handshake, but for what a connection gives back that came of it."""
        self._handshakes.discard(handshake)
        if not isinstance(place, str):
            self._entrance.lingering -= 1
        if arrival.made:
            return
        connection.close()
        if isinstance(place, str):
            self._entrance.leave(place)

    def _failed(self, closing: Closing, address: str, **why: str) -> None:
        self._realtime.metrics.closes[closing.name] += 1
        log.info("tls handshake failed", code=closing.name, address=address, **why)
