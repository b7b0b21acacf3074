"""The requests of an auth service that speaks like GoTrue, and what its answers mean. No I/O.

Section 4 of the HTTP surface specification; the shapes of errors are those of its section 4.1, and of the
gateway that stands in front of a hosted project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from backbeat.errors import AuthError, AuthRefused, AuthUnavailable, Retry
from backbeat.session.session import Session
from backbeat.tokens.claims import fingerprint

__all__ = [
    "API_VERSION",
    "HINTS",
    "Answer",
    "AuthRequest",
    "SignOutScope",
    "anonymous_sign_up",
    "has_ended",
    "logout",
    "password_grant",
    "refresh_grant",
    "session_in",
    "sign_up",
    "unexpected",
    "update_user",
    "user_in",
]

API_VERSION: Final = "2024-01-01"

OUTAGES: Final = frozenset({*range(500, 505), *range(520, 531)})
"""Statuses after which the same request may work a moment later (client specification, 3.2)."""

LONGEST_MESSAGE: Final = 300

KEY_HINT: Final = "Check the API key: it has to be the publishable or anon key of this very project."
SIGN_IN_HINT: Final = "Sign in again."

HINTS: Final[Mapping[str, str]] = {
    "anonymous_provider_disabled": "The project has to allow anonymous sign-ins.",
    "bad_jwt": SIGN_IN_HINT,
    "email_address_invalid": "Use an address that can receive mail.",
    "email_not_confirmed": "The link in the confirmation mail has to be opened first.",
    "http_refused": "The auth service gave no code for it; its log knows more.",
    "invalid_api_key": KEY_HINT,
    "invalid_credentials": "Either no user has this address, or the password is another; the service does not"
    " say which.",
    "no_api_key": KEY_HINT,
    "no_authorization": KEY_HINT,
    "no_refresher": "Give the SessionManager a `refresher`, or use AuthContext, which has one.",
    "not_signed_in": "Sign in first.",
    "over_request_rate_limit": "Wait a minute: too many requests came from this address.",
    "refresh_token_already_used": "Two programs used the same session without sharing a store, or a copy of"
    f" it was restored. {SIGN_IN_HINT}",
    "refresh_token_not_found": f"The session has ended, or is of another project. {SIGN_IN_HINT}",
    "same_password": "Choose another password than the present one.",
    "session_expired": f"The project limits how long a session may last. {SIGN_IN_HINT}",
    "session_not_found": f"The session was ended on the server. {SIGN_IN_HINT}",
    "session_store": "Check that the place exists, and that this user may write there.",
    "signup_disabled": "The project takes no sign-ups; an administrator can create users.",
    "unexpected_answer": "This is not how an auth service answers: check the URL, and what stands between,"
    " such as a proxy or the sign-in page of a network. The session is kept.",
    "unreachable": "Check the URL and the network. The session is kept.",
    "user_already_exists": "Sign in, or reset the password.",
    "user_banned": "An administrator has locked this user.",
    "user_not_found": "The user was deleted.",
    "weak_password": "Choose a longer or less common password.",
}
"""What to do about a code. Codes that are missing here have a message that says it all, or are not ours."""


class SignOutScope(StrEnum):
    """Which sessions of the user a sign-out ends."""

    GLOBAL = "global"
    """Every one, on every device."""

    LOCAL = "local"
    """This one."""

    OTHERS = "others"
    """All but this one."""


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """A request to the auth service.

    Attributes:
        method: the HTTP method.
        path: below `/auth/v1`, query included.
        body: what becomes JSON; None for no body.
        token: the user's access token, or an empty string to ask with the API key alone.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)

    @property
    def content(self) -> bytes | None:
        """The body as JSON.

        Raises:
            ValueError: a text in it is no Unicode; the text is not repeated.
        """
        try:
            return None if self.body is None else msgspec.json.encode(self.body)
        except UnicodeEncodeError:
            # The error itself carries the whole text, which may be a password.
            raise ValueError("A text in the request cannot be encoded: it is no Unicode.") from None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The passwords and tokens in it."""
        body = self.body or {}
        hidden = (body.get("password"), body.get("refresh_token"), self.token)
        return tuple(value for value in hidden if isinstance(value, str) and value)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of what may be the auth service.

    Attributes:
        status: the HTTP status.
        headers: by lower-case names.
        body: the body, undone of any compression.
        secrets: what was secret in the request, and must not be repeated should the answer repeat it.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def date(self) -> float | None:
        """What time it is at the server, in seconds since the epoch; None if it does not say."""
        try:
            return parsedate_to_datetime(self.headers.get("date", "")).timestamp()
        except (ValueError, OverflowError):
            return None

    @property
    def fields(self) -> Mapping[str, Any]:
        """The JSON object in the body; empty if that is none."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}


# Requests ---------------------------------------------------------------------------------------------------


