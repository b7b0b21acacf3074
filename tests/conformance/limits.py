"""Sections 9 and 10: large messages, many fragments, small pieces, many messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.conformance.cases import DEFAULT_LIMIT, Case, Send, Wait, cut, echo, fragments, frame

from backbeat.websocket.frames import Opcode

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY
KIB: Final = 1024
MIB: Final = 1024 * KIB
PATTERN: Final = {TEXT: b"BAsd7&jh23", BINARY: b"\x00\xfe\x23\xfa\xf0"}
PLAIN: Final = {TEXT: b"*", BINARY: b"\xfe"}


def large() -> Iterator[Case]:
    """9.1 and 9.2: messages in one frame."""
    for part, opcode in ((1, TEXT), (2, BINARY)):
        for number, size in enumerate((64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB), start=1):
            yield echo(
                f"9.{part}.{number}",
                f"A {_kind(opcode)} message of {_size(size)}",
                opcode,
                filled(PATTERN[opcode], size),
                max_frame=DEFAULT_LIMIT if size < DEFAULT_LIMIT else 16 * MIB,
            )


def in_fragments() -> Iterator[Case]:
    """9.3 and 9.4: 4 MiB in fragments of many sizes. 10.1 is the same, of 1300 bytes."""
    sizes = (64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB)
    for part, opcode in ((3, TEXT), (4, BINARY)):
        for number, size in enumerate(sizes, start=1):
            yield _fragmented(f"9.{part}.{number}", opcode, 4 * MIB, size)
    yield _fragmented("10.1.1", TEXT, 65_536, 1300)


def _fragmented(number: str, opcode: Opcode, total: int, size: int) -> Case:
    payload = PLAIN[opcode] * total
    return Case(
        number=number,
        sent=f"A {_kind(opcode)} message of {_size(total)} in fragments of {_size(size)}",
        steps=(Send(fragments(opcode, *cut(payload, size))),),
        answer=((opcode, payload),),
    )


def in_pieces() -> Iterator[Case]:
    """9.5 and 9.6: 1 MiB in one frame and many pieces."""
    for part, opcode in ((5, TEXT), (6, BINARY)):
        for number, size in enumerate((64, 128, 256, 512, 1024, 2048), start=1):
            sent = f"A {_kind(opcode)} message of {_size(MIB)} in pieces of {_size(size)}"
            yield echo(f"9.{part}.{number}", sent, opcode, filled(PATTERN[opcode], MIB), chop=size)


def round_trips() -> Iterator[Case]:
    """9.7 and 9.8: a thousand messages, each after the answer to the one before."""
    for part, opcode in ((7, TEXT), (8, BINARY)):
        for number, size in enumerate((0, 16, 64, 256, KIB, 4 * KIB), start=1):
            payload = PLAIN[opcode] * size
            turns = (
                step for turn in range(1, 1001) for step in (Send((frame(opcode, payload),)), Wait(turn))
            )
            yield Case(
                number=f"9.{part}.{number}",
                sent=f"1000 {_kind(opcode)} messages of {_size(size)}, each after the answer to the last",
                steps=tuple(turns),
                answer=((opcode, payload),) * 1000,
            )


def filled(pattern: bytes, size: int) -> bytes:
    """A pattern, repeated up to a size."""
    return (pattern * (size // len(pattern) + 1))[:size]


def _kind(opcode: Opcode) -> str:
    return opcode.name.lower()


def _size(size: int) -> str:
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"
