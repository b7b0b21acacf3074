"""Sections 1 to 5: framing, pings and pongs, reserved bits, opcodes, fragments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.conformance.cases import Case, Send, Wait, echo, fragments, frame, refused

from backbeat.websocket.frames import Opcode

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode

HELLO: Final = b"Hello, world!"
NOT_TEXT: Final = bytes.fromhex("00fffefdfcfb00ff")
SIZES: Final = (0, 125, 126, 127, 128, 65_535, 65_536, 65_536)
CHOPS: Final = {0: "", -1: ", a piece a frame", 1: ", byte by byte"}
FRAME, BYTE = -1, 1


def messages() -> Iterator[Case]:
    """Section 1: messages of every length that is written differently."""
    for part, opcode, byte in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, size in enumerate(SIZES, start=1):
            chop = 997 if number == len(SIZES) else 0
            pieces = f", in pieces of {chop}" if chop else ""
            sent = f"A {opcode.name.lower()} message of {size} bytes{pieces}"
            yield echo(f"1.{part}.{number}", sent, opcode, byte * size, chop=chop)


def pings() -> Iterator[Case]:
    """Section 2: control frames that want an answer, and some that do not."""
    for number, sent, payload, chop in (
        (1, "An empty ping", b"", 0),
        (2, "A ping with text", HELLO, 0),
        (3, "A ping with bytes that are no text", NOT_TEXT, 0),
        (4, "A ping of 125 bytes", b"\xfe" * 125, 0),
        (6, "A ping of 125 bytes, byte by byte", b"\xfe" * 125, BYTE),
    ):
        yield Case(
            number=f"2.{number}",
            sent=sent,
            steps=(Send((frame(PING, payload),), chop),),
            answer=((PONG, payload),),
        )
    yield refused("2.5", "A ping of 126 bytes", frame(PING, b"\xfe" * 126))
    for number, sent, payload in (
        (7, "An empty pong nobody asked for", b""),
        (8, "A pong with text nobody asked for", b"unsolicited pong payload"),
    ):
        yield Case(number=f"2.{number}", sent=sent, steps=(Send((frame(PONG, payload),)),))
    yield Case(
        number="2.9",
        sent="A pong nobody asked for, then a ping",
        steps=(Send((frame(PONG, b"unsolicited pong payload"), frame(PING, b"ping payload"))),),
        answer=((PONG, b"ping payload"),),
    )
    payloads = [b"payload-%d" % number for number in range(10)]
    for number, chop in ((10, 0), (11, BYTE)):
        yield Case(
            number=f"2.{number}",
            sent=f"Ten pings{CHOPS[chop]}",
            steps=(Send(tuple(frame(PING, payload) for payload in payloads), chop),),
            answer=tuple((PONG, payload) for payload in payloads),
        )


def reserved_bits() -> Iterator[Case]:
    """Section 3: bits that only an extension could give a meaning."""
    yield refused("3.1", "A text message with RSV 1", frame(TEXT, HELLO, rsv=1))
    for number, rsv, chop in ((2, 2, 0), (3, 3, FRAME), (4, 4, BYTE)):
        yield _between(f"3.{number}", f"one with RSV {rsv}", frame(TEXT, HELLO, rsv=rsv), chop)
    yield refused("3.5", "A binary message with RSV 5", frame(BINARY, NOT_TEXT, rsv=5))
    yield refused("3.6", "A ping with RSV 6", frame(PING, HELLO, rsv=6))
    yield refused("3.7", "A close with RSV 7", frame(CLOSE, rsv=7))


def opcodes() -> Iterator[Case]:
    """Section 4: opcodes that mean nothing yet."""
    for part, first in ((1, 3), (2, 11)):
        kind = "data" if part == 1 else "control"
        yield refused(f"4.{part}.1", f"An empty frame with {kind} opcode {first}", frame(first))
        yield refused(
            f"4.{part}.2",
            f"A frame with {kind} opcode {first + 1}",
            frame(first + 1, b"reserved opcode payload"),
        )
        for number, payload, chop in ((3, b"", 0), (4, HELLO, 0), (5, HELLO, BYTE)):
            opcode = first + number - 1
            what = f"{'a frame' if payload else 'an empty frame'} with {kind} opcode {opcode}"
            yield _between(f"4.{part}.{number}", what, frame(opcode, payload), chop)


def _between(number: str, what: str, bad: bytes, chop: int) -> Case:
    """A good message comes back, a bad frame ends the connection, and the ping behind it has no answer."""
    return refused(
        number,
        f"A text message, {what}, a ping{CHOPS[chop]}",
        frame(TEXT, HELLO),
        bad,
        frame(PING),
        chop=chop,
        answer=((TEXT, HELLO),),
    )


def fragmentation() -> Iterator[Case]:
    """Section 5: messages in several frames, and what may stand between them."""
    for number, opcode in ((1, PING), (2, PONG)):
        yield refused(
            f"5.{number}",
            f"A {opcode.name.lower()} in two fragments",
            *fragments(opcode, b"fragment1", b"fragment2"),
        )
    first, last = fragments(TEXT, b"fragment1", b"fragment2")
    whole = (TEXT, b"fragment1fragment2")
    for number, chop in ((3, 0), (4, FRAME), (5, BYTE)):
        yield Case(
            number=f"5.{number}",
            sent=f"A text message in two fragments{CHOPS[chop]}",
            steps=(Send((first, last), chop),),
            answer=(whole,),
        )
    for number, chop in ((6, 0), (7, FRAME), (8, BYTE)):
        yield Case(
            number=f"5.{number}",
            sent=f"A text message in two fragments with a ping between them{CHOPS[chop]}",
            steps=(Send((first, frame(PING, b"ping payload"), last), chop),),
            answer=((PONG, b"ping payload"), whole),
        )
    for start, fin, kind in ((9, True, "last"), (12, False, "middle")):
        bad = frame(CONTINUATION, b"non-continuation payload", fin=fin)
        for number, chop in enumerate((0, FRAME, BYTE), start=start):
            sent = f"A {kind} fragment of nothing, then a text message{CHOPS[chop]}"
            yield refused(f"5.{number}", sent, bad, frame(TEXT, HELLO), chop=chop)
    yield refused(
        "5.15",
        "A text message in two fragments, a middle fragment of nothing, a text message",
        first,
        last,
        frame(CONTINUATION, b"fragment3", fin=False),
        frame(TEXT, b"fragment4"),
        answer=(whole,),
    )
    for number, fin, kind in ((16, False, "middle"), (17, True, "last")):
        turn = (
            frame(CONTINUATION, b"fragment1", fin=fin),
            frame(TEXT, b"fragment2", fin=False),
            frame(CONTINUATION, b"fragment3"),
        )
        sent = f"Twice: a {kind} fragment of nothing, then a text message in two fragments"
        yield refused(f"5.{number}", sent, *turn, *turn)
    yield refused(
        "5.18",
        "A text message in two fragments that both say they are the first",
        frame(TEXT, b"fragment1", fin=False),
        frame(TEXT, b"fragment2"),
    )
    parts = [b"fragment%d" % number for number in range(1, 6)]
    one, two, three, four, five = fragments(TEXT, *parts)
    pings = (b"pongme 1!", b"pongme 2!")
    for number, chop in ((19, 0), (20, FRAME)):
        yield Case(
            number=f"5.{number}",
            sent=f"Two fragments and a ping; after its pong two more, a ping and the last{CHOPS[chop]}",
            steps=(
                Send((one, two, frame(PING, pings[0])), chop),
                Wait(1),
                Send((three, four, frame(PING, pings[1]), five), chop),
            ),
            answer=((PONG, pings[0]), (PONG, pings[1]), (TEXT, b"".join(parts))),
        )