def password_grant(email: str, password: str) -> AuthRequest:
    """Sign in (section 4.4)."""
    body = {"email": email, "password": password, "gotrue_meta_security": {}}
    return AuthRequest("POST", "/token?grant_type=password", body)


def refresh_grant(refresh_token: str) -> AuthRequest:
    """Spend a refresh token (section 4.5)."""
    return AuthRequest("POST", "/token?grant_type=refresh_token", {"refresh_token": refresh_token})


def sign_up(email: str, password: str, data: Mapping[str, Any]) -> AuthRequest:
    """Create a user with a password (section 4.3)."""
    no_challenge = {"code_challenge": None, "code_challenge_method": None}
    body = {"email": email, "password": password, "data": data, "gotrue_meta_security": {}}
    return AuthRequest("POST", "/signup", body | no_challenge)


def anonymous_sign_up(data: Mapping[str, Any]) -> AuthRequest:
    """Create a user without address and password (section 4.3)."""
    return AuthRequest("POST", "/signup", {"data": data, "gotrue_meta_security": {}})


def update_user(changes: Mapping[str, Any], *, token: str) -> AuthRequest:
    """Change the user (section 4.6)."""
    return AuthRequest("PUT", "/user", changes, token=token)


def logout(scope: SignOutScope, *, token: str) -> AuthRequest:
    """End sessions (section 4.7)."""
    return AuthRequest("POST", f"/logout?scope={scope.value}", token=token)


# Answers ----------------------------------------------------------------------------------------------------


def session_in(answer: Answer, *, now: float) -> Session | None:
    """Read the session in an answer; None for a user who has to confirm their address first.

    Args:
        answer: the answer.
        now: seconds since the epoch, at the server.

    Raises:
        AuthRefused: the service said no.
        AuthUnavailable: this is no answer of an auth service.
    """
    fields = _fields_in(answer)
    if "access_token" not in fields and isinstance(fields.get("id"), str):
        return None
    try:
        return Session.read(answer.body, now=now)
    except ValueError as error:
        raise unexpected(answer, f"it holds no session: {error}") from error


def user_in(answer: Answer) -> Mapping[str, Any]:
    """Read the user in an answer.

    Raises:
        AuthRefused: the service said no.
        AuthUnavailable: this is no answer of an auth service.
    """
    fields = _fields_in(answer)
    if not isinstance(fields.get("id"), str):
        raise unexpected(answer, "it holds no user")
    return fields


def has_ended(answer: Answer) -> None:
    """Make sure that a sign-out worked. A session that the service does not know has ended too.

    Raises:
        AuthRefused: the service said no.
        AuthUnavailable: this is no answer of an auth service.
    """
    if answer.status >= 300 and answer.status not in (401, 403, 404):
        raise _error_in(answer)


def _fields_in(answer: Answer) -> Mapping[str, Any]:
    if not 200 <= answer.status < 300:
        raise _error_in(answer)
    return answer.fields


def _error_in(answer: Answer) -> AuthError:
    """Tell what an answer without success means."""
    status, fields = answer.status, answer.fields
    message = _redacted(_first_text(fields, "message", "msg", "error_description"), answer)
    code = _code_in(answer) if message else ""
    if status == 429 or 500 <= status < 600:
        return AuthUnavailable(
            message or f"The auth service answered with status {status}.",
            code=code or f"http_{status}",
            hint=HINTS.get(code, HINTS["unreachable"]),
            status=status,
            retry=Retry.BACKOFF if status in OUTAGES else Retry.SLOW,
        )
    if not code or status < 400:
        return unexpected(answer, f"it has status {status} and gives no reason")
    return AuthRefused(message, code=code, hint=HINTS.get(code, ""), status=status)


def _code_in(answer: Answer) -> str:
    """Find the code of an error; an empty string for one that no auth service wrote."""
    code = _first_text(answer.fields, "code", "error_code", "error")
    if code:
        return code
    if isinstance(answer.fields.get("code"), int):
        return "http_refused"
    # The gateway of a hosted project has no codes. Beside a 401 it can only mean the key.
    return "invalid_api_key" if answer.status == 401 else ""


def unexpected(answer: Answer, why: str) -> AuthUnavailable:
    """Make the error for an answer that no auth service would give."""
    return AuthUnavailable(
        f"The answer cannot be understood: {why}.",
        code="unexpected_answer",
        hint=HINTS["unexpected_answer"],
        status=answer.status,
        retry=Retry.SLOW,
    )


def _first_text(fields: Mapping[str, Any], *names: str) -> str:
    return next((fields[name] for name in names if isinstance(fields.get(name), str) and fields[name]), "")


def _redacted(text: str, answer: Answer) -> str:
    """Replace what was secret in the request, should somebody on the way repeat it."""
    for secret in answer.secrets:
        for spelled in (secret, msgspec.json.encode(secret).decode()[1:-1]):
            text = text.replace(spelled, f"<{fingerprint(secret)}>")
    return text[:LONGEST_MESSAGE]
