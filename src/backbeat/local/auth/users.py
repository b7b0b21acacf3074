"""Users: how one looks to clients, and what sign-ups, changes, bans and deletions make of one.

Each function takes a user and returns another; the shell stores what came out.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from backbeat.local.auth import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backbeat.local.auth.requests import AdminUser, OwnChange

__all__ = [
    "Identity",
    "User",
    "anonymous_user",
    "ban_end",
    "changed_by_admin",
    "changed_by_owner",
    "check_may_sign_in",
    "check_metadata",
    "check_not_banned",
    "created_by_admin",
    "email_address",
    "email_identity",
    "merged",
    "phone_number",
    "signed_up",
    "soft_deleted",
]

MAX_METADATA: Final = 8_000
"""Characters of JSON. Both metadata objects travel in each access token, and a longer token than
`backbeat.tokens.verifier.MAX_TOKEN_BYTES` is refused everywhere."""

MAX_METADATA_DEPTH: Final = 64

LONGEST_BAN: Final = timedelta(days=290 * 365)
"""What fits the durations of the original, which count nanoseconds in 64 bits."""

# The form of a valid e-mail address in the HTML standard, which is what browsers check in a form.
_EMAIL = re.compile(
    r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
    r"@[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
MAX_EMAIL: Final = 255

_PHONE = re.compile(r"[1-9][0-9]{1,14}")

_DURATION = re.compile(r"(?:[0-9]{1,15}(?:\.[0-9]{1,9})?(?:ns|us|µs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9.]+)(ns|us|µs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Identity(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One way to sign in as a user, as clients see it (section 4.2)."""

    identity_id: UUID
    id: str
    user_id: UUID
    identity_data: dict[str, Any]
    provider: str
    last_sign_in_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    email: str | None = None


