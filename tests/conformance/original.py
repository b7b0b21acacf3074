"""The cases of the Autobahn test suite themselves: they send, and judge what came back.

Their package is Python 2. So its cases are translated in a temporary folder, and given a connection of ours
where they expect one of theirs: `make conformance-original`. Their strings are bytes; here they are text in
Latin-1.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import structlog
import uvloop
from tests.conformance.cases import close, cut, fragments, frame
from tests.conformance.driver import Driver, connected
from tests.conformance.run import AT_ONCE, CASES, run
from tests.conformance.servers import EchoSocket, Running, serving
from tests.unit.websocket.second_opinion import is_utf8
from websockets.frames import Frame

from backbeat.websocket.frames import CloseCode, Opcode

SECTIONS: Final = re.compile(r"case(?:[1-7]|9|10)_")
NAME: Final = re.compile(r"Case\d+(?:_\d+){1,2}")
LIMIT: Final = 16 << 20


class Conversation(Driver):
    """A connection as their cases know it; the names that are not Python's are theirs."""

    STATE_OPEN = "open"
    CLOSE_STATUS_CODE_NORMAL = CloseCode.NORMAL.value
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = CloseCode.PROTOCOL_ERROR.value
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = CloseCode.INVALID_DATA.value

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.case: Any = None
        self.state = self.STATE_OPEN
        self.factory = SimpleNamespace(isServer=False)
        self.connectionWasOpen = True
        self.closedByMe = self.droppedByMe = self.wasClean = self.createWirelog = False
        self.remoteCloseCode: int | None = None
        self.localCloseReason: str | None = None
        self.autoFragmentSize = 0
        self.txFrameStats: Counter[int] = Counter()
        self._outgoing: asyncio.Queue[tuple[bytes, int]] = asyncio.Queue()
        self._timers: list[asyncio.TimerHandle] = []

    async def hold(self, case: Callable[[Any], Any]) -> tuple[str, str]:
        """Let a case have its way; return what it thinks of the messages, and of the end."""
        self.case = case(self)
        sending = asyncio.create_task(self._send())
        try:
            self.case.onOpen()
            await self.until_ended()
        finally:
            sending.cancel()
            for timer in self._timers:
                timer.cancel()
        self.wasClean = self.closed is not None and self.ended == "eof"
        self.case.onConnectionLost(failedByMe=False)
        return self.case.behavior, self.case.behaviorClose

    async def _send(self) -> None:
        while True:
            await self.write(*await self._outgoing.get())

    def _note(self, frame: Frame) -> None:
        super()._note(frame)
        payload = bytes(frame.data).decode("latin-1")
        match Opcode(frame.opcode):
            case Opcode.TEXT | Opcode.BINARY as opcode:
                self.case.onMessage(payload, opcode is Opcode.BINARY)
            case Opcode.PONG:
                self.case.onPong(payload)
            case Opcode.CLOSE:
                self.remoteCloseCode = None if self.closed == 1005 else self.closed
                if self.state == self.STATE_OPEN:
                    self.state = "closing"
                    self._put(close(self.remoteCloseCode))

    def _put(self, data: bytes, chop: int = 0) -> None:
        self._outgoing.put_nowait((data, chop))

    # What they call -----------------------------------------------------------------------------------------

    def sendFrame(  # noqa: N802
        self,
        opcode: int,
        payload: str = "",
        *,
        fin: bool = True,
        rsv: int = 0,
        payload_len: int | None = None,
        chopsize: int | None = None,
        sync: bool = False,
    ) -> None:
        """Send a frame; a payload is repeated up to a length."""
        content = payload.encode("latin-1")
        if payload_len is not None:
            content = (content * (payload_len // len(content) + 1))[:payload_len]
        data = frame(opcode, content, fin=fin, rsv=rsv)
        self._put(data, chopsize or (len(data) if sync else 0))

    def sendMessage(self, payload: str, isBinary: bool = False, fragmentSize: int = 0) -> None:  # noqa: N802, N803
        """Send a message, in fragments of a size."""
        content = payload.encode("latin-1")
        parts = cut(content, fragmentSize or self.autoFragmentSize or len(content) or 1) or [b""]
        opcode = Opcode.BINARY if isBinary else Opcode.TEXT
        self.txFrameStats += Counter({opcode.value: 1, Opcode.CONTINUATION.value: len(parts) - 1})
        self._put(b"".join(fragments(opcode, *parts)))

    def beginMessage(self) -> None:  # noqa: N802
        """Begin a message; its frame tells what it is."""

    def beginMessageFrame(self, length: int) -> None:  # noqa: N802
        """Send the header of a frame, with a mask that changes nothing."""
        self._put(bytes((Opcode.TEXT, 0x80 | length)) + bytes(4))

    def sendMessageFrameData(self, payload: str) -> None:  # noqa: N802
        """Send a part of its payload."""
        self._put(payload.encode("latin-1"))

    def endMessage(self) -> None:  # noqa: N802
        """Finish the message with an empty frame."""
        self._put(frame(Opcode.CONTINUATION))

    def sendClose(self, code: int | None = None, reason: str = "") -> None:  # noqa: N802
        """Send a close frame, unless there was one."""
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code, reason)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: str = "") -> None:  # noqa: N802, N803
        """Send a close frame, whatever it carries."""
        self.closedByMe, self.state = True, "closing"
        self._put(close(code, reasonUtf8.encode("latin-1")))

    def continueLater(self, delay: float, act: Callable[[], None], _tag: str = "") -> None:  # noqa: N802
        """Go on after some seconds."""
        self._timers.append(asyncio.get_running_loop().call_later(delay, act))

    def killAfter(self, delay: float) -> None:  # noqa: N802
        """Give up after some seconds: the server should have ended the connection."""
        self.continueLater(delay, self._kill)

    def _kill(self) -> None:
        self.droppedByMe = True
        self._writer.close()

    def closeAfter(self, delay: float) -> None:  # noqa: N802
        """Close after some seconds."""
        self.continueLater(delay, self.sendClose)

    def enableWirelog(self, _: bool) -> None:  # noqa: N802
        """We keep no log."""


