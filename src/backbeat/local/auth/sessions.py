"""Sessions: what an access token says, which refresh token follows which, when a spent one still counts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec

from backbeat.local.auth import errors
from backbeat.local.auth.users import User
from backbeat.tokens.verifier import sign

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "REUSE_WINDOW",
    "LogoutScope",
    "RefreshToken",
    "Session",
    "SessionAnswer",
    "Spending",
    "Subject",
    "access_claims",
    "first_refresh_token",
    "next_refresh_token",
    "session_answer",
    "spend",
    "subject_of",
    "token_hash",
]

REUSE_WINDOW: Final = timedelta(seconds=10)
"""How long a spent refresh token yields the session's current state: two tabs refresh at the same time."""

AUDIENCE: Final = "authenticated"
REFRESH_TOKEN_BYTES: Final = 24


class LogoutScope(Enum):
    """Which sessions of the user a sign-out ends."""

    GLOBAL = "global"
    LOCAL = "local"
    OTHERS = "others"


class Spending(Enum):
    """What it means that a refresh token is presented."""

    FRESH = "fresh"
    """It is the session's current one: spend it."""

    REPEATED = "repeated"
    """It was spent a moment ago: answer with the session's current state."""

    REPLAYED = "replayed"
    """It was spent long ago, so two parties hold it: end the session."""


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in of one user.

    Attributes:
        id: the claim `session_id` of its access tokens.
        user_id: whose it is.
        method: how the user signed in: `password` or `anonymous`.
        created_at: when.
    """

    id: UUID
    user_id: UUID
    method: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token of a live session, as the database knows it.

    Attributes:
        session: the session it continues.
        used_at: when it was spent, or None for the session's current one.
    """

    session: Session
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom an access token speaks for.

    Attributes:
        user_id: the claim `sub`.
        session_id: the claim `session_id`, or None in a token minted elsewhere.
    """

    user_id: UUID
    session_id: UUID | None


class SessionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a sign-up, a sign-in and a refresh (section 4.2)."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105
    expires_in: int
    expires_at: int
    refresh_token: str
    user: User

    def __repr__(self) -> str:
        return f"<SessionAnswer user={self.user.id}>"


def subject_of(claims: Mapping[str, Any]) -> Subject:
    """Read the user and the session out of verified claims.

    Raises:
        TokenRefused: the token speaks for no user of this project: an API key, or a foreign one.
    """
    sub = claims.get("sub")
    if not isinstance(sub, str) or not sub:
        raise errors.BAD_CLAIM.refusal(detail="missing sub claim")
    audience = claims.get("aud")
    if audience != AUDIENCE and not (isinstance(audience, list) and AUDIENCE in audience):
        raise errors.BAD_CLAIM.refusal(detail=f"aud claim must be {AUDIENCE}")
    session_id = claims.get("session_id")
    return Subject(_uuid(sub, "sub"), _uuid(session_id, "session_id") if session_id else None)


def access_claims(
    user: User, session: Session, *, issuer: str, lifetime: int, now: datetime
) -> dict[str, Any]:
    """Say what an access token of a session says (section 4.2).

    Args:
        user: the user as of now.
        session: the session.
        issuer: the URL of the auth service.
        lifetime: how long the token is good, in seconds.
        now: the moment of issue.
    """
    issued = int(now.timestamp())
    return {
        "iss": issuer,
        "sub": str(user.id),
        "aud": AUDIENCE,
        "exp": issued + lifetime,
        "iat": issued,
        "email": user.email,
        "phone": user.phone,
        "app_metadata": user.app_metadata,
        "user_metadata": user.user_metadata,
        "role": user.role,
        "aal": "aal1",
        "amr": [{"method": session.method, "timestamp": int(session.created_at.timestamp())}],
        "session_id": str(session.id),
        "is_anonymous": user.is_anonymous,
    }


def session_answer(
    user: User,
    session: Session,
    refresh_token: str,
    *,
    secret: str,
    issuer: str,
    lifetime: int,
    now: datetime,
) -> SessionAnswer:
    """Sign a new access token and put the answer together.

    Args:
        user: the user as of now.
        session: the session.
        refresh_token: the session's current one.
        secret: the project's JWT secret.
        issuer: the URL of the auth service.
        lifetime: how long the access token is good, in seconds.
        now: the moment of issue.
    """
    claims = access_claims(user, session, issuer=issuer, lifetime=lifetime, now=now)
    return SessionAnswer(
        access_token=sign(claims, secret),
        expires_in=lifetime,
        expires_at=claims["exp"],
        refresh_token=refresh_token,
        user=user,
    )


def spend(used_at: datetime | None, now: datetime) -> Spending:
    """Judge a refresh token that is presented (section 4.5).

    Args:
        used_at: when it was spent before, or None.
        now: the moment it is presented.
    """
    if used_at is None:
        return Spending.FRESH
    return Spending.REPEATED if now - used_at <= REUSE_WINDOW else Spending.REPLAYED


def first_refresh_token() -> str:
    """Make the refresh token of a new session: 192 random bits."""
    return secrets.token_urlsafe(REFRESH_TOKEN_BYTES)


def next_refresh_token(token: str, secret: str) -> str:
    """Make the refresh token that follows another.

    It is derived, not drawn: the database keeps only hashes, and yet two tabs that present the same token
    must be told the same successor. Without the project's secret nobody can follow the chain.

    Args:
        token: the one being spent.
        secret: the project's JWT secret.
    """
    digest = hmac.digest(secret.encode(), f"backbeat refresh token after {token}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest[:REFRESH_TOKEN_BYTES]).decode()


def token_hash(token: str) -> bytes:
    """Hash a refresh token for storage. It has enough randomness to need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).digest()


def _uuid(value: object, claim: str) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise errors.BAD_CLAIM.refusal(detail=f"{claim} claim must be a UUID") from None
