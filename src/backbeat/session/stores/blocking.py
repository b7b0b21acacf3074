"""A place that is read and written by calls that block, and by several processes."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from backbeat.session.stores.store import SessionStore

if TYPE_CHECKING:
    from backbeat.session.stores.lock import FileLock

__all__ = ["BlockingStore"]

P = ParamSpec("P")
T = TypeVar("T")


class BlockingStore(SessionStore):
    """Keeps a session with calls that block, in a thread, behind a lock that processes share.

    Args:
        writing: held by whoever reads, compares and writes.
        asking: held by whoever asks for new tokens.
        interval: seconds between two looks at whether another process has changed something.
    """

    def __init__(self, *, writing: FileLock, asking: FileLock, interval: float) -> None:
        self._writing = writing
        self._asking = asking
        self._interval = interval

    async def get(self) -> bytes | None:
        """Read what is kept.

        Raises:
            StoreError: it cannot be read.
        """
        return await in_thread(self._read)

    async def compare_and_set(self, expected: bytes | None, content: bytes | None) -> bool:
        """Replace what is kept, if it is still what the caller believes.

        Raises:
            StoreError: it cannot be written; what was there is still there.
        """
        return await in_thread(self._compare_and_set, expected, content)

    async def set_aside(self, content: bytes) -> str | None:
        """Move what cannot be read, if it is still there, to a place named after what it holds.

        Raises:
            StoreError: it cannot be moved.
        """
        return await in_thread(self._set_aside, content)

    async def watch(self) -> AsyncIterator[None]:
        """Say so at first, and each time that something else is there."""
        seen: object = ...
        while True:
            signature = await in_thread(self._signature)
            if signature != seen:
                seen = signature
                yield
            await asyncio.sleep(self._interval)

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Let one process ask for new tokens."""
        return self._asking.held_by_task()

    # In a thread --------------------------------------------------------------------------------------------

    def _compare_and_set(self, expected: bytes | None, content: bytes | None) -> bool:
        with self._writing.held():
            if self._read() != expected:
                return False
            self._write(content)
            return True

    def _set_aside(self, content: bytes) -> str | None:
        with self._writing.held():
            return self._move(content) if self._read() == content else None

    @abstractmethod
    def _read(self) -> bytes | None:
        """Read what is kept."""

    @abstractmethod
    def _write(self, content: bytes | None) -> None:
        """Keep something else, or nothing; to remove nothing is no mistake."""

    @abstractmethod
    def _move(self, content: bytes) -> str:
        """Take away what is kept, which is this; returns where it is."""

    @abstractmethod
    def _signature(self) -> object:
        """Something that differs when what is kept differs."""


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run something that blocks in a thread, and never walk away from it half done.

    A thread cannot be cancelled. If its caller is, the cancellation travels on when the thread has ended:
    whoever awaits the end of the task knows that nothing is written afterwards.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from running.exception()
    return running.result()
