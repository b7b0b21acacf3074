"""The code blocks of a page of the documentation, run in their order: what a reader would type."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: where it stands.
        language: what it is written in; empty for what is only shown.
        text: what it says.
        line: how many lines stand before it.
    """

    page: Path
    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, each[1], each[2], text.count("\n", 0, each.start(2))) for each in found]


class Reader:
    """Does what a page shows.

    Python may await, as in `python -m asyncio`, and its names stay for the blocks that follow. SQL is given
    to the database. A `text` block is what the program before it printed.

    Args:
        names: what the page takes for granted, such as `url` and `apikey`.
        sql: runs statements.
        places: what to say instead of what the page says, such as another port.
    """

    def __init__(
        self, names: dict[str, Any], *, sql: Callable[[str], object], places: dict[str, str]
    ) -> None:
        self.names = names
        self._sql = sql
        self._places = places
        self._output = io.StringIO()

    @property
    def printed(self) -> str:
        """What the newest program has printed so far."""
        return self._output.getvalue()

    async def read(self, page: Path) -> int:
        """Run the blocks of a page; return how many programs were among them."""
        programs = 0
        for block in blocks(page):
            if block.language == "python":
                programs += 1
                await self.run(block)
            elif block.language == "sql":
                await asyncio.to_thread(self._sql, block.text)
            elif block.language == "text":
                assert self.printed == block.text, f"{page}, line {block.line}: {self.printed!r}"
        return programs

    async def run(self, block: Block) -> None:
        """Run a program."""
        # Errors name the line of the page.
        source = "\n" * block.line + block.text
        for here, there in self._places.items():
            source = source.replace(here, there)
        code = compile(source, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        self._output = io.StringIO()
        with contextlib.redirect_stdout(self._output):
            if "asyncio.run(" in source:
                await asyncio.to_thread(exec, code, self.names)
            else:
                running = eval(code, self.names)  # noqa: S307 - our own pages
                if inspect.isawaitable(running):
                    await running
