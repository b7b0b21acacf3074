"""The bodies of requests: parsed once, into typed values, with limits. Fields we do not know are ignored."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from msgspec import DecodeError, Meta, Struct, json

from backbeat.local.auth import errors

__all__ = [
    "MAX_BODY_BYTES",
    "AdminUser",
    "Body",
    "Deletion",
    "OwnChange",
    "PasswordGrant",
    "RefreshGrant",
    "SignUp",
    "parse",
]

MAX_BODY_BYTES: Final = 1 << 20

_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Role = Annotated[str, Meta(max_length=63)]


class Body(Struct, frozen=True, kw_only=True):
    """What a caller sent. Its repr tells nothing, for it may hold a password."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class PasswordGrant(Body, frozen=True, kw_only=True):
    """`POST /token?grant_type=password`."""

    email: str | None = None
    phone: str | None = None
    password: str | None = None


class SignUp(PasswordGrant, frozen=True, kw_only=True):
    """`POST /signup`; with neither address nor password, an anonymous sign-in."""

    data: dict[str, Any] | None = None


class RefreshGrant(Body, frozen=True, kw_only=True):
    """`POST /token?grant_type=refresh_token`."""

    refresh_token: str | None = None


class OwnChange(Body, frozen=True, kw_only=True):
    """`PUT /user`: what users may change about themselves."""

    email: str | None = None
    password: str | None = None
    data: dict[str, Any] | None = None


class AdminUser(Body, frozen=True, kw_only=True):
    """`POST /admin/users` and `PUT /admin/users/{id}`; the latter ignores `id`."""

    id: UUID | None = None
    email: str | None = None
    phone: str | None = None
    password: str | None = None
    email_confirm: bool | None = None
    phone_confirm: bool | None = None
    role: Role | None = None
    user_metadata: dict[str, Any] | None = None
    app_metadata: dict[str, Any] | None = None
    ban_duration: str | None = None


class Deletion(Body, frozen=True, kw_only=True):
    """`DELETE /admin/users/{id}`."""

    should_soft_delete: bool | None = None


_Body = TypeVar("_Body", bound=Body)


def parse(body: bytes, kind: type[_Body]) -> _Body:
    """Parse a JSON body.

    Raises:
        BadRequest: `bad_json`, naming the place and never the value; `validation_failed` for a U+0000 in some
            text, which JSON can carry and Postgres cannot store.
    """
    if _ESCAPED_NUL.search(body):
        raise errors.NUL_CHARACTER.refusal()
    try:
        return json.decode(body, type=kind)
    except (DecodeError, UnicodeDecodeError) as error:
        raise errors.BAD_JSON.refusal(detail=str(error)) from error
    except RecursionError as error:
        raise errors.BAD_JSON.refusal(detail="nested too deeply") from error
