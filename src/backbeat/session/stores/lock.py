"""A lock between processes, and between whoever shares one."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from backbeat.errors import Retry, StoreError

__all__ = ["FileLock"]

PAUSE: Final = 0.02
"""Seconds between two tries. The kernel could wait for us, but nobody could cancel that."""


class FileLock:
    """An advisory lock on a file, which says nothing and stays where it is.

    `flock(2)` belongs to an open file and not to a process, so two locks on one path exclude each other also
    within a process; and the kernel lets go of it when the process dies.

    Args:
        path: the file; made when it is first locked, readable by its owner alone.
        patience: seconds to wait for it.
    """

    def __init__(self, path: Path, *, patience: float) -> None:
        self._path = path
        self._patience = patience

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock in a thread that may block.

        Raises:
            StoreError: it could not be taken in time, or not at all.
        """
        file = self._open()
        try:
            deadline = time.monotonic() + self._patience
            while not self._taken(file, deadline):
                time.sleep(PAUSE)
            yield
        finally:
            os.close(file)

    @asynccontextmanager
    async def held_by_task(self) -> AsyncIterator[None]:
        """Hold the lock in a task, which may be cancelled.

        Raises:
            StoreError: it could not be taken in time, or not at all.
        """
        file = self._open()
        try:
            deadline = time.monotonic() + self._patience
            while True:
                if self._taken(file, deadline):
                    break
                await asyncio.sleep(PAUSE)
            yield
        finally:
            os.close(file)

    def _open(self) -> int:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(
                f"The lock file {self._path} cannot be used: {error.strerror}.",
                hint="Check that the folder exists, and that this user may write there.",
            ) from error

    def _taken(self, file: int, deadline: float) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                return False
            raise StoreError(
                f"Another process has held the lock {self._path} for {self._patience:g} s.",
                hint=f"Find it with `fuser {self._path}`: it may be stopped, or stuck.",
                retry=Retry.BACKOFF,
            ) from None
        return True
