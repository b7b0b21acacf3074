"""What a case is: what a client sends, in which pieces, what has to come back, and who closes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Final

from backbeat.websocket.frames import CloseCode, Opcode, client_frame, close_payload

MASK: Final = b"\x9a\x00\xff\x17"
"""Any four bytes will do; one of them leaves a byte as it is, one turns every bit."""
DEFAULT_LIMIT: Final = 5_000_000
"""Bytes a message may have on a server that was told nothing else."""


class Verdict(StrEnum):
    """How a case ended, in the words of the suite."""

    OK = "OK"
    NON_STRICT = "NON-STRICT"
    INFORMATIONAL = "INFORMATIONAL"
    FAILED = "FAILED"


class Ends(StrEnum):
    """Who sends the first close frame."""

    CLIENT = "client"
    """The driver, with 1000, once it has what it expects."""
    SCRIPT = "script"
    """The case itself: a close frame is among what it sends."""
    SERVER = "server"
    """The server, because it was offended."""


@dataclass(frozen=True, slots=True)
class Send:
    """Frames that are written at once.

    Attributes:
        frames: whole frames, as they are on the wire.
        chop: bytes a piece; 0 for one piece, and -1 for a piece a frame.
    """

    frames: tuple[bytes, ...]
    chop: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until this many frames have come back."""

    frames: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Give the server time to fail; the case notes that it did not."""


Step = Send | Wait | Pause
Heard = tuple[Opcode, bytes]
"""A frame that came back, close frames apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case.

    Attributes:
        number: the number of the suite.
        sent: what the client sends, in words.
        steps: the same as steps.
        answer: the frames that have to come back before the close frame.
        ends: who closes first.
        codes: the close codes that may come back; 1005 stands for none.
        pauses: how many pauses the server may let pass and still be strict; more of them is NON-STRICT.
        reason: why the verdict is not OK, when it is known not to be.
        informational: whether the suite has no opinion about the outcome.
        max_frame: bytes a message may have on the server this is sent to.
    """

    number: str
    sent: str
    steps: tuple[Step, ...]
    answer: tuple[Heard, ...] = ()
    ends: Ends = Ends.CLIENT
    codes: tuple[int, ...] = (CloseCode.NORMAL,)
    pauses: int = 0
    reason: str = ""
    informational: bool = False
    max_frame: int = DEFAULT_LIMIT

    @property
    def key(self) -> tuple[int, ...]:
        """The number, to sort by."""
        return tuple(map(int, self.number.split(".")))

    @property
    def section(self) -> int:
        """The first part of the number."""
        return self.key[0]

    @property
    def wants_echo(self) -> bool:
        """Whether a server that does not echo cannot pass."""
        return any(opcode in (Opcode.TEXT, Opcode.BINARY) for opcode, _ in self.answer)

    @property
    def expected(self) -> str:
        """What has to come back, in words."""
        if self.informational:
            return "Anything: the suite only notes it"
        parts = []
        for told, group in groupby(_told(opcode, payload) for opcode, payload in self.answer):
            times = len(list(group))
            parts.append(told if times == 1 else f"{times} times {told}")
        codes = " or ".join("without a code" if code == 1005 else str(code) for code in self.codes)
        return ", ".join([*parts, f"close {codes}"])


_NAMES: Final = {Opcode.TEXT: "text", Opcode.BINARY: "binary", Opcode.PONG: "pong"}


def _told(opcode: Opcode, payload: bytes) -> str:
    return f"{_NAMES[opcode]} of {len(payload)} bytes" if payload else f"empty {_NAMES[opcode]}"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A frame of the client, right or wrong."""
    return client_frame(opcode | rsv << 4, payload, MASK, fin=fin)


def fragments(opcode: Opcode, *payloads: bytes) -> tuple[bytes, ...]:
    """A message in fragments."""
    last = len(payloads) - 1
    return tuple(
        frame(Opcode.CONTINUATION if number else opcode, payload, fin=number == last)
        for number, payload in enumerate(payloads)
    )


def cut(payload: bytes, size: int) -> list[bytes]:
    """A payload in parts of a size."""
    return [payload[start : start + size] for start in range(0, len(payload), size)]


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """A close frame of the client; codes and reasons are not checked."""
    return frame(Opcode.CLOSE, (b"" if code is None else code.to_bytes(2, "big")) + reason)


def normal_close(reason: str = "") -> bytes:
    """A close frame that nothing is wrong with."""
    return frame(Opcode.CLOSE, close_payload(CloseCode.NORMAL, reason))


def echo(
    number: str, sent: str, opcode: Opcode, payload: bytes, *, chop: int = 0, max_frame: int = DEFAULT_LIMIT
) -> Case:
    """A message in one frame that has to come back."""
    return Case(
        number=number,
        sent=sent,
        steps=(Send((frame(opcode, payload),), chop),),
        answer=((opcode, payload),),
        max_frame=max_frame,
    )


def refused(
    number: str,
    sent: str,
    *frames: bytes,
    chop: int = 0,
    code: CloseCode = CloseCode.PROTOCOL_ERROR,
    answer: tuple[Heard, ...] = (),
) -> Case:
    """Frames the server has to fail the connection for."""
    return Case(
        number=number, sent=sent, steps=(Send(frames, chop),), answer=answer, ends=Ends.SERVER, codes=(code,)
    )
