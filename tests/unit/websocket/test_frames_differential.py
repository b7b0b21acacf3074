"""The same bytes, cut at every position, are the same frames, close codes and refusals to both parsers.

Ours and that of `websockets`; for a server, which reads masked frames, and for a client, which reads the
others. Where the two differ, and why, stands in `second_opinion`; each difference is shown here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.websocket.second_opinion import Heard, agree, cut, ours, theirs, turned
from tests.unit.websocket.test_frames import INVALID_DATA, MASK, PROTOCOL_ERRORS, WELL_FORMED, closing, sent
from websockets.frames import Opcode as TheirOpcode

from backbeat.websocket.frames import FREE_FRAGMENTS, CloseCode, Opcode, client_frame, text_frame

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode

LIMIT = 200
SHORT = 18
"""Bytes of a wire that is cut at every pair of positions."""
BY = ["server", "client"]

KOSME = bytes.fromhex("cebae1bdb9cf83cebcceb5f09f8eb8")


def in_fragments(payload: bytes, *cuts: int) -> bytes:
    """A text message in fragments, cut at positions of its payload."""
    parts = cut(payload, cuts)
    return b"".join(
        sent(CONTINUATION if number else TEXT, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    )


WIRES: dict[str, bytes] = {
    **{name: data for name, (data, _) in WELL_FORMED.items()},
    **PROTOCOL_ERRORS,
    **{f"not UTF-8: {name}": data for name, data in INVALID_DATA.items()},
    "everything in one buffer": b"".join(
        data for data, events in WELL_FORMED.values() if not any(hasattr(event, "code") for event in events)
    ),
    **{f"fragments within characters, {at}": in_fragments(KOSME, at) for at in range(len(KOSME) + 1)},
    "fragments of one byte": in_fragments(KOSME, *range(1, len(KOSME))),
    **{f"fragments of text that ends early, {at}": in_fragments(KOSME[:-1], at) for at in (1, 4, 14)},
    "a fragment that is no text, within a good message": in_fragments(KOSME + b"\xff" + KOSME, 15, 16),
    "as long as may be": sent(TEXT, b"a" * LIMIT),
    "one byte too long": sent(TEXT, b"a" * (LIMIT + 1)),
    "one byte too long in fragments": in_fragments(b"a" * (LIMIT + 1), 1, LIMIT),
    "as long as may be in fragments": in_fragments(b"a" * LIMIT, 1, LIMIT - 1) * 2,
    "the longest length there is": b"\x82\xff\x7f" + b"\xff" * 7 + MASK,
    "too long, with a reserved bit": sent(0x40 | BINARY, b"a" * (LIMIT + 1)),
    "too long, and a continuation of nothing": sent(CONTINUATION, b"a" * (LIMIT + 1)),
    "a message before a violation": sent(TEXT, b"one") + sent(0x3) + sent(TEXT, b"two"),
    "a reason of 123 bytes": closing(1000, b"a" * 123),
    "a reason of 124 bytes": closing(1000, b"a" * 124),
    **{f"a close with {code}": closing(code) for code in (1000, 1003, 1007, 1014, 3000, 4999)},
}

wires = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
read_by = pytest.mark.parametrize("by", BY)


@wires
@read_by
def test_cut_at_every_position(wire: bytes, by: str) -> None:
    """In one piece, in two at every cut, byte by byte, and, if it is short, in three at every two cuts."""
    if by == "client":
        wire = turned(wire)
    whole = agree(wire, max_message=LIMIT, by=by)
    cuttings: list[Iterable[int]] = [range(len(wire)), *([at] for at in range(len(wire)))]
    if len(wire) <= SHORT:
        cuttings += combinations(range(1, len(wire)), 2)
    for cuts in cuttings:
        assert agree(wire, cuts, max_message=LIMIT, by=by) == whole


@wires
@read_by
def test_every_beginning(wire: bytes, by: str) -> None:
    """At every moment of its arrival both have heard the same."""
    if by == "client":
        wire = turned(wire)
    for end in range(len(wire)):
        agree(wire[:end], max_message=LIMIT, by=by)


def test_the_wires_reach_every_end() -> None:
    """Among them are good messages, closes and all three refusals."""
    ends = {ours([wire], LIMIT, by="server").closed for wire in WIRES.values()}
    assert ends >= {None, 1000, 1002, 1005, 1007, 1009, 4001}


# Where the two differ ---------------------------------------------------------------------------------------

DIFFERENCES: dict[str, tuple[bytes, int, Heard, Heard]] = {
    "a length in more bytes than it needs": (
        b"\x81\xfe\x00\x01" + bytes(4) + b"a",
        LIMIT,
        Heard([], CloseCode.PROTOCOL_ERROR),
        Heard([(TEXT, b"a")]),
    ),
    "a length with its highest bit set": (
        b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00" + MASK,
        LIMIT,
        Heard([], CloseCode.PROTOCOL_ERROR),
        Heard([], CloseCode.MESSAGE_TOO_BIG),
    ),
    "a ping within a message that has reached its limit": (
        sent(TEXT, b"aaaa", fin=False) + sent(PING, b"?") + sent(CONTINUATION),
        4,
        Heard([(PING, b"?"), (TEXT, b"aaaa")]),
        Heard([], CloseCode.MESSAGE_TOO_BIG),
    ),
    "a message in a great many empty fragments": (
        sent(TEXT, b"a", fin=False) + sent(CONTINUATION, fin=False) * FREE_FRAGMENTS,
        LIMIT,
        Heard([], CloseCode.POLICY_VIOLATION),
        Heard(),
    ),
    "a reserved bit, before the payload is there": (
        sent(0x40 | TEXT, b"a")[:2],
        LIMIT,
        Heard([], CloseCode.PROTOCOL_ERROR),
        Heard(),
    ),
    "a close with a bad code and a bad reason": (
        closing(1005, b"\xff"),
        LIMIT,
        Heard([], CloseCode.PROTOCOL_ERROR),
        Heard([], CloseCode.INVALID_DATA),
    ),
}


@pytest.mark.parametrize(("wire", "limit", "mine", "other"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_where_they_differ(wire: bytes, limit: int, mine: Heard, other: Heard) -> None:
    """What `agree` evens out is this, and is still so."""
    assert ours([wire], limit, by="server") == mine
    assert theirs([wire], limit, by="server") == other
    agree(wire, max_message=limit, by="server")


def test_a_close_between_fragments() -> None:
    """Ours is content with it; theirs has read it too, and answers that the message was not finished."""
    wire = sent(TEXT, b"a", fin=False) + closing(1000)
    assert agree(wire, max_message=LIMIT, by="server").closed == CloseCode.NORMAL


# At random --------------------------------------------------------------------------------------------------

masks = st.binary(min_size=4, max_size=4)
payloads = st.binary(max_size=140) | st.text(max_size=40).map(str.encode)
close_codes = st.integers(990, 1020) | st.integers(2990, 5010) | st.integers(0, 65535)
close_payloads = (
    st.binary(max_size=1)
    | close_codes.map(lambda code: code.to_bytes(2, "big"))
    | st.builds(lambda code, reason: code.to_bytes(2, "big") + reason, close_codes, payloads)
)

data_frames = st.builds(
    client_frame, st.sampled_from([CONTINUATION, TEXT, BINARY]), payloads, masks, fin=st.booleans()
)
control_frames = st.builds(client_frame, st.sampled_from([PING, PONG]), payloads, masks)
close_frames = st.builds(client_frame, st.just(CLOSE), close_payloads, masks)
odd_frames = st.builds(client_frame, st.integers(0, 127), payloads, masks, fin=st.booleans()) | payloads.map(
    text_frame
)
fragmented_messages = st.builds(
    lambda opcode, parts, mask: b"".join(
        client_frame(CONTINUATION if i else opcode, part, mask, fin=i == len(parts) - 1)
        for i, part in enumerate(parts)
    ),
    st.sampled_from([TEXT, BINARY]),
    st.lists(payloads, min_size=1, max_size=4),
    masks,
)
whole_messages = st.builds(client_frame, st.sampled_from([TEXT, BINARY]), payloads, masks)
cuts = st.lists(st.integers(0, 1000), max_size=8)
any_side = st.sampled_from(BY)


@settings(deadline=None, max_examples=200)
@example(frames=[sent(TEXT, b"a", fin=False), closing(1000)], cuts=[], by="server")
@given(
    frames=st.lists(whole_messages | data_frames | control_frames | close_frames | odd_frames, max_size=8),
    cuts=cuts,
    by=any_side,
)
def test_same_frames(frames: Sequence[bytes], cuts: list[int], by: str) -> None:
    """Frames good and bad mean the same to both: the same messages, then the same close code."""
    wire = b"".join(frames)
    agree(wire if by == "server" else turned(wire), cuts, max_message=LIMIT, by=by)


@settings(deadline=None)
@given(messages=st.lists(fragmented_messages, max_size=4), cuts=cuts, by=any_side)
def test_same_limit(messages: Sequence[bytes], cuts: list[int], by: str) -> None:
    """Both refuse a message at the same byte of the limit, in one frame or in fragments."""
    wire = b"".join(messages)
    pieces = cut(wire if by == "server" else turned(wire), cuts)
    assert ours(pieces, 100, by=by) == theirs(pieces, 100, by=by)


@settings(deadline=None)
@given(wire=st.binary(max_size=80), cuts=cuts, by=any_side)
def test_any_bytes(wire: bytes, cuts: list[int], by: str) -> None:
    """Bytes that nobody made for frames mean the same to both."""
    agree(wire, cuts, max_message=LIMIT, by=by)


def test_same_opcodes() -> None:
    """Our names stand for the numbers theirs stand for."""
    assert [opcode.value for opcode in Opcode] == [opcode.value for opcode in TheirOpcode]
