"""Which web pages may open sockets: the Origin header that browsers send with every handshake (RFC 6454).

This protects people from pages they did not mean to trust. It keeps nobody out: a program that is no browser
sends what it likes, and a request without an Origin is not from a page.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from backbeat.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Origins"]

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<any>\*\.)?(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?"
)
_DEFAULT_PORT: Final = {"http": "80", "https": "443"}


class Origins:
    """A list of origins.

    Args:
        allowed: origins as browsers send them, `https://app.example.com`, with a port if it is not the
            scheme's own; `https://*.example.com` for all hosts below one; `null` for pages without an origin,
            such as local files; `*` for every page, as does an empty list. A text may name several, between
            commas.

    Raises:
        ConfigurationError: an entry is none of these.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._exact: set[str] = set()
        self._below: list[tuple[str, str]] = []
        entries = [entry.strip().lower().rstrip("/") for one in allowed for entry in one.split(",")]
        self._every = not entries or "*" in entries
        for entry in entries:
            self._add(entry)

    def allow(self, origin: str | None) -> bool:
        """Whether a handshake with this Origin header may go on.

        Args:
            origin: its value; None where there is none, which is not a browser.
        """
        if origin is None or self._every:
            return True
        origin = origin.strip().lower()
        if origin in self._exact:
            return True
        scheme, separator, host = origin.partition("://")
        return bool(separator) and any(
            scheme == wanted and host.endswith(parent) and len(host) > len(parent)
            for wanted, parent in self._below
            if _ORIGIN.fullmatch(origin)
        )

    def _add(self, entry: str) -> None:
        if entry in ("*", "null"):
            self._exact.add(entry)
            return
        parts = _ORIGIN.fullmatch(entry)
        if parts is None:
            raise ConfigurationError(
                f"The setting allowed_origins has an entry that is no origin: {entry}",
                hint="Write scheme, host and port: https://app.example.com, https://*.example.com, "
                "http://localhost:5173.",
            )
        port = parts["port"] if parts["port"] != _DEFAULT_PORT.get(parts["scheme"]) else None
        host = f"{parts['host']}:{port}" if port else parts["host"]
        if parts["any"]:
            self._below.append((parts["scheme"], f".{host}"))
        else:
            self._exact.add(f"{parts['scheme']}://{host}")