def modern(source: str) -> str:
    """Translate what their cases use of Python 2."""
    for old, new in (
        (r"^( *)print\b *(.*)$", r"\1print(\2)"),
        (r"^import binascii$", "import latin1 as binascii"),
        (r"\(object, Case, \)", "(Case, )"),
        (r" / ", " // "),
    ):
        source = re.sub(old, new, source, flags=re.MULTILINE)
    return f"# coding: latin-1\nxrange, unichr = range, chr\n{source}"


def translated(package: Path, folder: Path) -> Iterator[type]:
    """Translate their cases into a folder, and import them from there."""
    sys.modules |= {
        "autobahn": ModuleType("autobahn"),
        "autobahn.websocket": ModuleType("autobahn.websocket"),
        "autobahn.websocket.protocol": _module(WebSocketProtocol=Conversation),
        "autobahn.websocket.utf8validator": _module(Utf8Validator=_Validator),
        "latin1": _module(b2a_hex=lambda text: text.encode("latin-1").hex()),
    }
    files = [path for path in sorted(package.glob("case*.py")) if SECTIONS.match(path.name)]
    for path in [package / "case.py", *files]:
        (folder / path.name).write_text(modern(path.read_text("latin-1")), "latin-1")
    sys.path.insert(0, str(folder))
    for path in files:
        # This one never ends, and they do not run it either.
        if path.stem != "case9_9_1":
            for value in vars(importlib.import_module(path.stem)).values():
                for each in value if isinstance(value, list) else [value]:
                    if isinstance(each, type) and NAME.fullmatch(each.__name__):
                        yield each


def _module(**names: object) -> ModuleType:
    module = ModuleType("autobahn")
    vars(module).update(names)
    return module


class _Validator:
    def reset(self) -> None:
        pass

    def validate(self, text: str) -> tuple[bool, bool]:
        valid = is_utf8(text.encode("latin-1"))
        return valid, valid


async def judged(cases: dict[str, type]) -> dict[str, tuple[str, str]]:
    """Run their cases against the echoing server."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(case: type, server: Running) -> tuple[str, str]:
        async with slots, connected(server, Conversation) as conversation:
            return await conversation.hold(case)

    async with serving(EchoSocket, max_frame_bytes=LIMIT) as server:
        verdicts = await asyncio.gather(*(one(case, server) for case in cases.values()))
        return dict(zip(cases, verdicts, strict=True))


def main() -> int:
    """Run their cases and ours, and tell where their verdict is another one."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(sys.argv[1]) / "autobahntestsuite" / "case"
        classes = {each.__name__[4:].replace("_", "."): each for each in translated(package, Path(folder))}
        theirs = uvloop.run(judged(classes))
    ours = {result.case.number: str(result.verdict) for result in uvloop.run(run())}
    wrong = [f"{number} is not among {who}" for who, number in _missing(set(theirs))]
    for number, (behavior, end) in theirs.items():
        if (behavior, end) != ("OK", "OK"):
            print(f"{number:8} {behavior}, closed: {end}")
        if behavior != ours.get(number) or end not in ("OK", "INFORMATIONAL"):
            wrong.append(f"{number}: {behavior}, closed {end}; here {ours.get(number)}")
    print(*wrong, sep="\n")
    counts = Counter(behavior for behavior, _ in theirs.values())
    print(f"{len(theirs)} original cases: {dict(counts)}, {time.monotonic() - started:.0f} s")
    return bool(wrong)


def _missing(theirs: set[str]) -> Iterator[tuple[str, str]]:
    mine = {case.number for case in CASES}
    yield from (("the original cases", number) for number in sorted(mine - theirs))
    yield from (("ours", number) for number in sorted(theirs - mine))


if __name__ == "__main__":
    sys.exit(main())
