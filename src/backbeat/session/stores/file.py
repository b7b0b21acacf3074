"""A session in a file."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from backbeat.errors import StoreError
from backbeat.session.session import MAX_BYTES
from backbeat.session.stores.blocking import BlockingStore
from backbeat.session.stores.lock import FileLock
from backbeat.session.stores.store import unreadable

__all__ = ["FileStore"]

log = logging.getLogger("backbeat.session")

WRITE_PATIENCE: Final = 10.0
"""Seconds to wait for another process that reads, compares and writes: a matter of milliseconds."""

ALONE_PATIENCE: Final = 60.0
"""Seconds to wait for another process that asks for new tokens: it may try for half a minute and more."""


class FileStore(BlockingStore):
    """Keeps a session in a file that Supabase clients can read, too: the JSON of the session, nothing else.

    The file is readable by its owner alone. It is replaced as a whole, and is on the disk before anybody is
    told. Beside it lie two empty lock files, and what had to be set aside.

    Args:
        path: the file; `~` is understood, and folders on the way to it are made.
        interval: seconds between two looks at whether another process has changed it.
    """

    def __init__(self, path: str | os.PathLike[str], *, interval: float = 0.5) -> None:
        # Through a symbolic link, so that what is replaced is the file, and not the link.
        self.path = Path(os.path.realpath(Path(path).expanduser()))
        self._new = self._beside("new")
        super().__init__(
            writing=FileLock(self._beside("lock"), patience=WRITE_PATIENCE),
            asking=FileLock(self._beside("refresh"), patience=ALONE_PATIENCE),
            interval=interval,
        )

    def __repr__(self) -> str:
        return f"FileStore({str(self.path)!r})"

    def _beside(self, purpose: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{purpose}")

    def _read(self) -> bytes | None:
        with self._explained("read"), suppress(FileNotFoundError), self.path.open("rb") as file:
            self._keep_private(file.fileno())
            # One byte more than is allowed: a reader can tell that it is too large.
            return file.read(MAX_BYTES + 1)
        return None

    def _keep_private(self, file: int) -> None:
        status = os.fstat(file)
        if stat.S_IMODE(status.st_mode) & 0o077 and status.st_uid == os.geteuid():
            os.fchmod(file, 0o600)
            log.warning("the session file %s could be read by others; it cannot any more", self.path)

    def _write(self, content: bytes | None) -> None:
        with self._explained("written"):
            if content is None:
                self._remove()
            else:
                self._replace(content)

    def _replace(self, content: bytes) -> None:
        # Always the same name: what a process leaves behind that dies in here, the next one removes.
        self._new.unlink(missing_ok=True)
        file = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(file, "wb") as opened:  # noqa: PTH123 - a descriptor, which no path opens
                opened.write(content)
                opened.flush()
                os.fsync(file)
            self._new.replace(self.path)
        except BaseException:
            self._new.unlink(missing_ok=True)
            raise
        self._sync_folder()

    def _remove(self) -> None:
        self._new.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self._sync_folder()

    def _move(self, content: bytes) -> str:
        aside = self.path.with_name(f"{self.path.name}.{unreadable(content)}")
        with self._explained("set aside"):
            self.path.replace(aside)
            self._sync_folder()
        return str(aside)

    def _sync_folder(self) -> None:
        # A rename is on the disk when the folder is.
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _signature(self) -> tuple[int, int, int] | None:
        with suppress(OSError):
            status = self.path.stat()
            return status.st_ino, status.st_mtime_ns, status.st_size
        return None

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"The session file {self.path} cannot be {what}: {error.strerror}.",
                hint="Check that it is a file, and that this user may read and write it and its folder.",
            ) from error
