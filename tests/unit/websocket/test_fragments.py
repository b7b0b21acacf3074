"""What a parser tells about a message that is not complete, and how many pieces it takes."""

from __future__ import annotations

from backbeat.websocket.frames import (
    FREE_FRAGMENTS,
    MIN_FRAGMENT,
    CloseCode,
    FrameParser,
    Opcode,
    Text,
    Violation,
    client_frame,
)

MASK = b"mask"


def fragment(payload: bytes, *, fin: bool = False) -> bytes:
    """A piece of a message that is not its first."""
    return client_frame(Opcode.CONTINUATION, payload, MASK, fin=fin)


def test_between_messages_nothing_is_unfinished() -> None:
    """A whole frame leaves nothing behind."""
    parser = FrameParser(max_message=100)
    assert (parser.unfinished, parser.held) == (None, 0)
    parser.feed(client_frame(Opcode.TEXT, b"x", MASK))
    assert (parser.unfinished, parser.held) == (None, 0)


def test_a_frame_in_pieces_is_kept_in_one_place() -> None:
    """Until it is complete, and its size grows with what arrives."""
    parser = FrameParser(max_message=100)
    frame = client_frame(Opcode.TEXT, b"x" * 50, MASK)
    parser.feed(frame[:10])
    place = parser.unfinished
    sizes = []
    for byte in frame[10:-1]:
        parser.feed(bytes([byte]))
        assert parser.unfinished is place
        sizes.append(parser.held)
    assert sizes == list(range(11, len(frame)))
    assert parser.feed(frame[-1:]) == [Text(b"x" * 50)]
    assert parser.unfinished is None


def test_a_message_in_fragments_is_kept_in_one_place() -> None:
    """Whatever control frames come between them, and however the next piece is cut."""
    parser = FrameParser(max_message=100)
    parser.feed(client_frame(Opcode.TEXT, b"a", MASK, fin=False))
    place = parser.unfinished
    for data in (
        client_frame(Opcode.PING, b"", MASK),
        fragment(b"b"),
        fragment(b"c")[:3],
        fragment(b"c")[3:],
    ):
        parser.feed(data)
        assert parser.unfinished is place
    assert parser.feed(fragment(b"d", fin=True)) == [Text(b"abcd")]
    assert (parser.unfinished, parser.held) == (None, 0)


def test_another_message_is_another_place() -> None:
    """So whoever looks now and then does not take two for one."""
    parser = FrameParser(max_message=100)
    frame = client_frame(Opcode.TEXT, b"x" * 50, MASK)
    parser.feed(frame[:20])
    first = parser.unfinished
    parser.feed(frame[20:] + frame[:20])
    assert parser.unfinished is not None
    assert parser.unfinished is not first


def test_a_message_may_come_byte_by_byte() -> None:
    """As the cases of a conformance suite do."""
    parser = FrameParser(max_message=10_000)
    parser.feed(client_frame(Opcode.TEXT, b"", MASK, fin=False))
    for _ in range(FREE_FRAGMENTS - 1):
        assert parser.feed(fragment(b"x")) == []
    assert parser.feed(fragment(b"", fin=True)) == [Text(b"x" * (FREE_FRAGMENTS - 1))]


def test_endless_empty_fragments_are_a_violation() -> None:
    """They would never be a message."""
    parser = FrameParser(max_message=10_000)
    events = parser.feed(client_frame(Opcode.TEXT, b"", MASK, fin=False) + fragment(b"") * FREE_FRAGMENTS)
    assert events == [Violation(CloseCode.POLICY_VIOLATION, "a message came in too many small fragments")]


def test_fragments_of_some_size_are_not_counted() -> None:
    """However many a large message takes."""
    count = 3 * FREE_FRAGMENTS
    parser = FrameParser(max_message=count * MIN_FRAGMENT)
    parser.feed(client_frame(Opcode.BINARY, b"", MASK, fin=False))
    for _ in range(count - 1):
        assert parser.feed(fragment(b"x" * MIN_FRAGMENT)) == []
    assert len(parser.feed(fragment(b"", fin=True))) == 1


def test_the_next_message_is_counted_anew() -> None:
    """The limit is one of each message."""
    parser = FrameParser(max_message=10_000)
    for _ in range(3):
        parser.feed(client_frame(Opcode.TEXT, b"", MASK, fin=False) + fragment(b"") * (FREE_FRAGMENTS - 2))
        assert parser.feed(fragment(b"", fin=True)) == [Text(b"")]
