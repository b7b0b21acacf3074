"""A session in the keyring of the operating system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backbeat.errors import ConfigurationError, StoreError
from backbeat.session.stores.lock import FileLock
from backbeat.session.stores.store import SessionStore, in_thread, unreadable
from backbeat.tokens.claims import fingerprint

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

__all__ = ["KeyringStore"]

WRITE_PATIENCE: Final = 30.0
"""Seconds to wait for another process that reads, compares and writes: its user may have to unlock it."""

ALONE_PATIENCE: Final = 60.0


class KeyringStore(SessionStore):
    """Keeps a session in the keyring: Keychain, Secret Service, KWallet.

    It needs `pip install 'backbeat[keyring]'`. Keyrings cannot compare before they set, so those who share
    one also share two lock files.

    Args:
        service: the name that the keyring shows to its user, such as that of the program.
        account: which of the program's sessions it is.
        backend: another keyring than that of the system.
        interval: seconds between two looks at whether another process has changed it.
        locks: a folder for the lock files; by default one of this user's own.

    Raises:
        ConfigurationError: the library is not installed.
    """

    def __init__(
        self,
        service: str,
        account: str = "session",
        *,
        backend: KeyringBackend | None = None,
        interval: float = 2.0,
        locks: Path | None = None,
    ) -> None:
        try:
            import keyring  # noqa: PLC0415 - an extra
            import keyring.errors  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(
                "The keyring of the system needs a library that is not installed.",
                hint="Run: pip install 'backbeat[keyring]'",
            ) from error
        self._keyring = backend or keyring.get_keyring()
        self._error = keyring.errors.KeyringError
        self._service = service
        self._account = account
        self._interval = interval
        name = fingerprint(f"{service}\0{account}")
        folder = locks or _own_folder()
        self._writing = FileLock(folder / f"keyring-{name}.lock", patience=WRITE_PATIENCE)
        self._asking = FileLock(folder / f"keyring-{name}.refresh", patience=ALONE_PATIENCE)

    def __repr__(self) -> str:
        return f"KeyringStore({self._service!r}, {self._account!r})"

    async def get(self) -> bytes | None:
        """Read the entry.

        Raises:
            StoreError: the keyring is locked, or there is none.
        """
        return await in_thread(self._read)

    async def compare_and_set(self, expected: bytes | None, content: bytes | None) -> bool:
        """Replace or remove the entry, if it is still what the caller believes.

        Raises:
            StoreError: the keyring is locked, or there is none.
        """
        return await in_thread(self._compare_and_set, expected, content)

    async def set_aside(self, content: bytes) -> str | None:
        """Move the entry to an account with the fingerprint of what it holds.

        Raises:
            StoreError: the keyring is locked, or there is none.
        """
        return await in_thread(self._set_aside, content)

    async def watch(self) -> AsyncIterator[None]:
        """Say so each time that the entry differs.

        Raises:
            StoreError: the keyring is locked, or there is none.
        """
        seen: object = ...
        while True:
            content = await self.get()
            if content != seen:
                seen = content
                yield
            await asyncio.sleep(self._interval)

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Let one process ask for new tokens."""
        return self._asking.held_by_task()

    # In a thread --------------------------------------------------------------------------------------------

    def _read(self) -> bytes | None:
        with self._explained():
            text = self._keyring.get_password(self._service, self._account)
        return None if text is None else text.encode("utf-8", "surrogatepass")

    def _write(self, content: bytes | None) -> None:
        with self._explained():
            if content is None:
                self._keyring.delete_password(self._service, self._account)
            else:
                self._keyring.set_password(self._service, self._account, content.decode())

    def _compare_and_set(self, expected: bytes | None, content: bytes | None) -> bool:
        with self._writing.held():
            if self._read() != expected:
                return False
            if content != expected:
                self._write(content)
            return True

    def _set_aside(self, content: bytes) -> str | None:
        with self._writing.held():
            if self._read() != content:
                return None
            account = f"{self._account}.{unreadable(content)}"
            with self._explained():
                text = content.decode("utf-8", "surrogatepass")
                self._keyring.set_password(self._service, account, text)
            self._write(None)
            return f"{self._service}, {account}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise StoreError(
                f"The keyring cannot be used: {type(error).__name__}.",
                hint="Unlock it; where there is no keyring, as on a server, use a FileStore.",
            ) from error


def _own_folder() -> Path:
    """A folder that no other user can write to."""
    base = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "backbeat"
