"""The certificate of the port: a wrong one is told before anything starts, a renewed one is read later."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final, Self

import structlog

from backbeat.errors import ConfigurationError, StartError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificate"]

log = structlog.get_logger("backbeat.tls")

LOOK_INTERVAL: Final = 60.0
"""Seconds between looks whether the files have changed."""


class Certificate:
    """A certificate and its key, and what speaks TLS 1.2 and 1.3 with them.

    Args:
        certificate: a PEM file with the certificate, and behind it those that lead to a known authority.
        key: a PEM file with its private key; without a password, for nobody is there to type one.

    Raises:
        StartError: one of the files cannot be read, or they do not belong together.

    Attributes:
        context: for handshakes from now on; another one when the files have changed.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._read_at = self._state()
        self.context = _context(certificate, key)

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None) -> Self | None:
        """Read what the command line names; None without either.

        Raises:
            ConfigurationError: only one of them was given.
            StartError: one of the files cannot be read, or they do not belong together.
        """
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            missing = "--tls-cert" if certificate is None else "--tls-key"
            raise ConfigurationError(
                "TLS needs a certificate and its key.", hint=f"Give {missing} too, or neither of them."
            )
        return cls(certificate, key)

    def __repr__(self) -> str:
        return f"<Certificate {self._certificate}>"

    async def follow(self) -> None:
        """Read the files again whenever they change, until cancelled; of wrong ones the old content stays."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            try:
                renewed = self.refresh()
            except StartError as error:
                log.warning("certificate not renewed", reason=error.message, hint=error.hint)
            else:
                if renewed:
                    log.info("certificate renewed", path=str(self._certificate))

    def refresh(self) -> bool:
        """Read the files again if they have changed since the last look; tell whether they had.

        Raises:
            StartError: they are wrong now. They are looked at again when they have changed once more.
        """
        state = self._state()
        if state == self._read_at:
            return False
        # Before they are read: what is written meanwhile is another change.
        self._read_at = state
        self.context = _context(self._certificate, self._key)
        return True

    def _state(self) -> list[tuple[int, ...] | None]:
        return [_version(self._certificate), _version(self._key)]


def _version(path: Path) -> tuple[int, ...] | None:
    """What tells one content of a file from the next; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    for flag, path in (("--tls-cert", certificate), ("--tls-key", key)):
        _readable(path, flag)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_refuse_to_ask)
    except _Encrypted:
        raise StartError(
            f"The key in {key} is protected by a password.",
            hint="Give --tls-key a file without one, which only the server may read.",
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise StartError(
                f"The certificate in {certificate} was not made for the key in {key}.",
                hint="Check --tls-cert and --tls-key. The server's own certificate comes first in its file.",
            ) from error
        raise StartError(
            f"The files {certificate} and {key} are no certificate and key: {error.reason or error}.",
            hint="Check --tls-cert and --tls-key: both are PEM files, which begin with -----BEGIN.",
        ) from error
    return context


class _Encrypted(Exception):
    """OpenSSL asks for a password."""


def _refuse_to_ask() -> str:
    raise _Encrypted


def _readable(path: Path, flag: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise StartError(f"Cannot read {path}: {error.strerror}.", hint=f"Check {flag}.") from error
