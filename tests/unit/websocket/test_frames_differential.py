"""Our parser and the one of `websockets` read the same bytes.

Ours differs in four places, which the strategies avoid or `theirs` evens out:

* It refuses lengths that take more bytes than they need, as RFC 6455 section 5.2 demands.
* A control frame does not count against the limit of a message.
* A close frame between two fragments is a close; `websockets` answers it with 1002.
* Of a frame with two faults, such as a close with an invalid code and an invalid reason, each may report
  the other one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.speedups import apply_mask
from websockets.uri import parse_uri

from backbeat.websocket.frames import (
    Binary,
    Close,
    CloseCode,
    FrameParser,
    Opcode,
    Ping,
    Pong,
    Text,
    Violation,
    client_frame,
    text_frame,
)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode


@dataclass
class Heard:
    """What a parser understood: the messages and control frames, and the close code it ended with."""

    frames: list[tuple[Opcode, bytes]]
    closed: int | None = None


def ours(pieces: Sequence[bytes], max_message: int, *, by: str) -> Heard:
    parser = FrameParser(max_message=max_message, masked=by == "server")
    heard = Heard([])
    for piece in pieces:
        for event in parser.feed(piece):
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
                    heard.closed = code or 1005
                case Violation(code):
                    heard.closed = code
    return heard


def theirs(pieces: Sequence[bytes], max_message: int, *, by: str) -> Heard:
    """Put the frames of `websockets` together, and check the text: it leaves both to its connections."""
    protocol: ServerProtocol | ClientProtocol = (
        ServerProtocol(state=State.OPEN, max_size=max_message)
        if by == "server"
        else ClientProtocol(parse_uri("ws://127.0.0.1/"), state=State.OPEN, max_size=max_message)
    )
    for piece in pieces:
        protocol.receive_data(piece)
    heard = Heard([])
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


def is_utf8(data: bytearray) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def turned(frame: bytes) -> bytes:
    """The same frame from the other side: unmasked if it was masked, and the other way round."""
    first, second = frame[:2]
    start = 2 + {126: 2, 127: 8}.get(second & 127, 0)
    head = bytes((first, second ^ 128)) + frame[2:start]
    if second & 128:
        return head + apply_mask(frame[start + 4 :], frame[start : start + 4])
    return head + bytes(4) + frame[start:]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    # Theirs reads an empty piece as an error of the caller.
    return [data[start:stop] for start, stop in pairwise(edges) if data[start:stop]]


masks = st.binary(min_size=4, max_size=4)
payloads = st.binary(max_size=140) | st.text(max_size=40).map(str.encode)
close_codes = st.integers(990, 1020) | st.integers(2990, 5010) | st.integers(0, 65535)
close_payloads = (
    st.binary(max_size=1)
    | close_codes.map(lambda code: code.to_bytes(2, "big"))
    | payloads.map(lambda reason: CloseCode.NORMAL.to_bytes(2, "big") + reason)
)

data_frames = st.builds(
    client_frame, st.sampled_from([CONTINUATION, TEXT, BINARY]), payloads, masks, fin=st.booleans()
)
control_frames = st.builds(client_frame, st.sampled_from([PING, PONG]), payloads, masks)
close_frames = st.builds(client_frame, st.just(CLOSE), close_payloads, masks)
odd_opcodes = st.integers(0, 127).filter(lambda opcode: opcode != CLOSE)
odd_frames = st.builds(client_frame, odd_opcodes, payloads, masks, fin=st.booleans()) | payloads.map(
    text_frame
)
fragmented_messages = st.builds(
    lambda opcode, parts, mask: [
        client_frame(CONTINUATION if i else opcode, part, mask, fin=i == len(parts) - 1)
        for i, part in enumerate(parts)
    ],
    st.sampled_from([TEXT, BINARY]),
    st.lists(payloads, min_size=1, max_size=4),
    masks,
)
whole_messages = st.builds(client_frame, st.sampled_from([TEXT, BINARY]), payloads, masks)
cuts = st.lists(st.integers(0, 1000), max_size=8)
read_by = st.sampled_from(["server", "client"])


def check(frames: Sequence[bytes], cuts: list[int], max_message: int, *, by: str) -> None:
    """Have both read the frames, as they are for a server, or turned for a client."""
    sent = frames if by == "server" else [turned(frame) for frame in frames]
    pieces = cut(b"".join(sent), cuts)
    assert ours(pieces, max_message, by=by) == theirs(pieces, max_message, by=by)


@settings(deadline=None, max_examples=200)
@example(
    frames=[client_frame(TEXT, b"a", b"mask", fin=False), client_frame(CLOSE, b"\x03\xe8", b"mask")],
    cuts=[],
    by="server",
)
@given(
    frames=st.lists(whole_messages | data_frames | control_frames | close_frames | odd_frames, max_size=8),
    cuts=cuts,
    by=read_by,
)
def test_same_frames(frames: list[bytes], cuts: list[int], by: str) -> None:
    """Frames good and bad mean the same to both: the same messages, then the same close code."""
    check(frames, cuts, 10_000, by=by)


@settings(deadline=None)
@given(messages=st.lists(fragmented_messages, max_size=4), cuts=cuts, by=read_by)
def test_same_limit(messages: list[list[bytes]], cuts: list[int], by: str) -> None:
    """Both refuse a message at the same byte of the limit, in one frame or in fragments."""
    check([frame for message in messages for frame in message], cuts, 100, by=by)


def test_same_opcodes() -> None:
    """Our names stand for the numbers theirs stand for."""
    assert [opcode.value for opcode in Opcode] == [opcode.value for opcode in TheirOpcode]
