"""One WebSocket connection: bytes in, messages out, and what happens to those that break the rules.

Whoever sees the head of an upgrade (`Arrival`, else `Door`) makes a `Socket`, gives it the head as bytes, and
switches the transport to it. From there on everything is here: handshake, framing, the API key, the channels,
idle and slow clients, and closing. No middleware of the HTTP side sees a socket.

The contract with uvicorn: a connection that puts itself into `server_state.connections` is told to
`shutdown()` when the server stops. One test starts the real server and proves it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, cast

import structlog

from backbeat.errors import ProtocolError, Refusal
from backbeat.protocol import closings, reasons
from backbeat.protocol.codec import V1, serializer
from backbeat.protocol.messages import PHOENIX, TOPIC_PREFIX, Event, Incoming, Message
from backbeat.server.addresses import policy_headers
from backbeat.server.channel import Channel
from backbeat.server.limits import BURST, TokenBucket
from backbeat.server.outbox import OK, error_response
from backbeat.server.refusals import refused
from backbeat.websocket.frames import (
    Binary,
    Close,
    CloseCode,
    FrameParser,
    Ping,
    Pong,
    Text,
    Violation,
    close_frame,
    pong_frame,
    text_frame,
)
from backbeat.websocket.handshake import HandshakeError, accept, parse_head

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from backbeat.protocol.closings import Closing
    from backbeat.protocol.codec import Serializer
    from backbeat.server.limits import SocketLimits
    from backbeat.server.realtime import Realtime
    from backbeat.tokens.claims import Token
    from backbeat.websocket.handshake import Headers, UpgradeRequest

__all__ = ["PATHS", "Socket"]

log = structlog.get_logger("backbeat.socket")

PATHS: Final = frozenset({"/socket/websocket", "/realtime/v1/websocket"})
"""Where a socket may be opened: the server's own path, and the one a gateway would put in front."""

NO_HEADERS: Final[Mapping[str, str]] = {}
"""Of most sockets; one for all of them."""

CLOSE_PATIENCE: Final = 5.0
"""Seconds a client has to answer a close frame before the connection is cut."""


