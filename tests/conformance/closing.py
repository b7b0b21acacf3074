"""Section 7: how a connection ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.conformance.cases import Case, Ends, Heard, Send, close, fragments, frame, normal_close
from tests.conformance.utf8 import EDITED, KOSME

from backbeat.websocket.frames import CloseCode, Opcode

TEXT, PING, CLOSE = Opcode.TEXT, Opcode.PING, Opcode.CLOSE
HELLO: Final = b"Hello World!"
NO_CODE: Final = 1005
VALID: Final = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
INVALID: Final = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
UNDEFINED: Final = (5000, 65535)
BAD: Final = (CloseCode.PROTOCOL_ERROR,)


def _case(
    number: str,
    sent: str,
    *frames: bytes,
    codes: tuple[int, ...] = (CloseCode.NORMAL,),
    answer: tuple[Heard, ...] = (),
    informational: bool = False,
) -> Case:
    return Case(
        number=number,
        sent=sent,
        steps=(Send(frames),),
        answer=answer,
        ends=Ends.SCRIPT,
        codes=codes,
        informational=informational,
    )


def handshake() -> Iterator[Case]:
    """7.1: a close, and what comes after it."""
    done = normal_close()
    yield _case("7.1.1", "A text message, then a close", frame(TEXT, HELLO), done, answer=((TEXT, HELLO),))
    yield _case("7.1.2", "Two closes", done, frame(CLOSE))
    yield _case("7.1.3", "A close, then a ping", done, frame(PING))
    yield _case("7.1.4", "A close, then a text message", done, frame(TEXT, HELLO))
    first, last = fragments(TEXT, b"fragment1", b"fragment2")
    yield _case("7.1.5", "A fragment, a close, the last fragment", first, done, last)
    large = (b"BAsd7&jh23" * 26_215)[: 256 * 1024]
    yield _case(
        "7.1.6",
        "A text message of 256 KiB, a short one, a close, a ping",
        frame(TEXT, large),
        frame(TEXT, HELLO),
        done,
        frame(PING),
        answer=((TEXT, large), (TEXT, HELLO)),
        informational=True,
    )


def payloads() -> Iterator[Case]:
    """7.3 and 7.5: what a close may carry."""
    yield _case("7.3.1", "A close without a code", close(), codes=(NO_CODE,))
    yield _case("7.3.2", "A close of one byte", frame(CLOSE, b"a"), codes=BAD)
    yield _case("7.3.3", "A close with a code", normal_close())
    yield _case("7.3.4", "A close with a code and a reason", normal_close("Hello World!"))
    yield _case("7.3.5", "A close with a reason of 123 bytes", normal_close("*" * 123))
    yield _case("7.3.6", "A close with a reason of 124 bytes", close(1000, b"*" * 124), codes=BAD)
    yield _case(
        "7.5.1",
        "A close with a reason that is not UTF-8",
        close(1000, KOSME + b"\xed\xa0\x80" + EDITED),
        codes=(CloseCode.INVALID_DATA, CloseCode.PROTOCOL_ERROR),
    )


def codes() -> Iterator[Case]:
    """7.7, 7.9 and 7.13: codes that may stand in a close frame, and codes that may not."""
    for number, code in enumerate(VALID, start=1):
        yield _case(f"7.7.{number}", f"A close with code {code}", close(code), codes=(code,))
    for number, code in enumerate(INVALID, start=1):
        yield _case(
            f"7.9.{number}", f"A close with code {code}, which must not travel", close(code), codes=BAD
        )
    for number, code in enumerate(UNDEFINED, start=1):
        yield _case(
            f"7.13.{number}",
            f"A close with code {code}, beyond what the RFC speaks of",
            close(code),
            codes=BAD,
            informational=True,
        )
