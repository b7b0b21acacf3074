"""A connection that is no socket, or not yet: HTTP as uvicorn speaks it, with limits on what has not arrived.

uvicorn reads heads of any size for any time, drops what stands behind the head of an upgrade, and lets an
upgrade overtake the answer to a request before it. Here a head has a size and a time, a body has a pace, and
the place that a connection takes passes on to the socket it becomes.

The contract with uvicorn: `HttpToolsProtocol` keeps the transport, the headers and the URL of the request
that is being read, and one cycle for each request; its callbacks are those of httptools. Like the rest of
that contract it is proved by tests that start the real server.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backbeat.protocol import reasons
from backbeat.server.addresses import TRUSTED
from backbeat.server.refusals import refused

if TYPE_CHECKING:
    import asyncio

    from backbeat.protocol.reasons import Reason
    from backbeat.server.realtime import Realtime
    from backbeat.server.socket import Socket

__all__ = ["Door"]

log = structlog.get_logger("backbeat.door")

LINGER: Final = 1.0
"""Seconds a refused client has to read the answer: closing at once, while it still sends, would make its
kernel forget what we wrote (RFC 9112 section 9.6)."""

HEADER_OVERHEAD: Final = 4
"""Bytes of a header line beside its name and its value."""


class _Wait(Enum):
    """What has not arrived."""

    HEAD = "head"
    BODY = "body"


class Door(HttpToolsProtocol):
    """One connection that is no socket, or not yet.

    Args:
        realtime: the server.
        place: its place, or the reason why there is none.
        since: when it was accepted, by the clock of the event loop.
        uvicorn: what uvicorn passes.
    """

    def __init__(self, realtime: Realtime, *, place: str | Reason, since: float, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._realtime = realtime
        self._entrance = realtime.entrance
        self._limits = realtime.settings.connections
        self._arrived = place
        self._place = place if isinstance(place, str) else None
        self._trusted = False
        self._refused = False
        self._lingers = False
        self._breach: Reason | None = None
        # What we wait for, since when, how much of it has come, and who looks when it is late.
        self._wait: _Wait | None = None
        self._since = since
        self._received = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        # Bytes since httptools last told of something, and those of the head it has told of.
        self._untold = 0
        self._head_size = 0

    # What asyncio tells -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Await a request; without a place, say so and close."""
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        self._trusted = self._entrance.proxies.trust(peer)
        if isinstance(self._arrived, str):
            self._await(_Wait.HEAD, since=self._since)
        else:
            self._entrance.lingering += 1
            self._lingers = True
            self._refuse(self._arrived, address=peer)
            if self._entrance.crowded:
                transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._await(None)
        self._read_again()
        if self._place is not None:
            self._entrance.leave(self._place)
            self._place = None
        if self._lingers:
            self._entrance.lingering -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read requests, until one of them is an upgrade."""
        self._unset_keepalive_if_required()
        while data and not self._refused:
            self._untold += len(data)
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if self._should_upgrade():
                    self._upgrade(data)
                    return
            except httptools.HttpParserError:
                self._refuse(self._breach or reasons.REQUEST_MALFORMED)
                return
            if self._untold > self._limits.max_head_bytes:
                self._refuse(reasons.HEAD_TOO_LARGE)
        if self._wait is None and self._at_rest and not self._refused:
            self._await(_Wait.HEAD)

    def pause_writing(self) -> None:
        """The client does not read its answers: it has some time to begin."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._limits.message_timeout, self._drop)

    def resume_writing(self) -> None:
        """It reads."""
        self._read_again()
        super().resume_writing()

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _drop(self) -> None:
        self._realtime.metrics.slow_readers += 1
        log.warning("slow reader dropped", address=self._place)
        self.transport.abort()

    # What httptools tells -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._untold = self._head_size = 0
        self.scope["state"][TRUSTED] = self._trusted
        if self._wait is None:
            self._await(_Wait.HEAD)

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        super().on_url(url)
        self._untold = 0
        if len(self.url) > self._limits.max_head_bytes // 2:
            self._break(reasons.TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind a body in chunks."""
        super().on_header(name, value)
        self._untold = 0
        self._head_size += len(name) + len(value) + HEADER_OVERHEAD
        if (
            len(self.headers) > self._limits.max_headers
            or self._head_size + len(self.url) > self._limits.max_head_bytes
        ):
            self._break(reasons.HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The head is whole; what is late from now on is the body. An upgrade has none."""
        self._untold = 0
        if not self.parser.should_upgrade() or not self._should_upgrade():
            self._await(_Wait.BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._untold = 0
        self._received += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Nothing of this request is missing."""
        if self._wait is _Wait.BODY:
            self._await(None)
        super().on_message_complete()

    def _break(self, reason: Reason) -> None:
        """Stop httptools from within a callback; `data_received` answers."""
        self._breach = reason
        raise ValueError(reason.code)

    # Time ---------------------------------------------------------------------------------------------------

    @property
    def _at_rest(self) -> bool:
        """Whether no request waits for its answer."""
        cycle: Any = self.cycle  # None at first, whatever its type says
        return cycle is None or cycle.response_complete

    def _await(self, what: _Wait | None, *, since: float | None = None) -> None:
        """Wait for something else from now on, or for nothing.

        A body that arrives with its head, as nearly all do, is awaited for no time, and so is a head that
        follows in the same bytes: no timer is made for them.
        """
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._wait = what
        self._received = 0
        if what is not None:
            now = self.loop.time()
            self._since = now if since is None else since
            self._alarm = self.loop.call_later(max(0.0, self._since + self._allowed - now), self._look)

    @property
    def _allowed(self) -> float:
        """Seconds that what we wait for may take."""
        if self._wait is _Wait.BODY:
            return self._limits.time_for(self._received)
        return self._limits.handshake_timeout

    def _look(self) -> None:
        """Refuse what is late; a body may have earned more time meanwhile."""
        left = self._since + self._allowed - self.loop.time()
        if self.flow.read_paused or (self._wait is _Wait.HEAD and not self._at_rest):
            # We do not read, or have an answer to finish before this can be the client's fault.
            left = self._limits.message_timeout
        if left > 0:
            self._alarm = self.loop.call_later(left, self._look)
        else:
            self._refuse(reasons.REQUEST_TIMEOUT)

    # Refusing and upgrading ---------------------------------------------------------------------------------

    def _refuse(self, reason: Reason, *, address: str | None = None, **fields: str) -> None:
        """Answer with a refusal, if it cannot be taken for the answer to something else, and close.

        Args:
            reason: why.
            address: whom, where it is not the one the place is named after.
            fields: values for the text of the reason.
        """
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        refusal = reason.refusal(**fields)
        self._realtime.count_refusal(refusal)
        log.info(
            "connection refused", code=refusal.code, reason=refusal.message, address=address or self._place
        )
        self._await(None)
        # Whoever sent nothing at all, such as a browser that connects ahead of time, asked nothing.
        silent = reason is reasons.REQUEST_TIMEOUT and self.headers is None
        if self._at_rest and not silent:
            self.transport.write(refused(refusal, explain=self._realtime.settings.explain))
        if silent or not self._at_rest or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.write_eof()
        self._alarm = self.loop.call_later(LINGER, self.transport.abort)

    def _upgrade(self, rest: bytes) -> None:
        """Become a socket.

        Args:
            rest: what stands behind the head: frames, from a client that does not wait for the answer.
        """
        if not self._at_rest:
            # What a socket writes would stand before the answer that is due.
            detail = "it has to wait for the answers to the requests before it"
            self._refuse(reasons.HANDSHAKE_INVALID, detail=detail)
            return
        if self._trusted and self._place is not None:
            forwarded = b",".join(value for name, value in self.headers if name == b"x-forwarded-for")
            peer = self.client[0] if self.client else ""
            client = self._entrance.proxies.client(peer, forwarded.decode("latin-1"))
            place = self._entrance.move(self._place, client)
            if not isinstance(place, str):
                self._refuse(place, address=client)
                return
            self._place = place
        self._await(None)
        self.connections.discard(self)
        make: Any = self.ws_protocol_class
        socket: Socket = make(server_state=self.server_state, place=self._place, trusted=self._trusted)
        self._place = None
        socket.connection_made(self.transport)
        self.transport.set_protocol(socket)
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            head += (name, b": ", value, b"\r\n")
        # The parser and we refer to each other; a socket lives long, and the garbage collector comes late.
        self.parser = None  # type: ignore[assignment]
        socket.data_received(b"".join((*head, b"\r\n")))
        if rest and not self.transport.is_closing():
            socket.data_received(rest)
