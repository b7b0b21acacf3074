"""The frames of RFC 6455: what the server writes, and what it reads however the bytes arrive."""

import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.speedups import apply_mask

from backbeat.websocket import frames
from backbeat.websocket.frames import (
    Binary,
    Close,
    CloseCode,
    Event,
    FrameParser,
    Opcode,
    Ping,
    Pong,
    Text,
    Violation,
    binary_frame,
    client_frame,
    close_frame,
    ping_frame,
    pong_frame,
    text_frame,
)

MASK = b"\x37\xfa\x21\x3d"
LIMIT = 70_000

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode


def sent(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame of the client."""
    return client_frame(opcode, payload, MASK, fin=fin)


def closing(code: int, reason: bytes = b"") -> bytes:
    """A close frame of the client, valid or not."""
    return sent(CLOSE, code.to_bytes(2, "big") + reason)


def read(*pieces: bytes, max_message: int = LIMIT) -> list[Event]:
    """What a fresh parser makes of these pieces."""
    parser = FrameParser(max_message=max_message)
    return [event for piece in pieces for event in parser.feed(piece)]


WELL_FORMED: dict[str, tuple[bytes, list[Event]]] = {
    "the masked Hello of RFC 6455 section 5.7": (bytes.fromhex("818537fa213d7f9f4d5158"), [Text(b"Hello")]),
    "empty text": (sent(TEXT), [Text(b"")]),
    "text beyond ASCII": (sent(TEXT, "schön ♫".encode()), [Text("schön ♫".encode())]),
    "binary": (sent(BINARY, b"\xff\x00"), [Binary(b"\xff\x00")]),
    "125 bytes": (sent(TEXT, b"a" * 125), [Text(b"a" * 125)]),
    "126 bytes": (sent(TEXT, b"a" * 126), [Text(b"a" * 126)]),
    "several messages": (
        sent(TEXT, b"one") + sent(BINARY, b"two") + sent(TEXT, b"three"),
        [Text(b"one"), Binary(b"two"), Text(b"three")],
    ),
    "ping": (sent(PING, b"are you there"), [Ping(b"are you there")]),
    "ping of 125 bytes": (sent(PING, b"a" * 125), [Ping(b"a" * 125)]),
    "pong": (sent(PONG), [Pong(b"")]),
    "text in fragments": (
        sent(TEXT, b"so", fin=False) + sent(CONTINUATION, b"ng", fin=False) + sent(CONTINUATION, b"s"),
        [Text(b"songs")],
    ),
    "binary in fragments": (
        sent(BINARY, b"\x00", fin=False) + sent(CONTINUATION, b"\xff"),
        [Binary(b"\x00\xff")],
    ),
    "a character across fragments": (
        sent(TEXT, "♫".encode()[:1], fin=False) + sent(CONTINUATION, "♫".encode()[1:]),
        [Text("♫".encode())],
    ),
    "empty fragments": (
        sent(TEXT, fin=False) + sent(CONTINUATION, fin=False) + sent(CONTINUATION),
        [Text(b"")],
    ),
    "control frames between fragments": (
        sent(TEXT, b"a", fin=False) + sent(PING, b"?") + sent(PONG) + sent(CONTINUATION, b"b"),
        [Ping(b"?"), Pong(b""), Text(b"ab")],
    ),
    "a message after fragments": (
        sent(BINARY, b"a", fin=False) + sent(CONTINUATION, b"b") + sent(TEXT, b"c"),
        [Binary(b"ab"), Text(b"c")],
    ),
    "close without a code": (sent(CLOSE), [Close(None, "")]),
    "close with a code": (closing(1000), [Close(1000, "")]),
    "close with a reason": (closing(4001, "später".encode()), [Close(4001, "später")]),
    "close between fragments": (sent(TEXT, b"a", fin=False) + closing(1001), [Close(1001, "")]),
    "nothing counts after a close": (closing(1000) + sent(TEXT, b"late") + b"\xff\xff", [Close(1000, "")]),
}

PROTOCOL_ERRORS: dict[str, bytes] = {
    "not masked": text_frame(b"a"),
    "RSV1": sent(0x40 | TEXT, b"a"),
    "RSV2": sent(0x20 | TEXT, b"a"),
    "RSV3 on a ping": sent(0x10 | PING),
    "reserved data opcode": sent(0x3, b"a"),
    "reserved control opcode": sent(0xB),
    "fragmented ping": sent(PING, fin=False),
    "fragmented close": sent(CLOSE, fin=False),
    "ping of 126 bytes": sent(PING, b"a" * 126),
    "continuation of nothing": sent(CONTINUATION, b"a"),
    "text within a message": sent(TEXT, b"a", fin=False) + sent(TEXT, b"b"),
    "binary fragment within a message": sent(BINARY, b"a", fin=False) + sent(BINARY, b"b", fin=False),
    "a short length in 16 bits": b"\x81\xfe\x00\x7d" + MASK,
    "a short length in 64 bits": b"\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff" + MASK,
    "a length with its highest bit set": b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00" + MASK,
    "close of one byte": sent(CLOSE, b"\x03"),
    **{f"close {code}": closing(code) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)},
}

INVALID_DATA: dict[str, bytes] = {
    "text": sent(TEXT, b"\xff"),
    "text with a surrogate": sent(TEXT, b"\xed\xa0\x80"),
    "text with an overlong form": sent(TEXT, b"\xc0\xaf"),
    "text that ends within a character": sent(TEXT, "♫".encode()[:2]),
    "text in fragments": sent(TEXT, b"a", fin=False) + sent(CONTINUATION, b"\xff"),
    "close reason": closing(1000, b"\xff"),
}

TOO_BIG: dict[str, bytes] = {
    "text": sent(TEXT, b"a" * (LIMIT + 1)),
    "binary": sent(BINARY, b"a" * (LIMIT + 1)),
    "first fragment": sent(TEXT, b"a" * (LIMIT + 1), fin=False),
    "fragments added up": sent(BINARY, b"a" * LIMIT, fin=False) + sent(CONTINUATION, b"a", fin=False),
    "the longest length there is": b"\x82\xff\x7f" + b"\xff" * 7 + MASK,
}

VIOLATIONS = [
    pytest.param(data, code, id=f"{code.value}: {name}")
    for code, table in (
        (CloseCode.PROTOCOL_ERROR, PROTOCOL_ERRORS),
        (CloseCode.INVALID_DATA, INVALID_DATA),
        (CloseCode.MESSAGE_TOO_BIG, TOO_BIG),
    )
    for name, data in table.items()
]

well_formed = pytest.mark.parametrize(("data", "events"), WELL_FORMED.values(), ids=WELL_FORMED)
violations = pytest.mark.parametrize(("data", "code"), VIOLATIONS)


# --- Reading ------------------------------------------------------------------------------------------------


@well_formed
def test_whole(data: bytes, events: list[Event]) -> None:
    """Frames that arrive in one piece become their events."""
    assert read(data) == events


@well_formed
def test_byte_by_byte(data: bytes, events: list[Event]) -> None:
    """Frames that arrive one byte at a time become the same events."""
    assert read(*(data[i : i + 1] for i in range(len(data)))) == events


@well_formed
def test_cut_anywhere(data: bytes, events: list[Event]) -> None:
    """Frames that arrive in two pieces become the same events, wherever the cut is."""
    assert all(read(data[:cut], data[cut:]) == events for cut in range(len(data) + 1))


@pytest.mark.parametrize("size", [65_535, 65_536, LIMIT])
def test_long_message(size: int) -> None:
    """A message up to the limit is read, with its length in 16 or in 64 bits."""
    data = sent(BINARY, b"a" * size)
    assert read(data) == [Binary(b"a" * size)]


@pytest.mark.parametrize("cut", [*range(1, 16), 30_000, -1])
def test_long_message_cut(cut: int) -> None:
    """A message with a 64-bit length is read when its header is cut anywhere, or its payload is."""
    data = sent(TEXT, b"a" * 65_536)
    assert read(data[:cut], data[cut:]) == [Text(b"a" * 65_536)]


def test_an_event_is_not_held_back() -> None:
    """What the first piece completes is delivered with it, though the piece ends within the next frame."""
    data = sent(TEXT, b"one")
    assert FrameParser(max_message=LIMIT).feed(data + data[:-1]) == [Text(b"one")]


@violations
def test_violation(data: bytes, code: CloseCode) -> None:
    """A violation ends the events with its close code, after what was sent before it and without the rest."""
    good, late = sent(TEXT, b"good"), sent(TEXT, b"late")
    match read(good + data + late, late):
        case [Text(b"good"), Violation(found)]:
            assert found == code
        case events:
            pytest.fail(f"{events}")


@violations
def test_violation_in_pieces(data: bytes, code: CloseCode) -> None:
    """A violation is the same when its header arrives one byte at a time."""
    pieces = [data[i : i + 1] for i in range(20)]
    match read(*pieces, data[20:]):
        case [Violation(found)]:
            assert found == code
        case events:
            pytest.fail(f"{events}")


def test_continuation_after_the_last_fragment() -> None:
    """A finished message cannot be continued."""
    data = sent(TEXT, b"a", fin=False) + sent(CONTINUATION, b"b") + sent(CONTINUATION, b"c")
    assert [type(event) for event in read(data)] == [Text, Violation]


def test_the_limit_is_enforced_by_the_header() -> None:
    """A message that is too big is refused before a byte of its payload has arrived."""
    header = sent(TEXT, b"a" * (LIMIT + 1))[:10]
    assert [type(event) for event in read(header)] == [Violation]


def test_the_limit_is_for_messages() -> None:
    """A control frame is read even when the message it interrupts has reached the limit."""
    data = sent(TEXT, b"aaaa", fin=False) + sent(PING, b"still there?") + sent(CONTINUATION)
    assert read(data, max_message=4) == [Ping(b"still there?"), Text(b"aaaa")]


def test_the_limit_begins_anew() -> None:
    """Fragments count against the limit of their own message only."""
    data = sent(TEXT, b"aaa", fin=False) + sent(CONTINUATION, b"a")
    assert read(data * 3, max_message=4) == [Text(b"aaaa")] * 3


def test_a_long_frame_is_not_parsed_for_every_piece() -> None:
    """The work for a frame in many pieces does not grow with their number."""

    class Counting(FrameParser):
        calls = 0

        def _parse(self, data: bytes | bytearray, events: list[Event]) -> None:
            self.calls += 1
            super()._parse(data, events)

    parser = Counting(max_message=LIMIT)
    data = sent(TEXT, b"a" * LIMIT)
    for i in range(len(data)):
        parser.feed(data[i : i + 1])
    # For each part of the header, and for the payload.
    assert parser.calls <= 4


def test_fragments_take_the_memory_of_their_bytes() -> None:
    """A message in tiny fragments cannot take many times the memory its size allows."""
    fragment = sent(CONTINUATION, b"abc", fin=False)
    parser = FrameParser(max_message=LIMIT)
    parser.feed(sent(TEXT, fin=False))
    tracemalloc.start()
    try:
        for _ in range(LIMIT // 3):
            parser.feed(fragment)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.5 * LIMIT


@pytest.mark.parametrize("last", [closing(1000), text_frame(b"not masked")], ids=["close", "violation"])
def test_the_end_frees_the_buffers(last: bytes) -> None:
    """After its last event a parser says that it has ended and holds nothing."""
    parser = FrameParser(max_message=LIMIT)
    parser.feed(sent(TEXT, b"a" * 1000, fin=False) + last + b"rest")
    assert repr(parser) == "<FrameParser: ended>"


def test_the_parser_says_what_it_waits_for() -> None:
    """The `repr` of a parser tells how much it holds."""
    parser = FrameParser(max_message=LIMIT)
    parser.feed(sent(TEXT, b"abc", fin=False) + b"\x80")
    assert repr(parser) == "<FrameParser: 1 bytes pending, 3 bytes of fragments>"


@pytest.mark.parametrize("event", [Text(b"secret"), Binary(b"secret"), Ping(b"secret")])
def test_payloads_stay_out_of_logs(event: Text | Binary | Ping) -> None:
    """Neither `repr` nor rich shows what a message contains: it may be a token."""
    assert "secret" not in f"{event!r} {event.__rich_repr__()}"


fragmented_messages = st.lists(
    st.tuples(
        st.sampled_from([Text, Binary]),
        st.lists(st.text(max_size=80), min_size=1, max_size=4),
        st.binary(min_size=4, max_size=4),
        st.none() | st.binary(max_size=125),
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=40)
@given(messages=fragmented_messages, cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_round_trip(
    messages: list[tuple[type[Text | Binary], list[str], bytes, bytes | None]], cuts: list[int]
) -> None:
    """Any messages, in any fragments with pings between them and in any pieces, arrive as they were sent."""
    data, expected = bytearray(), list[Event]()
    for kind, parts, mask, ping in messages:
        for i, part in enumerate(parts):
            opcode = CONTINUATION if i else TEXT if kind is Text else BINARY
            if i and ping is not None:
                data += client_frame(PING, ping, mask)
                expected.append(Ping(ping))
            data += client_frame(opcode, part.encode(), mask, fin=i == len(parts) - 1)
        expected.append(kind("".join(parts).encode()))
    edges = [0, *sorted(cuts), len(data)]
    pieces = [bytes(data[start:stop]) for start, stop in pairwise(edges)]
    assert read(*pieces) == expected


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes(pieces: list[bytes]) -> None:
    """No bytes make the parser raise, and how they are cut makes no difference."""
    assert read(*pieces) == read(b"".join(pieces))


# --- Writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (text_frame(b"Hello"), "81 05 48 65 6c 6c 6f"),
        (binary_frame(b"\x00"), "82 01 00"),
        (ping_frame(b"Hello"), "89 05 48 65 6c 6c 6f"),
        (ping_frame(), "89 00"),
        (pong_frame(b"Hello"), "8a 05 48 65 6c 6c 6f"),
        (pong_frame(), "8a 00"),
        (close_frame(), "88 00"),
        (close_frame(1000), "88 02 03 e8"),
        (close_frame(CloseCode.SERVICE_RESTART, "bye"), "88 05 03 f4 62 79 65"),
        (client_frame(TEXT, b"Hello", MASK), "81 85 37 fa 21 3d 7f 9f 4d 51 58"),
        (client_frame(CONTINUATION, b"", MASK, fin=False), "00 80 37 fa 21 3d"),
    ],
)
def test_frame(frame: bytes, expected: str) -> None:
    """Frames are written as RFC 6455 section 5.7 shows them."""
    assert frame == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (125, "81 7d"),
        (126, "81 7e 00 7e"),
        (65_535, "81 7e ff ff"),
        (65_536, "81 7f 00 00 00 00 00 01 00 00"),
    ],
)
def test_length(size: int, header: str) -> None:
    """A length takes as few bytes as it can."""
    assert text_frame(b"a" * size) == bytes.fromhex(header) + b"a" * size


@pytest.mark.parametrize(
    ("reason", "written"),
    [
        ("a" * 123, b"a" * 123),
        ("a" * 124, b"a" * 123),
        ("♫" * 42, "♫".encode() * 41),
        ("a" + "♫" * 41, b"a" + "♫".encode() * 40),
        ("\ud800", b"?"),
    ],
    ids=["fits", "too long", "too long, cut between characters", "cut within a character", "no UTF-8"],
)
def test_close_reason(reason: str, written: bytes) -> None:
    """A close reason is cut to what fits, and is always UTF-8."""
    assert close_frame(1000, reason)[4:] == written


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_close_code_that_must_not_travel(code: int) -> None:
    """A close frame is not written with a code that must not stand in one."""
    with pytest.raises(ValueError, match="must not stand"):
        close_frame(code)


def test_close_reason_without_a_code() -> None:
    """A close frame is not written with a reason only, which has no place in it."""
    with pytest.raises(ValueError, match="needs a code"):
        close_frame(reason="bye")


@pytest.mark.parametrize("build", [ping_frame, pong_frame])
def test_control_payload_too_long(build: Callable[[bytes], bytes]) -> None:
    """A control frame is not written with more than 125 bytes."""
    with pytest.raises(ValueError, match="at most 125"):
        build(b"a" * 126)


@settings(deadline=None)
@given(st.binary(max_size=100), st.binary(min_size=4, max_size=4))
def test_masking_without_c(data: bytes, mask: bytes) -> None:
    """Where the C routine is missing, ours masks in the same way."""
    assert frames._xor(data, mask) == apply_mask(data, mask)
