"""A session that ends with the program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from backbeat.session.stores.store import SessionStore

__all__ = ["MemoryStore"]


class MemoryStore(SessionStore):
    """Keeps a session in memory. Several managers of one event loop may share it.

    Attributes:
        aside: what was set aside, the latest last.
    """

    def __init__(self) -> None:
        self.aside: list[bytes] = []
        self._content: bytes | None = None
        self._changes: set[asyncio.Event] = set()
        self._alone = asyncio.Lock()

    async def get(self) -> bytes | None:
        """Read what is kept."""
        return self._content

    async def compare_and_set(self, expected: bytes | None, content: bytes | None) -> bool:
        """Replace what is kept, if it is still what the caller believes."""
        if self._content != expected:
            return False
        self._content = content
        for changed in self._changes:
            changed.set()
        return True

    async def set_aside(self, content: bytes) -> str | None:
        """Move what cannot be read to `aside`."""
        if not await self.compare_and_set(content, None):
            return None
        self.aside.append(content)
        return "memory"

    async def watch(self) -> AsyncIterator[None]:
        """Say so after each change."""
        changed = asyncio.Event()
        changed.set()
        self._changes.add(changed)
        try:
            while True:
                await changed.wait()
                changed.clear()
                yield
        finally:
            self._changes.discard(changed)

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Let one manager of the loop ask for new tokens."""
        return self._alone
