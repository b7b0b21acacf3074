"""What a verified token says, and which token said it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

__all__ = ["Claims", "Token", "TokenSource", "fingerprint"]


def fingerprint(token: str) -> str:
    """Name a token without telling it: the first eight hex digits of its SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()[:8]


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
        values: all claims, as they stood in the token.
        json: the claims as JSON text, as policies see them in `request.jwt.claims`.
    """

    role: str
    exp: float
    sub: str
    values: Mapping[str, Any] = field(repr=False, compare=False)
    json: str = field(repr=False)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Claims:
        """Wrap claims that carry `role` and `exp`."""
        sub = values.get("sub")
        return cls(
            role=str(values["role"]),
            exp=float(values["exp"]),
            sub=sub if isinstance(sub, str) else "",
            values=values,
            json=msgspec.json.encode(values).decode(),
        )


@dataclass(frozen=True, slots=True)
class Token:
    """A verified token together with where it came from."""

    value: str = field(repr=False)
    source: TokenSource
    claims: Claims

    def describe(self, now: float) -> str:
        """Say which token this is, for a hint or a log: never the token itself.

        Args:
            now: seconds since the epoch.
        """
        left = self.claims.exp - now
        expiry = f"expires in {left:.0f} s" if left > 0 else f"expired {-left:.0f} s ago"
        return (
            f"Asked with the {self.source.value} {fingerprint(self.value)} "
            f"(role {self.claims.role}, {'a user' if self.claims.sub else 'no user'}, {expiry})."
        )
