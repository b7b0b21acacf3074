"""The code blocks of a page of the documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: where it stands.
        line: how many lines stand before it.
        language: what it is written in; empty for what is only shown.
        text: what it says.
    """

    page: Path
    line: int
    language: str
    text: str

    def compiled(self, places: Mapping[str, str] | None = None) -> CodeType:
        """A program, compiled; it may await. Errors name the line of the page.

        Args:
            places: what to say instead of what the page says, such as another port.
        """
        source = "\n" * self.line + self.text
        for here, there in (places or {}).items():
            source = source.replace(here, there)
        code: CodeType = compile(source, self.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return code


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text.count("\n", 0, each.start(2)), each[1], each[2]) for each in found]


def examples(page: Path) -> list[CodeType]:
    """What a page shows in Python, compiled."""
    return [block.compiled() for block in blocks(page) if block.language == "python"]
