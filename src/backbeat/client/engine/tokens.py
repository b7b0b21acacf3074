"""The token in use, and where it came from (client specification, section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from backbeat.tokens.claims import fingerprint
from backbeat.tokens.unverified import moment, read_claims

__all__ = ["AuthState", "ResolvedToken", "Source"]


class Source(Enum):
    """Where a token came from. A value whose source is unknown cannot be debugged."""

    NONE = "none"
    """There is no token: servers go by the API key."""

    STATIC = "static"
    """The token the client was made with."""

    PROVIDER = "provider"
    """A function or an object that is asked for tokens."""

    MANUAL = "manual"
    """`set_auth(token)`."""


@dataclass(frozen=True, slots=True)
class ResolvedToken:
    """A token as it is used; its claims are unverified, and serve timers and explanations only.

    Attributes:
        value: the token.
        source: where it came from.
        fetched_at: when, in seconds since the epoch.
        is_jwt: whether it looks like one.
        role: the claim, or an empty string.
        sub: the user's id, or an empty string.
        expires_at: when it ends, in seconds since the epoch, if it says so.
    """

    value: str = field(repr=False)
    source: Source
    fetched_at: float
    is_jwt: bool = False
    role: str = ""
    sub: str = ""
    expires_at: float | None = None

    @classmethod
    def of(cls, value: str, source: Source, *, now: float) -> ResolvedToken:
        """Look at a token.

        Args:
            value: the token.
            source: where it came from.
            now: seconds since the epoch.
        """
        claims = read_claims(value)

        def text(name: str) -> str:
            found: Any = None if claims is None else claims.get(name)
            return found if isinstance(found, str) else ""

        return cls(value, source, now, claims is not None, text("role"), text("sub"), moment(claims, "exp"))

    @property
    def fingerprint(self) -> str:
        """Names the token without telling it."""
        return fingerprint(self.value)

    def is_expired(self, now: float) -> bool:
        """Whether it has ended.

        Args:
            now: seconds since the epoch.
        """
        return self.expires_at is not None and self.expires_at <= now

    def same_identity(self, other: ResolvedToken) -> bool:
        """Whether both say they are the same user, acting as the same role."""
        return (self.is_jwt, self.sub, self.role) == (other.is_jwt, other.sub, other.role)

    def describe(self, now: float) -> str:
        """Say which token this is, for a hint or a log: never the token itself.

        Args:
            now: seconds since the epoch.
        """
        if not self.is_jwt:
            return f"{self.source.value} token {self.fingerprint}, which is no JWT"
        if self.expires_at is None:
            expiry = "no expiry"
        elif self.is_expired(now):
            expiry = f"expired {now - self.expires_at:.0f} s ago"
        else:
            expiry = f"expires in {self.expires_at - now:.0f} s"
        user = "a user" if self.sub else "no user"
        return f"{self.source.value} token {self.fingerprint} (role {self.role or 'none'}, {user}, {expiry})"


@dataclass(frozen=True, slots=True)
class AuthState:
    """What is known about the token in use. Holds no token.

    Attributes:
        source: where the token comes from.
        fingerprint: which one it is; empty for none.
        pinned: whether it was given to `set_auth`, and stays until told otherwise.
        role: its role, unverified.
        sub: the user's id, unverified.
        expires_at: when it ends, in seconds since the epoch, if it says so.
        pending: whether the token source is being asked.
        signed_out: whether it is known that nobody is signed in.
        last_error: why the token source did not answer the last time; None if it did.
    """

    source: Source
    fingerprint: str
    pinned: bool
    role: str
    sub: str
    expires_at: float | None
    pending: bool
    signed_out: bool
    last_error: Exception | None
