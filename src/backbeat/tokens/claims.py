"""What a verified token says, and which token said it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import msgspec

__all__ = ["Claims", "Token", "TokenSource", "fingerprint"]


FINGERPRINT: Final = 8
"""Hex digits that name a token."""


def fingerprint(token: str) -> str:
    """Name a token without telling it: the first eight hex digits of its SHA-256."""
    return _digest(token).hex()[:FINGERPRINT]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class TokenSource(Enum):
    """Where a token came from. A value whose source is unknown cannot be debugged."""

    API_KEY = "api key"
    USER = "user token"


@dataclass(frozen=True, slots=True)
class Claims:
    """The verified claims of a token.

    Attributes:
        role: the Postgres role to act as.
        exp: when the token ends, in seconds since the epoch.
        sub: the user's id, or an empty string.
        json: the claims as JSON text, as policies see them in `request.jwt.claims`.
    """

    role: str
    exp: float
    sub: str
    json: str = field(repr=False)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Claims:
        """Wrap claims that carry `role` and `exp`."""
        sub = values.get("sub")
        return cls(
            role=str(values["role"]),
            exp=float(values["exp"]),
            sub=sub if isinstance(sub, str) else "",
            json=msgspec.json.encode(values).decode(),
        )

    @property
    def values(self) -> Mapping[str, Any]:
        """All claims. Read anew from the text: thousands are kept, and few are looked into."""
        return msgspec.json.decode(self.json, type=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a verified token: not the token.

    Attributes:
        digest: its SHA-256.
        source: where it came from.
        claims: what it says.
    """

    digest: bytes = field(repr=False)
    source: TokenSource
    claims: Claims

    @classmethod
    def of(cls, value: str, source: TokenSource, claims: Claims) -> Token:
        """Keep what is needed of a verified token.

        Args:
            value: the compact JWT.
            source: where it came from.
            claims: what it says.
        """
        return cls(_digest(value), source, claims)

    def is_from(self, value: str) -> bool:
        """Tell whether this is what was kept of a token.

        Args:
            value: the compact JWT.
        """
        return _digest(value) == self.digest

    def describe(self, now: float) -> str:
        """Say which token this is, for a hint or a log: never the token itself.

        Args:
            now: seconds since the epoch.
        """
        left = self.claims.exp - now
        expiry = f"expires in {left:.0f} s" if left > 0 else f"expired {-left:.0f} s ago"
        return (
            f"Asked with the {self.source.value} {self.digest.hex()[:FINGERPRINT]} "
            f"(role {self.claims.role}, {'a user' if self.claims.sub else 'no user'}, {expiry})."
        )
