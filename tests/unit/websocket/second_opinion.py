"""What `websockets` makes of the bytes that our parser reads, for a server and for a client.

Ours differs knowingly in six places; `agree` evens them out, and test_frames_differential.py shows each:

* It refuses lengths that take more bytes than they need, as RFC 6455 section 5.2 demands, and lengths whose
  highest bit is set with 1002 rather than 1009.
* A control frame does not count against the limit of a message: pings have to be answered between fragments.
* It refuses a message in a great many tiny fragments with 1008: they would cost work for ever, and no message
  would ever be finished that a limit could count.
* A close frame between two fragments is a close; `websockets` answers it with 1002.
* It refuses what the header of a frame forbids without waiting for the payload.
* Of a frame with two faults, such as a close with an invalid code and an invalid reason, each may report the
  other one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.speedups import apply_mask
from websockets.uri import parse_uri

from backbeat.websocket.frames import (
    FREE_FRAGMENTS,
    MAX_CONTROL_PAYLOAD,
    MIN_FRAGMENT,
    Binary,
    Close,
    CloseCode,
    FrameParser,
    Opcode,
    Ping,
    Pong,
    Text,
    Violation,
)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode
NO_CODE = 1005


@dataclass
class Heard:
    """What a parser understood: the messages and control frames, and the close code it ended with."""

    frames: list[tuple[Opcode, bytes]] = field(default_factory=list)
    closed: int | None = None


def ours(pieces: Iterable[bytes], max_message: int, *, by: str) -> Heard:
    """Have our parser read pieces."""
    parser = FrameParser(max_message=max_message, masked=by == "server")
    heard = Heard()
    for piece in pieces:
        for event in parser.feed(piece):
            assert heard.closed is None, "an event after the last one"
            match event:
                case Text(payload):
                    heard.frames.append((TEXT, payload))
                case Binary(payload):
                    heard.frames.append((BINARY, payload))
                case Ping(payload):
                    heard.frames.append((PING, payload))
                case Pong(payload):
                    heard.frames.append((PONG, payload))
                case Close(code):
                    heard.closed = code or NO_CODE
                case Violation(code):
                    heard.closed = code
    return heard


def theirs(pieces: Iterable[bytes], max_message: int | None, *, by: str) -> Heard:
    """Put the frames of `websockets` together, and check the text: it leaves both to its connections."""
    protocol: ServerProtocol | ClientProtocol = (
        ServerProtocol(state=State.OPEN, max_size=max_message)
        if by == "server"
        else ClientProtocol(parse_uri("ws://127.0.0.1/"), state=State.OPEN, max_size=max_message)
    )
    for piece in pieces:
        # They read an empty piece as an error of the caller.
        if piece:
            protocol.receive_data(piece)
    heard = Heard()
    message, kind = bytearray(), TEXT
    for frame in protocol.events_received():
        assert isinstance(frame, Frame)
        opcode = Opcode(frame.opcode)
        if opcode in (PING, PONG):
            heard.frames.append((opcode, bytes(frame.data)))
        elif opcode is not CLOSE:
            if opcode is not CONTINUATION:
                message, kind = bytearray(), opcode
            message += frame.data
            if frame.fin:
                if kind is TEXT and not is_utf8(message):
                    heard.closed = CloseCode.INVALID_DATA
                    return heard
                heard.frames.append((kind, bytes(message)))
    if ending := protocol.close_rcvd or protocol.close_sent:
        heard.closed = ending.code
    return heard


def is_utf8(data: bytes | bytearray) -> bool:
    """Whether Python reads it."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut bytes at positions; those beyond the end do not count."""
    edges = [0, *sorted(min(at, len(data)) for at in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@dataclass(frozen=True)
class Piece:
    """A frame on the wire as far as it has arrived, valid or not; at least two bytes of it have.

    Attributes:
        data: its bytes.
        start: where its payload starts.
        length: bytes of its payload; 0 while its header does not tell.
    """

    data: bytes
    start: int
    length: int

    @property
    def is_data(self) -> bool:
        """Whether it counts against the limit of a message."""
        return self.data[0] & 15 in (CONTINUATION, TEXT, BINARY)

    @property
    def odd_length(self) -> bool:
        """Whether its length takes more bytes than it needs, or is larger than there can be."""
        size, short = len(self.data), self.data[1] & 127
        return (short == 126 and size >= 4 and self.length < 126) or (
            short == 127 and size >= 10 and not 1 << 16 <= self.length < 1 << 63
        )

    @property
    def whole(self) -> bool:
        """Whether all of it has arrived."""
        return len(self.data) == self.start + self.length

    def without_payload(self) -> bytes:
        """A frame with the same first byte that carries nothing."""
        masked = self.data[1] & 128
        return bytes((self.data[0], masked)) + bytes(4 if masked else 0)

    def turned(self) -> bytes:
        """The same frame from the other side: unmasked if it was masked, and the other way round."""
        masked = self.data[1] & 128
        mask = self.start - 4 if masked else self.start
        if len(self.data) < self.start:
            return self.data[:1] + bytes((self.data[1] ^ 128,)) + self.data[2:mask]
        head = self.data[:1] + bytes((self.data[1] ^ 128,)) + self.data[2:mask]
        payload = self.data[self.start :]
        return (
            head + apply_mask(payload, self.data[mask : self.start]) if masked else head + bytes(4) + payload
        )


def frames_of(wire: bytes) -> Iterator[Piece]:
    """Cut bytes at the ends of frames."""
    while len(wire) >= 2:
        size = {126: 2, 127: 8}.get(wire[1] & 127, 0)
        start = 2 + size + (4 if wire[1] & 128 else 0)
        length = wire[1] & 127
        if size:
            length = int.from_bytes(wire[2 : 2 + size], "big") if len(wire) >= 2 + size else 0
        yield Piece(wire[: start + length], start, length)
        wire = wire[start + length :]


def turned(wire: bytes) -> bytes:
    """The same frames from the other side."""
    return b"".join(frame.turned() for frame in frames_of(wire))


def agree(wire: bytes, cuts: Iterable[int] = (), *, max_message: int, by: str) -> Heard:
    """Have both read the same bytes in the same pieces, and compare what they heard.

    Args:
        wire: any bytes.
        cuts: where to cut them.
        max_message: bytes a message may have.
        by: whether a `server` or a `client` reads.

    Returns:
        What ours heard.

    Raises:
        AssertionError: They heard different things.
    """
    cuts = list(cuts)
    mine = ours(cut(wire, cuts), max_message, by=by)
    common, refusal = _common(wire, max_message, by, refused=mine.closed is not None)
    other = theirs(cut(common, cuts), None, by=by)
    if other.closed is None:
        other.closed = refusal
    if {mine.closed, other.closed} == {CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA} and _ends_in_close(
        wire, by
    ):
        other.closed = mine.closed
    assert mine == other, f"{wire.hex(' ')} cut at {cuts}, read by a {by}: {mine} and {other}"
    return mine


def _common(wire: bytes, max_message: int, by: str, *, refused: bool) -> tuple[bytes, int | None]:
    """The bytes that both read alike, and what ours has to say to the frame behind them, if there is one.

    The limit is judged here, so that theirs can do without: it would count control frames. If ours has
    refused something, a frame of which not all has arrived is shown to theirs without its payload.
    """
    room, at, fragments = max_message, 0, 0
    for frame in frames_of(wire):
        before, empty = wire[:at], wire[:at] + frame.without_payload()
        if frame.odd_length:
            return before, CloseCode.PROTOCOL_ERROR
        if frame.is_data and frame.length > room:
            bad = theirs([empty], None, by=by).closed == CloseCode.PROTOCOL_ERROR
            return before, CloseCode.PROTOCOL_ERROR if bad else CloseCode.MESSAGE_TOO_BIG
        if refused and not frame.whole:
            too_long = not frame.is_data and frame.data[1] & 127 > MAX_CONTROL_PAYLOAD
            return (before, CloseCode.PROTOCOL_ERROR) if too_long else (empty, None)
        if frame.is_data:
            fragments, room = fragments + 1, room - frame.length
            if fragments > FREE_FRAGMENTS + (max_message - room) // MIN_FRAGMENT:
                return before, CloseCode.POLICY_VIOLATION
            if frame.data[0] & 128:
                fragments, room = 0, max_message
        at += len(frame.data)
    return wire, None


def _ends_in_close(wire: bytes, by: str) -> bool:
    """Whether the first frame that theirs refuses is a close frame."""
    at = 0
    for frame in frames_of(wire):
        at += len(frame.data)
        if theirs([wire[:at]], None, by=by).closed is not None:
            return frame.data[0] & 15 == CLOSE
    return False
