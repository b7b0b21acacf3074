"""What a session is, how it is written down, and what it means when one takes the place of another.

The written form is that of the Supabase clients (section 3.1 of the client specification), to the letter:
what one of them has stored, the other reads. That is why it carries no version and no checksum of ours; a
file that was cut short is no JSON, and told apart by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta, Struct

from backbeat.tokens.claims import fingerprint
from backbeat.tokens.unverified import read_claims

__all__ = ["MAX_BYTES", "AuthChange", "OfflineSession", "Session", "change_between"]

MAX_BYTES: Final = 1 << 20
"""The largest session that is read. Real ones are a few KiB: an access token, and the user as JSON."""

YEAR_9999: Final = 253_402_300_799

Credential = Annotated[str, Meta(pattern=r"^[!-~]+\Z", max_length=MAX_BYTES)]
"""Visible ASCII: whatever else there is could not travel in a header."""

Seconds = Annotated[int, Meta(ge=0, le=YEAR_9999)] | Annotated[float, Meta(ge=0, le=YEAR_9999)]


class AuthChange(StrEnum):
    """What happened to a session. The names are those that Supabase clients use."""

    INITIAL_SESSION = "INITIAL_SESSION"
    """What there was when somebody began to listen: always the first event, once for each listener."""

    SIGNED_IN = "SIGNED_IN"
    """Somebody signed in, here or in another process."""

    TOKEN_REFRESHED = "TOKEN_REFRESHED"  # noqa: S105 - a word, no token
    """The same user has a new access token."""

    USER_UPDATED = "USER_UPDATED"
    """What is known of the user changed."""

    PASSWORD_RECOVERY = "PASSWORD_RECOVERY"  # noqa: S105 - a word, no password
    """Somebody came through a recovery link; only whoever saves such a session says so."""

    MFA_CHALLENGE_VERIFIED = "MFA_CHALLENGE_VERIFIED"
    """A second factor was shown; only whoever saves such a session says so."""

    SIGNED_OUT = "SIGNED_OUT"
    """There is no session any more: once for each that was lost, whoever ended it."""

    REFRESH_FAILED = "REFRESH_FAILED"
    """A refresh did not work; the event has the error, and the session that is left, if any."""

    SET_ASIDE = "SET_ASIDE"
    """What was stored is no session; the event's error says where it was put."""


class _Written(Struct, frozen=True):
    """The fields we understand; others are carried along untouched."""

    access_token: Credential
    refresh_token: Credential
    expires_at: Seconds | None = None
    expires_in: Seconds | None = None
    token_type: str | None = None
    user: dict[str, Any] | None = None


FIELDS: Final = frozenset(_Written.__struct_fields__)


