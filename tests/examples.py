"""The examples of a page of the documentation."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import CodeType


def examples(page: Path) -> list[CodeType]:
    """What a page shows in Python, compiled; it may await. Errors name the line of the page."""
    text = page.read_text()
    found = []
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        source = "\n" * text.count("\n", 0, match.start(1)) + match[1]
        found.append(compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
    return found
