"""How the auth stand-in says no: GoTrue's error codes and texts, and the two shapes of an error body.

The table is section 4.1 of the HTTP surface specification. The codes are another service's vocabulary, which
is why they stand here and not among the reasons of the realtime server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from backbeat.errors import BadRequest, Denied, RateLimited, Retry, TokenRefused, Unavailable
from backbeat.protocol.reasons import Reason

if TYPE_CHECKING:
    from backbeat.errors import Refusal

__all__ = ["API_VERSION", "WeakPassword", "error_body", "understands_codes"]

API_VERSION: Final = "2024-01-01"
"""The first API version whose callers read `code` as a text."""


class WeakPassword(BadRequest):
    """The password breaks a rule for new passwords."""

    reasons: tuple[str, ...] = ("length",)


def _reason(
    status: int,
    code: str,
    text: str,
    error: type[Refusal] = BadRequest,
    *,
    retry: Retry = Retry.NEVER,
    hint: str = "",
) -> Reason:
    return Reason(code, text, hint, error, retry, status, prefixed=False)


# Credentials ------------------------------------------------------------------------------------------------

INVALID_CREDENTIALS = _reason(400, "invalid_credentials", "Invalid login credentials", TokenRefused)
EMAIL_NOT_CONFIRMED = _reason(400, "email_not_confirmed", "Email not confirmed", Denied)
USER_BANNED = _reason(400, "user_banned", "User is banned", Denied)
GRANT_TYPE = _reason(400, "invalid_credentials", "unsupported_grant_type")
PHONE_DISABLED = _reason(422, "phone_provider_disabled", "Phone sign-ups and sign-ins are disabled")
ADDRESS_MISSING = _reason(400, "validation_failed", "missing email or phone")
BUSY = _reason(429, "over_request_rate_limit", "Request rate limit reached", RateLimited, retry=Retry.BACKOFF)

# Signing up, and what is asked of an account ----------------------------------------------------------------

USER_ALREADY_EXISTS = _reason(422, "user_already_exists", "User already registered")
PASSWORD_MISSING = _reason(400, "validation_failed", "Signup requires a valid password")
PASSWORD_TOO_SHORT = _reason(
    422, "weak_password", "Password should be at least {least} characters.", WeakPassword
)
PASSWORD_TOO_LONG = _reason(400, "validation_failed", "Password cannot be longer than {most} bytes")
SAME_PASSWORD = _reason(422, "same_password", "New password should be different from the old password.")
EMAIL_MALFORMED = _reason(400, "validation_failed", "Unable to validate email address: invalid format")
PHONE_MALFORMED = _reason(400, "validation_failed", "Invalid phone number format (E.164 required)")
ANONYMOUS_DISABLED = _reason(422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled", Denied)
ANONYMOUS_PASSWORD = _reason(
    422,
    "validation_failed",
    "Updating password of an anonymous user without an email or phone is not allowed",
)
METADATA_TOO_LARGE = _reason(
    422,
    "validation_failed",
    "Metadata is too large: every access token carries it, at most {most} characters of JSON",
)

# Sessions ---------------------------------------------------------------------------------------------------

REFRESH_TOKEN_MISSING = _reason(400, "validation_failed", "refresh_token required")
REFRESH_TOKEN_UNKNOWN = _reason(
    400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found", TokenRefused
)
REFRESH_TOKEN_SPENT = _reason(
    400, "refresh_token_already_used", "Invalid Refresh Token: Already Used", TokenRefused
)
NO_AUTHORIZATION = _reason(
    401, "no_authorization", "This endpoint requires a valid Bearer token", TokenRefused
)
BAD_JWT = _reason(
    403,
    "bad_jwt",
    "invalid JWT: unable to parse or verify signature, {detail}",
    TokenRefused,
    retry=Retry.REFRESH,
)
BAD_CLAIM = _reason(403, "bad_jwt", "invalid claim: {detail}", TokenRefused)
USER_GONE = _reason(403, "user_not_found", "User from sub claim in JWT does not exist", TokenRefused)
SESSION_GONE = _reason(
    403, "session_not_found", "Session from session_id claim in JWT does not exist", TokenRefused
)
LOGOUT_SCOPE = _reason(400, "validation_failed", "Unsupported logout scope: use global, local or others")

# Administration ---------------------------------------------------------------------------------------------

NOT_ADMIN = _reason(403, "not_admin", "User not allowed", Denied)
EMAIL_EXISTS = _reason(422, "email_exists", "A user with this email address has already been registered")
PHONE_EXISTS = _reason(422, "phone_exists", "A user with this phone number has already been registered")
ID_EXISTS = _reason(422, "user_already_exists", "A user with this id has already been registered")
NEITHER_EMAIL_NOR_PHONE = _reason(
    400, "validation_failed", "Cannot create a user without either an email or phone"
)
USER_NOT_FOUND = _reason(404, "user_not_found", "User not found")
BAN_DURATION = _reason(
    400,
    "validation_failed",
    'invalid format for ban duration: use "none" or a duration such as "24h" or "1h30m", below 290 years',
)
PAGINATION = _reason(
    400,
    "validation_failed",
    "Bad Pagination Parameters: page starts at 1, per_page lies between 1 and {most}",
)

# Requests ---------------------------------------------------------------------------------------------------

BAD_JSON = _reason(400, "bad_json", "Could not parse request body as JSON: {detail}")
NUL_CHARACTER = _reason(400, "validation_failed", "Postgres cannot store the character U+0000")
BODY_TOO_LARGE = _reason(413, "request_body_too_large", "The request body is larger than {most} bytes")
API_KEY_MISSING = _reason(
    401,
    "no_api_key",
    "No API key found in request",
    TokenRefused,
    hint="Put the project's publishable or anon key in the header `apikey`.",
)
API_KEY_UNKNOWN = _reason(
    401, "invalid_api_key", "Invalid API key", TokenRefused, hint="Double check your API key."
)
NO_ENDPOINT = _reason(
    404,
    "not_found",
    "{method} {path} is not offered",
    hint="The local project's /auth/v1 is a development stand-in: e-mail and password, anonymous users, "
    "and the admin calls on users.",
)
METHOD_NOT_ALLOWED = _reason(405, "method_not_allowed", "{method} is not allowed for {path}")
DATABASE_UNAVAILABLE = _reason(
    503,
    "database_unavailable",
    "The auth service cannot reach the project's database",
    Unavailable,
    retry=Retry.BACKOFF,
    hint="Check that Postgres runs and takes connections.",
)
UNEXPECTED = _reason(
    500,
    "unexpected_failure",
    "Unexpected failure, please check server logs for more information",
    Unavailable,
    retry=Retry.BACKOFF,
)


def understands_codes(api_version: str) -> bool:
    """Tell whether a caller reads the newer error shape.

    Args:
        api_version: the header `X-Supabase-Api-Version`, a date, or an empty string.
    """
    # Dates of this form sort like their text; anything else is no version we know.
    well_formed = len(api_version) == len(API_VERSION) and api_version.replace("-", "").isdecimal()
    return well_formed and api_version >= API_VERSION


def error_body(refusal: Refusal, *, coded: bool) -> dict[str, Any]:
    """Write the body of an error answer (section 4.1).

    Args:
        refusal: what was refused, and why.
        coded: whether the caller reads the newer shape, with `code` as a text.
    """
    body: dict[str, Any] = (
        {"code": refusal.code, "message": refusal.message}
        if coded
        else {"code": refusal.status, "error_code": refusal.code, "msg": refusal.message}
    )
    if isinstance(refusal, WeakPassword):
        body["weak_password"] = {"reasons": list(refusal.reasons)}
    if refusal.hint:
        # As a gateway in front of the service words it; only errors that GoTrue does not know have hints.
        body |= {"message": refusal.message, "hint": refusal.hint}
    return body
