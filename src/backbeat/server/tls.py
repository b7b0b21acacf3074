"""The certificate of the port: read before anything is started, so that a wrong one is a clear message."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from backbeat.errors import ConfigurationError, StartError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["tls_context"]


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Read a certificate and its key.

    Args:
        certificate: a PEM file with the certificate, and behind it those that lead to a known authority.
        key: a PEM file with its private key; without a password, for nobody is there to type one.

    Returns:
        What speaks TLS 1.2 and 1.3 with them; None without either.

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