@dataclass(frozen=True, slots=True, repr=False)
class Session:
    """A user who is signed in: an access token, and the refresh token for the next.

    Attributes:
        access_token: the JWT that stands for the user.
        refresh_token: what the next access token is bought with, once.
        expires_at: when the access token ends, in seconds since the epoch, by the clock of the server.
        expires_in: how long it was good when it was issued, in seconds; 0 if nobody said.
        token_type: `bearer`.
        user: the user as the auth service describes them, or empty.
        extra: what else was stored with it, such as `provider_token`.
    """

    offline: ClassVar[bool] = False

    access_token: str
    refresh_token: str
    expires_at: int
    expires_in: int = 0
    token_type: str = "bearer"  # noqa: S105
    user: Mapping[str, Any] = field(default_factory=dict, hash=False)
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return (
            f"<Session of {self.user_id or 'somebody'}, token {fingerprint(self.access_token)}"
            f" until {self.expires_at}>"
        )

    @property
    def user_id(self) -> str:
        """Who it is: the user's `id`, else the token's `sub`, else an empty string."""
        claims = read_claims(self.access_token) or {}
        known = self.user.get("id") or claims.get("sub")
        return known if isinstance(known, str) else ""

    @classmethod
    def of(cls, given: object, *, now: float) -> Session:
        """Take a session from somebody's hands.

        Args:
            given: a session, or a mapping with its fields.
            now: seconds since the epoch, for one that says only how long it is good.

        Raises:
            TypeError: it is neither; the text says what is missing, and never what is there.
        """
        if isinstance(given, Session):
            given = given.fields()
        if not isinstance(given, Mapping):
            hint = " Pass its model_dump(mode='json')." if hasattr(given, "model_dump") else ""
            raise TypeError(
                "A session is a backbeat.session.Session, or a mapping with access_token, refresh_token and"
                f" expires_at; this is of type {type(given).__qualname__}.{hint}"
            )
        try:
            return cls.read(msgspec.json.encode(dict(given)), now=now)
        except (ValueError, RecursionError) as error:
            raise TypeError(f"This is not a session: {error}.") from error

    @classmethod
    def read(cls, content: bytes, *, now: float | None = None) -> Session:
        """Read a session that was written down.

        Args:
            content: JSON text.
            now: seconds since the epoch, for one that says only how long it is good; None if it has to say
                until when.

        Raises:
            ValueError: it is none; the text says why, and never what is in it.
        """
        if len(content) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        try:
            fields = msgspec.json.decode(content, type=dict[str, Any])
            written = msgspec.convert(fields, _Written)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError("it is no JSON, or cut short") from error
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        expires_in, expires_at = int(written.expires_in or 0), written.expires_at
        if expires_at is None:
            if now is None or not expires_in:
                raise ValueError("Object missing required field `expires_at`")
            expires_at = round(now) + expires_in
        return cls(
            access_token=written.access_token,
            refresh_token=written.refresh_token,
            expires_at=int(expires_at),
            expires_in=expires_in,
            token_type=written.token_type or "bearer",
            user=written.user or {},
            extra={name: value for name, value in fields.items() if name not in FIELDS},
        )

    def write(self) -> bytes:
        """Write it down, as the Supabase clients do."""
        return msgspec.json.encode(self.fields())

    def fields(self) -> dict[str, Any]:
        """What is written down. It holds the tokens: not for logs."""
        return {
            "access_token": self.access_token,
            "token_type": self.token_type,
            "expires_in": self.expires_in,
            "expires_at": self.expires_at,
            "refresh_token": self.refresh_token,
            "user": dict(self.user),
            **self.extra,
        }


@dataclass(frozen=True, slots=True)
class OfflineSession:
    """Who was signed in last, for a program that goes on without the network.

    It has no token, so none can be sent by mistake.

    Attributes:
        user_id: who it is, or an empty string.
        expires_at: when the access token ends or ended, in seconds since the epoch.
        usable: whether that is still to come.
        user: the user as the auth service described them.
    """

    offline: ClassVar[bool] = True

    user_id: str
    expires_at: int
    usable: bool
    user: Mapping[str, Any] = field(repr=False, hash=False)

    @classmethod
    def of(cls, session: Session, *, now: float) -> OfflineSession:
        """Leave the tokens away.

        Args:
            session: the session.
            now: seconds since the epoch.
        """
        return cls(session.user_id, session.expires_at, session.expires_at > now, session.user)


def change_between(before: Session | None, after: Session | None) -> AuthChange | None:
    """Tell what happened when one session took the place of another; None if nobody need know.

    Args:
        before: what was there.
        after: what is there now.
    """
    if after is None:
        return None if before is None else AuthChange.SIGNED_OUT
    if before is None or before.user_id != after.user_id:
        return AuthChange.SIGNED_IN
    # Two access tokens of the same second may be equal; no refresh token is given twice.
    if (before.access_token, before.refresh_token) != (after.access_token, after.refresh_token):
        return AuthChange.TOKEN_REFRESHED
    return None if before.user == after.user else AuthChange.USER_UPDATED
