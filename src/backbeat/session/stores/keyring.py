"""A session in the keyring of the operating system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backbeat.errors import ConfigurationError, StoreError
from backbeat.session.stores.blocking import BlockingStore
from backbeat.session.stores.lock import FileLock
from backbeat.session.stores.store import unreadable
from backbeat.tokens.claims import fingerprint

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

__all__ = ["KeyringStore"]

WRITE_PATIENCE: Final = 30.0
"""Seconds to wait for another process that reads, compares and writes: its user may have to unlock it."""

ALONE_PATIENCE: Final = 60.0


class KeyringStore(BlockingStore):
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
        name = fingerprint(f"{service}\0{account}")
        folder = locks or _own_folder()
        super().__init__(
            writing=FileLock(folder / f"keyring-{name}.lock", patience=WRITE_PATIENCE),
            asking=FileLock(folder / f"keyring-{name}.refresh", patience=ALONE_PATIENCE),
            interval=interval,
        )

    def __repr__(self) -> str:
        return f"KeyringStore({self._service!r}, {self._account!r})"

    def _read(self) -> bytes | None:
        with self._explained():
            text = self._keyring.get_password(self._service, self._account)
        return None if text is None else text.encode("utf-8", "surrogatepass")

    def _write(self, content: bytes | None) -> None:
        with self._explained():
            if content is not None:
                self._keyring.set_password(self._service, self._account, content.decode())
            elif self._keyring.get_password(self._service, self._account) is not None:
                self._keyring.delete_password(self._service, self._account)

    def _move(self, content: bytes) -> str:
        account = f"{self._account}.{unreadable(content)}"
        with self._explained():
            self._keyring.set_password(self._service, account, content.decode("utf-8", "surrogatepass"))
            self._keyring.delete_password(self._service, self._account)
        return f"{self._service}, {account}"

    def _signature(self) -> bytes | None:
        return self._read()

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
