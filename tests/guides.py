"""Somebody who reads a page of the documentation, and types what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.examples import Block, blocks


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
        code = block.compiled(self._places)
        self._output = io.StringIO()
        with contextlib.redirect_stdout(self._output):
            if "asyncio.run(" in block.text:
                await asyncio.to_thread(exec, code, self.names)
            else:
                running = eval(code, self.names)  # noqa: S307 - our own pages
                if inspect.isawaitable(running):
                    await running
