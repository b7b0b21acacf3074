"""What a place that keeps a session has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from backbeat.tokens.claims import fingerprint

__all__ = ["SessionStore", "unreadable"]


class SessionStore(ABC):
    """Keeps the written form of one session, for one program or for several at once.

    A store knows nothing of sessions: it keeps bytes. Every method may raise `StoreError` when the place
    cannot be used at all; what is kept there is never a reason to raise.
    """

    @abstractmethod
    async def get(self) -> bytes | None:
        """Read what is kept; None if nothing is."""

    @abstractmethod
    async def compare_and_set(self, expected: bytes | None, content: bytes | None) -> bool:
        """Replace what is kept, if it is still what the caller believes. Nobody else gets in between.

        Args:
            expected: what the caller read; None for nothing.
            content: what to keep from now on; None for nothing.

        Returns:
            Whether it was replaced.
        """

    @abstractmethod
    async def set_aside(self, content: bytes) -> str | None:
        """Take away what cannot be read, and keep a copy of it elsewhere.

        Args:
            content: what the caller read.

        Returns:
            Where the copy is; None when something else is kept there by now.
        """

    @abstractmethod
    def watch(self) -> AsyncIterator[None]:
        """Say so once at first, then each time that something else may be kept, whoever put it there."""

    @abstractmethod
    def alone(self) -> AbstractAsyncContextManager[None]:
        """Let one of all those who share the store do something: ask for new tokens.

        Nothing here waits for it but others who want the same: sessions are read, saved and cleared
        meanwhile. Whoever dies in it is out of it.
        """

    async def set(self, content: bytes) -> None:
        """Keep this, whatever is there."""
        while not await self.compare_and_set(await self.get(), content):
            pass

    async def delete(self) -> None:
        """Keep nothing any more."""
        while not await self.compare_and_set(await self.get(), None):
            pass


def unreadable(content: bytes) -> str:
    """Name a copy of something that cannot be read; the same thing has the same name."""
    return f"unreadable-{fingerprint(content.decode('latin-1'))}"