class User(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user as clients see it (section 4.2): what may be absent is None, and secrets it has none."""

    id: UUID
    aud: str
    role: str
    email: str
    email_confirmed_at: datetime | None = None
    phone: str
    phone_confirmed_at: datetime | None = None
    confirmed_at: datetime | None = None
    new_email: str | None = None
    last_sign_in_at: datetime | None = None
    app_metadata: dict[str, Any]
    user_metadata: dict[str, Any]
    identities: list[Identity]
    created_at: datetime
    updated_at: datetime
    banned_until: datetime | None = None
    deleted_at: datetime | None = None
    is_anonymous: bool


def email_address(text: str) -> str:
    """Bring an e-mail address into the form it is stored and compared in: lower case.

    Raises:
        BadRequest: it is not an address.
    """
    address = text.strip().lower()
    if len(address) > MAX_EMAIL or not _EMAIL.fullmatch(address):
        raise errors.EMAIL_MALFORMED.refusal()
    return address


def phone_number(text: str) -> str:
    """Bring a phone number into the form it is stored in: the digits of E.164, without the plus.

    Raises:
        BadRequest: it is not a number.
    """
    number = text.strip().removeprefix("+").replace(" ", "")
    if not _PHONE.fullmatch(number):
        raise errors.PHONE_MALFORMED.refusal()
    return number


def signed_up(
    user_id: UUID, email: str, data: Mapping[str, Any] | None, *, confirmed: bool, now: datetime
) -> User:
    """Make the user of a sign-up with e-mail and password.

    Args:
        user_id: a new id.
        email: the address, as from `email_address`.
        data: what the caller wants in `user_metadata`; our own keys win.
        confirmed: whether the address counts as confirmed at once.
        now: the moment of the sign-up.
    """
    return _new_user(
        user_id,
        email=email,
        email_confirmed_at=now if confirmed else None,
        app_metadata=_provider("email"),
        user_metadata=merged({}, data) | _claimed(user_id, email) | {"email_verified": confirmed},
        now=now,
    )


def anonymous_user(user_id: UUID, data: Mapping[str, Any] | None, *, now: datetime) -> User:
    """Make a user who has neither address nor password, and whose only key is the session."""
    return replace(_new_user(user_id, user_metadata=merged({}, data), now=now), is_anonymous=True)


def created_by_admin(user_id: UUID, body: AdminUser, *, now: datetime) -> User:
    """Make the user an administrator asked for.

    Raises:
        BadRequest: neither address nor phone number, or something malformed.
    """
    if not body.email and not body.phone:
        raise errors.NEITHER_EMAIL_NOR_PHONE.refusal()
    blank = _new_user(user_id, app_metadata=_provider("email" if body.email else "phone"), now=now)
    return changed_by_admin(blank, body, now=now)


def changed_by_admin(user: User, body: AdminUser, *, now: datetime) -> User:
    """Change what an administrator asked for. The password is not part of a `User`: it is the shell's.

    Raises:
        BadRequest: something is malformed.
    """
    email = email_address(body.email) if body.email else user.email
    phone = phone_number(body.phone) if body.phone else user.phone
    confirms_email = bool(body.email_confirm and email)
    metadata = _follow_email(user, email)
    return replace(
        user,
        email=email,
        email_confirmed_at=user.email_confirmed_at or (now if confirms_email else None),
        phone=phone,
        phone_confirmed_at=user.phone_confirmed_at or (now if body.phone_confirm and phone else None),
        role=body.role or user.role,
        app_metadata=merged(user.app_metadata, body.app_metadata),
        user_metadata=merged(metadata, body.user_metadata)
        | ({"email_verified": True} if confirms_email else {}),
        banned_until=ban_end(body.ban_duration, now) if body.ban_duration else user.banned_until,
        updated_at=now,
    )


def changed_by_owner(user: User, body: OwnChange, *, autoconfirm: bool, now: datetime) -> User:
    """Change what users asked for about themselves.

    An anonymous user who gives an address becomes an ordinary one.

    Args:
        user: the user before.
        body: the wishes; the password is the shell's.
        autoconfirm: whether a new address counts at once, or stays `new_email`, for no mail is ever sent.
        now: the moment of the change.

    Raises:
        BadRequest: something is malformed, or an anonymous user wants a password and has no address.
    """
    email = email_address(body.email) if body.email else user.email
    if email != user.email and not autoconfirm:
        user, email = replace(user, new_email=email), user.email
    if body.password and user.is_anonymous and not email:
        raise errors.ANONYMOUS_PASSWORD.refusal()
    if email != user.email:
        user = replace(
            user,
            email=email,
            email_confirmed_at=now,
            new_email=None,
            app_metadata=user.app_metadata or _provider("email"),
            user_metadata=_follow_email(user, email),
            is_anonymous=False,
        )
    return replace(user, user_metadata=merged(user.user_metadata, body.data), updated_at=now)


def soft_deleted(user: User, *, now: datetime) -> User:
    """Keep the row for those who reference it, and forget who it was."""
    return replace(
        user,
        email="",
        new_email=None,
        phone="",
        app_metadata={},
        user_metadata={},
        updated_at=now,
        deleted_at=user.deleted_at or now,
    )


def email_identity(user: User) -> dict[str, Any]:
    """Say what the e-mail identity of a user says."""
    return _claimed(user.id, user.email) | {"email_verified": False}


def check_may_sign_in(user: User, *, now: datetime) -> None:
    """Refuse a session to users who are banned or whose address is not confirmed.

    Raises:
        Denied: `user_banned` or `email_not_confirmed`.
    """
    check_not_banned(user, now=now)
    if user.email and user.email_confirmed_at is None:
        raise errors.EMAIL_NOT_CONFIRMED.refusal()


def check_not_banned(user: User, *, now: datetime) -> None:
    """Refuse new tokens to banned users; those they hold stay good until they expire, as with the original.

    Raises:
        Denied: `user_banned`.
    """
    if user.banned_until is not None and user.banned_until > now:
        raise errors.USER_BANNED.refusal()


def check_metadata(user: User) -> None:
    """Refuse metadata that would make access tokens nobody accepts.

    Raises:
        BadRequest: too long, or nested too deeply.
    """
    metadata = [user.app_metadata, user.user_metadata]
    # Depth first: the encoder recurses.
    if _nests_deeper(metadata, MAX_METADATA_DEPTH) or len(json.dumps(metadata)) > MAX_METADATA:
        raise errors.METADATA_TOO_LARGE.refusal(most=MAX_METADATA)


def merged(metadata: Mapping[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge metadata key by key; None deletes a key (section 4.6)."""
    return {key: value for key, value in (dict(metadata) | dict(changes or {})).items() if value is not None}


def ban_end(duration: str, now: datetime) -> datetime | None:
    """Find the end of a ban.

    Args:
        duration: `none`, or numbers with units as in `24h` or `1h30m`.
        now: when the ban begins.

    Returns:
        The end, or None to lift the ban.

    Raises:
        BadRequest: not such a duration, or longer than 290 years.
    """
    if duration == "none":
        return None
    if not _DURATION.fullmatch(duration):
        raise errors.BAN_DURATION.refusal()
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(duration))
    if seconds > LONGEST_BAN.total_seconds():
        raise errors.BAN_DURATION.refusal()
    return now + timedelta(seconds=seconds)


def _new_user(
    user_id: UUID,
    *,
    now: datetime,
    email: str = "",
    email_confirmed_at: datetime | None = None,
    app_metadata: dict[str, Any] | None = None,
    user_metadata: dict[str, Any] | None = None,
) -> User:
    return User(
        id=user_id,
        aud="authenticated",
        role="authenticated",
        email=email,
        email_confirmed_at=email_confirmed_at,
        phone="",
        app_metadata=app_metadata or {},
        user_metadata=user_metadata or {},
        identities=[],
        created_at=now,
        updated_at=now,
        is_anonymous=False,
    )


def _provider(name: str) -> dict[str, Any]:
    return {"provider": name, "providers": [name]}


def _claimed(user_id: UUID, email: str) -> dict[str, Any]:
    """What a user says about themselves, in the metadata and in the identity."""
    return {"sub": str(user_id), "email": email, "phone_verified": False}


def _follow_email(user: User, email: str) -> dict[str, Any]:
    """The metadata of a sign-up repeats the address: let it not grow stale."""
    if email != user.email and user.user_metadata.get("email") == user.email:
        return user.user_metadata | {"email": email}
    return user.user_metadata


def _nests_deeper(value: object, levels: int) -> bool:
    if levels < 0:
        return True
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_nests_deeper(child, levels - 1) for child in children)
