"""Section 6: text is UTF-8, whole and in pieces, and what is not UTF-8 is refused.

The byte strings of 6.5 and later are those of Markus Kuhn's UTF-8 decoder stress test, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Final

from tests.conformance.cases import Case, Ends, Pause, Send, cut, echo, fragments, frame, refused
from tests.unit.websocket.second_opinion import is_utf8

from backbeat.websocket.frames import CloseCode, Opcode

TEXT: Final = Opcode.TEXT
KOSME: Final = bytes.fromhex("cebae1bdb9cf83cebcceb5")
UMLAUTS: Final = "Hello-µ@ßöäüàá-UTF-8!!".encode()
EDITED: Final = b"edited"
LATE: Final = (
    "Text is checked once it is whole. Nothing of it is handled before, and no more of it is kept than a"
    " message may have"
)


def _run(first: int, last: int, between: bytes = b"") -> bytes:
    """Consecutive bytes; the last one is left out, as it is in the suite."""
    return b"".join(bytes((byte,)) + between for byte in range(first, last))


_FIVE_AND_SIX: Final = ("f888808080", "fc8480808080")
_SHORT: Final = (
    "c0",
    "e080",
    "f08080",
    "f8808080",
    "fc80808080",
    "df",
    "efbf",
    "f7bfbf",
    "fbbfbfbf",
    "fdbfbfbfbf",
)

GROUPS: Final[dict[str, list[bytes]]] = {
    "valid": [
        b"hello\x24world",
        b"hello\xc2\xa2world",
        b"hello\xe2\x82\xacworld",
        b"hello\xf0\xa4\xad\xa2world",
        KOSME,
    ],
    "a beginning of a valid string": [KOSME[:end] for end in range(1, len(KOSME) + 1)],
    "the first character of its length": [
        bytes.fromhex(each) for each in ("00", "c280", "e0a080", "f0908080")
    ],
    "the first sequence of 5 and 6 bytes": [bytes.fromhex(each) for each in _FIVE_AND_SIX],
    "the last character of its length": [
        bytes.fromhex(each) for each in ("7f", "dfbf", "efbfbf", "f48fbfbf")
    ],
    "the last sequence of 4, 5 and 6 bytes": [
        bytes.fromhex(each) for each in ("f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf")
    ],
    "an edge of what is valid": [
        bytes.fromhex(each) for each in ("ed9fbf", "ee8080", "efbfbd", "f48fbfbf", "f4908080")
    ],
    "continuation bytes alone": [
        *(bytes.fromhex(each) for each in ("80", "bf")),
        *((b"\x80\xbf" * 3)[:size] for size in range(2, 7)),
        _run(0x80, 0xBF),
    ],
    "start bytes alone": [
        _run(first, last, b" ")
        for first, last in ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD))
    ],
    "a sequence without its last byte": [bytes.fromhex(each) for each in _SHORT],
    "many sequences without their last byte": [bytes.fromhex("".join(_SHORT))],
    "bytes that never occur": [bytes.fromhex(each) for each in ("fe", "ff", "fefeffff")],
    "a slash that is too long": [
        bytes.fromhex(each) for each in ("c0af", "e080af", "f08080af", "f8808080af", "fc80808080af")
    ],
    "the last sequence that is too long": [
        bytes.fromhex(each) for each in ("c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf")
    ],
    "a NUL that is too long": [
        bytes.fromhex(each) for each in ("c080", "e08080", "f0808080", "f880808080", "fc8080808080")
    ],
    "half a surrogate pair": [
        bytes.fromhex(each) for each in ("eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf")
    ],
    "a surrogate pair": [
        bytes.fromhex(high + low)
        for high, low in product(("eda080", "edadbf", "edae80", "edafbf"), ("edb080", "edbfbf"))
    ],
    "a code point that is no character": [
        *(bytes.fromhex(each) for each in ("efbfbe", "efbfbf")),
        *(chr(plane << 16 | last).encode() for plane in range(1, 17) for last in (0xFFFE, 0xFFFF)),
    ],
    "a special character": [bytes.fromhex(f"efbf{last:02x}") for last in range(0xB9, 0xC0)],
}


def fragmented() -> Iterator[Case]:
    """6.1 to 6.3: valid and invalid text, in one frame and in many."""
    for number, sent, payloads in (
        ("6.1.2", "A text message in three empty fragments", (b"", b"", b"")),
        (
            "6.1.3",
            "A text message in three fragments, of which one is not empty",
            (b"", b"middle frame payload", b""),
        ),
        (
            "6.2.2",
            "Valid text in two fragments, cut between characters",
            cut(UMLAUTS, len("Hello-µ@ßöä".encode())),
        ),
        ("6.2.3", "Valid text in fragments of one byte", cut(UMLAUTS, 1)),
        ("6.2.4", "Valid text in fragments of one byte, Greek", cut(KOSME, 1)),
    ):
        yield Case(
            number=number,
            sent=sent,
            steps=(Send(fragments(TEXT, *payloads)),),
            answer=((TEXT, b"".join(payloads)),),
        )
    yield echo("6.1.1", "An empty text message", TEXT, b"")
    yield echo("6.2.1", "Valid text in one frame", TEXT, UMLAUTS)
    invalid = KOSME + b"\xed\xa0\x80" + EDITED
    code = CloseCode.INVALID_DATA
    yield refused("6.3.1", "Text with a surrogate in one frame", frame(TEXT, invalid), code=code)
    sent = "Text with a surrogate in fragments of one byte"
    yield refused("6.3.2", sent, *fragments(TEXT, *cut(invalid, 1)), code=code)


def fail_fast() -> Iterator[Case]:
    """6.4: is text refused at its first wrong byte, or at its end?"""
    beyond = b"\xf4\x90\x80\x80"
    three = (KOSME, beyond, EDITED)
    payload = b"".join(three)
    at_the_byte = (payload[:12], payload[12:13], payload[13:])
    for number, sent, parts in (
        ("6.4.1", "Text in three fragments, the second invalid", fragments(TEXT, *three)),
        (
            "6.4.2",
            "Text in three fragments, the second ends at the first wrong byte",
            fragments(TEXT, *at_the_byte),
        ),
        ("6.4.3", "Text in one frame and three pieces, the second invalid", _pieces(three)),
        (
            "6.4.4",
            "Text in one frame and three pieces, the second ends at the first wrong byte",
            _pieces(at_the_byte),
        ),
    ):
        first, second, third = parts
        yield Case(
            number=number,
            sent=sent,
            steps=(Send((first,)), Pause(), Send((second,)), Pause(), Send((third,))),
            ends=Ends.SERVER,
            codes=(CloseCode.INVALID_DATA,),
            pauses=1,
            reason=LATE,
        )


def _pieces(parts: tuple[bytes, ...]) -> tuple[bytes, ...]:
    whole = frame(TEXT, b"".join(parts))
    head = len(whole) - sum(map(len, parts))
    ends = [head + len(b"".join(parts[: number + 1])) for number in range(len(parts))]
    return tuple(whole[start:end] for start, end in zip([0, *ends], ends, strict=False))


def decoding() -> Iterator[Case]:
    """6.5 to 6.23: one message for each string."""
    for part, (kind, strings) in enumerate(GROUPS.items(), start=5):
        for number, payload in enumerate(strings, start=1):
            shown = (
                f"`{payload.hex()}`" if len(payload) < 20 else f"`{payload[:8].hex()}…`, {len(payload)} bytes"
            )
            sent = f"Text, {kind}: {shown}"
            if is_utf8(payload):
                yield echo(f"6.{part}.{number}", sent, TEXT, payload)
            else:
                code = CloseCode.INVALID_DATA
                yield refused(f"6.{part}.{number}", sent, frame(TEXT, payload), code=code)