class Socket(asyncio.Protocol):
    """One client.

    Args:
        realtime: the server.
        server_state: uvicorn's connections, for a graceful end.
        place: the place at the entrance that the connection takes, to be given back; None for none.
        trusted: whether a trusted proxy is at the other end.
    """

    __slots__ = (
        "_closing",
        "_connections",
        "_parser",
        "_patience",
        "_place",
        "_server",
        "_transport",
        "_trusted",
        "alone_since",
        "channels",
        "headers",
        "last_seen",
        "limits",
        "serializer",
        "token",
        "write",
    )

    write: Callable[[bytes], None]
    """Writes bytes of whole frames to the client: the transport's own method, for a fan-out calls it millions
    of times."""

    token: Token
    """The token of the API key the client connected with."""

    limits: SocketLimits
    """What it may do, and has done."""

    def __init__(
        self,
        realtime: Realtime,
        *,
        server_state: ServerState,
        place: str | None = None,
        trusted: bool = False,
    ) -> None:
        self._server = realtime
        self._place = place
        self._trusted = trusted
        self._patience: TokenBucket | None = None
        self._connections = cast("set[object]", server_state.connections)
        self._transport: asyncio.Transport | None = None
        self._parser: FrameParser | None = None
        self._closing: asyncio.TimerHandle | None = None
        self.channels: dict[str, Channel] = {}
        self.serializer: Serializer = V1
        self.headers = NO_HEADERS
        self.last_seen = 0.0
        self.alone_since = math.inf

    def __repr__(self) -> str:
        return f"<Socket vsn={self.serializer.vsn} channels={len(self.channels)}>"

    def send(self, data: bytes) -> None:
        """Write bytes of whole frames to this client alone."""
        self._server.metrics.bytes_out += len(data)
        self.write(data)

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the client to read it."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    @property
    def gone(self) -> bool:
        """Whether nothing can be written to it any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def parser(self) -> FrameParser | None:
        """What reads the frames; None before the handshake."""
        return self._parser

    # What asyncio tells -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport; the request head follows at once."""
        self._transport = cast("asyncio.Transport", transport)
        settings = self._server.settings
        # One large message must not make a slow reader of everybody.
        self._transport.set_write_buffer_limits(high=settings.write_buffer_bytes + settings.max_payload_bytes)
        self.write = self._transport.write
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take the request head first, frames afterwards."""
        if self._parser is None:
            head, separator, rest = data.partition(b"\r\n\r\n")
            self._open(head + separator)
            if self._parser is None or not rest:
                return
            data = rest
        self.last_seen = self._server.loop.time()
        self._server.metrics.bytes_in += len(data)
        for event in self._parser.feed(data):
            if isinstance(event, Close):
                self._answer_close(event)
            elif self._closing is not None:
                # We have said goodbye; only the answer to that still counts.
                continue
            elif isinstance(event, Text):
                self._read(self.serializer.decode, event.payload)
            elif isinstance(event, Binary):
                self._read(self.serializer.decode_binary, event.payload)
            elif isinstance(event, Ping | Pong):
                self._control(event)
            elif isinstance(event, Violation):
                self._server.metrics.frames_dropped[event.code.name] += 1
                self.close(event.code, event.reason)

    def eof_received(self) -> None:
        """The client will send nothing more; without it there is nothing to serve."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever the reason: leave every room."""
        del exc
        self._transport = None
        self._connections.discard(self)
        if self._closing is not None:
            self._closing.cancel()
        self._leave_channels()
        if self._parser is not None:
            self.limits.close()
            self._server.disconnected(self)
        if self._place is not None:
            self._server.entrance.leave(self._place)
            self._place = None

    def pause_writing(self) -> None:
        """The client reads too slowly: drop it, in the next turn, for a fan-out may be in progress."""
        self._server.loop.call_soon(self._drop)

    def resume_writing(self) -> None:
        """The buffer drained before the client could be dropped; it is dropped all the same."""

    def shutdown(self) -> None:
        """The server stops: channels are told, and clients reconnect after 1012. Called by uvicorn."""
        for channel in list(self.channels.values()):
            channel.farewell()
        self.end(closings.RESTARTING)

    # Opening ------------------------------------------------------------------------------------------------

    def _open(self, head: bytes) -> None:
        """Answer the handshake: switch to WebSocket, or say in HTTP why not."""
        try:
            request = parse_head(head, limit=self._server.settings.connections.max_head_bytes)
            self._admit(request)
        except HandshakeError as error:
            refusal = reasons.HANDSHAKE_INVALID.refusal(detail=error.reason)
            refusal.status = error.status
            self._turn_away(refusal, error.headers)
        except Refusal as refusal:
            self._turn_away(refusal)
        except Exception:
            self._server.metrics.handler_failures += 1
            log.exception("connect failed")
            self._answer(reasons.CONNECT_FAILED.refusal())

    def _admit(self, request: UpgradeRequest) -> None:
        if request.path not in PATHS:
            raise HandshakeError(404, f"No socket here; open one of {', '.join(sorted(PATHS))}")
        chosen = serializer(request.query.get("vsn"))
        if chosen is None:
            raise HandshakeError(403, "Unsupported vsn; 1.0.0 and 2.0.0 are spoken here")
        if not self._server.entrance.origins.allow(request.origin):
            raise reasons.ORIGIN_REFUSED.refusal(context=f"The page is of {request.origin!a:.200}.")
        key = request.headers.get("x-api-key") or request.query.get("apikey") or request.bearer
        if not key:
            raise reasons.API_KEY_MISSING.refusal()
        if self._server.draining:
            raise reasons.RESTARTING.refusal()
        self.token = self._server.verify_api_key(key)
        now = self._server.loop.time()
        if reason := self._server.limits.connect(now):
            raise reason.refusal()
        self.limits = self._server.limits.socket(now)
        self.serializer = chosen
        self.headers = policy_headers(request.headers.items(), trusted=self._trusted) or NO_HEADERS
        self._parser = FrameParser(max_message=self._server.settings.max_frame_bytes)
        self.last_seen = now
        self._server.connected(self)
        # A browser that offered something fails the connection unless one of it is chosen.
        subprotocol = PHOENIX if PHOENIX in request.subprotocols else None
        self.send(accept(request, subprotocol=subprotocol))

    def _turn_away(self, refusal: Refusal, headers: Headers = ()) -> None:
        self._server.count_refusal(refusal)
        log.info(
            "connect refused",
            code=refusal.code,
            reason=refusal.message,
            hint=refusal.hint,
            **self._whence,
        )
        self._answer(refusal, headers)

    def _answer(self, refusal: Refusal, headers: Headers = ()) -> None:
        if self._transport is not None:
            self.send(refused(refusal, explain=self._server.settings.explain, headers=headers))
            self._transport.close()

    @property
    def _whence(self) -> dict[str, str]:
        """Where the connection comes from, for the log."""
        return {"address": self._place} if self._place else {}

    # Messages -----------------------------------------------------------------------------------------------

    def _read(self, decode: Callable[[bytes], Incoming], data: bytes) -> None:
        """Read one frame and handle its message; a failure of ours while reading costs the frame."""
        try:
            message = decode(data)
        except ProtocolError as error:
            self._malformed(error, len(data))
        except Exception:
            self._server.metrics.handler_failures += 1
            log.exception("frame failed", bytes=len(data))
        else:
            self._server.metrics.messages_in += 1
            self.guarded(message, self.dispatch)

    def _malformed(self, error: ProtocolError, size: int) -> None:
        """A frame that is no message is dropped, counted and logged; the connection lives (section 2)."""
        self._server.metrics.frames_dropped[error.code] += 1
        log.info("frame dropped", code=error.code, reason=error.message, bytes=size)
        self._charge(closings.GARBAGE_FLOOD)

    def _control(self, event: Ping | Pong) -> None:
        """Answer a ping. We send none, so a pong is nothing but a sign of life."""
        if self._charge(closings.CONTROL_FLOOD) and isinstance(event, Ping):
            self.send(pong_frame(event.payload))

    def _charge(self, otherwise: Closing) -> bool:
        """Charge what costs us work and is no message; whoever does too much of it is sent away."""
        rate = self._server.settings.connections.max_control_frames_per_second
        if rate == 0:
            return True
        now = self._server.loop.time()
        if self._patience is None:
            # Made when it is needed: most clients never send such a frame.
            self._patience = TokenBucket(rate, BURST * rate, now=now)
        if self._patience.take(now):
            return True
        self.end(otherwise)
        return False

    def guarded(self, message: Incoming, handle: Callable[[Incoming], None]) -> None:
        """Handle one message; a failure of ours costs its channel, is reported, and harms nothing else."""
        try:
            handle(message)
        except Exception:
            self._server.metrics.handler_failures += 1
            log.exception("message failed", topic=message.topic)
            if channel := self.channels.get(message.topic):
                channel.crash()

    def dispatch(self, message: Incoming) -> None:
        """Hand a message to the connection itself or to the channel of its topic."""
        if message.topic == PHOENIX:
            if message.event == Event.HEARTBEAT:
                self.send(text_frame(self.serializer.encode_heartbeat_reply(message.ref)))
            return
        channel = self.channels.get(message.topic)
        if isinstance(message, Message) and message.event == Event.JOIN:
            self._join(message, channel)
        elif channel is not None:
            channel.receive(message)
        elif message.event == Event.LEAVE:
            self._reply(message, OK)
        else:
            self._unmatched(message)

    def _join(self, message: Message, before: Channel | None) -> None:
        """Join a topic, anew if it is joined already (section 3.9).

        The old channel ends without a word; it is closed, under its own ref, after the new one was answered.
        """
        if not message.topic.startswith(TOPIC_PREFIX):
            self._unmatched(message)
            return
        replaces: tuple[str | None, ...] = ()
        if before is not None:
            replaces = before.superseded()
        channel = Channel(self._server, self, message, replaces=replaces)
        self.channels[message.topic] = channel
        self.alone_since = math.inf
        channel.join(message.payload)

    def forget(self, channel: Channel) -> None:
        """Let go of a channel that ended."""
        if self.channels.get(channel.topic) is channel:
            del self.channels[channel.topic]
            if not self.channels:
                self.alone_since = self._server.loop.time()

    def _unmatched(self, message: Incoming) -> None:
        refusal = reasons.UNMATCHED_TOPIC.refusal(topic=message.topic)
        self._server.count_refusal(refusal)
        response = error_response(refusal, refusal.message, explain=self._server.settings.explain)
        self._reply(message, b'{"status":"error","response":%b}' % response)

    def _reply(self, message: Incoming, payload: bytes) -> None:
        """Reply on a topic that is not joined: there is no join ref to name."""
        text = self.serializer.encode(None, message.ref, message.topic, Event.REPLY, payload)
        self.send(text_frame(text))

    # Closing ------------------------------------------------------------------------------------------------

    def end(self, closing: Closing) -> None:
        """Close for one of the reasons that have a name; see `close`."""
        self.close(CloseCode(closing.code), closing.text, name=closing.name)

    def close(self, code: CloseCode, reason: str, *, name: str | None = None) -> None:
        """Send a close frame and cut the connection when it is answered, or after a while.

        Args:
            code: why.
            reason: the same for people.
            name: what to count it under, if not the name of the code.
        """
        if self._transport is None or self._transport.is_closing() or self._closing is not None:
            return
        name = name or code.name
        self._server.metrics.closes[name] += 1
        if name != closings.RESTARTING.name:
            # One line for each socket tells nobody more than the end of the server does.
            log.info("socket closed", code=name, reason=reason, **self._whence)
        self._leave_channels()
        if self._parser is None:
            self._transport.close()
            return
        self.send(close_frame(code, reason))
        self._closing = self._server.loop.call_later(CLOSE_PATIENCE, self._transport.abort)
        if self._parser.ended:
            # After a violation the answer could not be read (RFC 6455, section 7.1.7), so none is waited for.
            self._end_our_half(self._transport)

    def _answer_close(self, event: Close) -> None:
        """Echo the client's close frame, unless it is an echo itself, and end (RFC 6455, section 5.5.1).

        Only our half ends: closing a connection while bytes of the client are unread resets it, and a reset
        may reach the client before our close frame does. What it still sends is read and ignored until it
        ends its half, or for as long as a close frame may wait.
        """
        if self._transport is None:
            return
        self._leave_channels()
        if self._closing is None:
            self.send(close_frame(event.code))
            self._closing = self._server.loop.call_later(CLOSE_PATIENCE, self._transport.abort)
        self._end_our_half(self._transport)

    def _end_our_half(self, transport: asyncio.Transport) -> None:
        """Send nothing more; TLS has no halves, and says goodbye in both directions at once."""
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def _drop(self) -> None:
        """Cut off a client that does not read: a close frame would wait behind everything else."""
        if self._transport is not None:
            self._server.metrics.slow_readers += 1
            self._server.metrics.closes[closings.SLOW_READER.name] += 1
            buffered = self._transport.get_write_buffer_size()
            log.warning("slow reader dropped", buffered=buffered, **self._whence)
            self._transport.abort()
            self._leave_channels()

    def _leave_channels(self) -> None:
        for channel in list(self.channels.values()):
            channel.close()
