"""Lines from standard input, as somebody types them: a terminal shows what is typed where we want it."""

from __future__ import annotations

import asyncio
import codecs
import os
import sys
import termios
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["Keyboard"]

READ_AT_ONCE: Final = 4096
MOST_WAITING: Final = 100
"""Lines read ahead; more stay where they come from until these are taken."""

BACKSPACE: Final = "\x7f\b"
END_OF_INPUT: Final = "\x04"
FORGET_LINE: Final = "\x15"


class Keyboard:
    """Reads lines without blocking the event loop; enter it while the loop runs.

    Args:
        typed: called with the unfinished line when it changes, on a terminal.
    """

    def __init__(self, typed: Callable[[str], None]) -> None:
        self._typed = typed
        self._number = sys.stdin.fileno()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._line = ""
        self._escaped = False
        self._reading = False
        self._ended = False
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(self._number)
            tty.setcbreak(self._number)
        self._read(wanted=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._read(wanted=False)
        if self._before is not None:
            termios.tcsetattr(self._number, termios.TCSADRAIN, self._before)

    async def line(self) -> str | None:
        """The next line, without its end; None when there will be no more."""
        line = await self._lines.get()
        if line is None:
            self._lines.put_nowait(None)
        else:
            self._read(wanted=True)
        return line

    def _read(self, *, wanted: bool) -> None:
        loop = asyncio.get_running_loop()
        if wanted and not self._ended and not self._reading:
            loop.add_reader(self._number, self._readable)
        elif not wanted and self._reading:
            loop.remove_reader(self._number)
        self._reading = wanted and not self._ended

    def _readable(self) -> None:
        content = os.read(self._number, READ_AT_ONCE)
        if not content:
            self._end()
            return
        for character in self._decoder.decode(content):
            self._press(character)
        if self._lines.qsize() >= MOST_WAITING:
            self._read(wanted=False)
        if self._before is not None:
            self._typed(self._line)

    def _press(self, character: str) -> None:
        if self._escaped:
            # An arrow or a function key: ESC, `[` and so on, and a letter or `~`.
            self._escaped = not (character.isalpha() and character != "O") and character != "~"
        elif character in "\r\n":
            self._lines.put_nowait(self._line)
            self._line = ""
        elif character in BACKSPACE:
            self._line = self._line[:-1]
        elif character == FORGET_LINE:
            self._line = ""
        elif character == END_OF_INPUT and not self._line:
            self._end()
        elif character == "\x1b":
            self._escaped = True
        elif character.isprintable():
            self._line += character

    def _end(self) -> None:
        self._ended = True
        self._read(wanted=False)
        self._lines.put_nowait(None)
