"""The HTTP shell of the auth stand-in: who asks, what they sent, and the answer as clients expect it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from backbeat.errors import Refusal, TokenRefused
from backbeat.local.auth import errors
from backbeat.local.auth.passwords import Passwords
from backbeat.local.auth.requests import (
    MAX_BODY_BYTES,
    AdminUser,
    Deletion,
    OwnChange,
    PasswordGrant,
    RefreshGrant,
    SignUp,
    parse,
)
from backbeat.local.auth.service import Service
from backbeat.local.auth.sessions import LogoutScope, Subject, subject_of
from backbeat.local.caller import caller
from backbeat.protocol import reasons
from backbeat.server.body import collect
from backbeat.tokens.claims import TokenSource

if TYPE_CHECKING:
    from starlette.requests import Request

    from backbeat.postgres.database import Database
    from backbeat.tokens.claims import Token
    from backbeat.tokens.keys import ApiKeys
    from backbeat.tokens.verifier import Verifier

__all__ = ["Auth"]

DEFAULT_PAGE: Final = 50
"""Users on a page of the admin list; so many are meant when the caller names no number."""

MAX_PAGE: Final = 1000

_BEARER = re.compile(r"\s*bearer\s+\S", re.IGNORECASE)
_COUNT = re.compile(r"[0-9]{1,9}")


class Auth:
    """`/auth/v1` of a local project: a development stand-in for GoTrue.

    Follows section 4 of the HTTP surface specification.

    Args:
        database: a pool that logs in with rights on schema `auth`, normally the project's owner. The caller
            opens and closes it.
        keys: the project's API keys.
        verifier: what verifies tokens.
        jwt_secret: what access tokens are signed with.
        issuer: the URL of this service, as in `http://127.0.0.1:54321/auth/v1`.
        token_lifetime: how long an access token is good, in seconds.
        autoconfirm: whether an address counts as confirmed when it is given. Without it only an administrator
            can confirm one, for no mail is ever sent.
        anonymous: whether anonymous sign-ins are allowed.
    """

    def __init__(
        self,
        *,
        database: Database,
        keys: ApiKeys,
        verifier: Verifier,
        jwt_secret: str,
        issuer: str,
        token_lifetime: int = 3600,
        autoconfirm: bool = True,
        anonymous: bool = True,
    ) -> None:
        self._keys = keys
        self._verifier = verifier
        self._passwords = Passwords()
        self._service = Service(
            database=database,
            passwords=self._passwords,
            jwt_secret=jwt_secret,
            issuer=issuer,
            token_lifetime=token_lifetime,
            autoconfirm=autoconfirm,
            anonymous=anonymous,
        )
        self._settings = {
            "external": {"anonymous_users": anonymous, "email": True, "phone": False},
            "disable_signup": False,
            "mailer_autoconfirm": autoconfirm,
            "phone_autoconfirm": False,
            "saml_enabled": False,
        }

    def routes(self) -> list[BaseRoute]:
        """Build the routes, for an application to include."""
        application = Starlette(
            routes=[
                Route("/signup", self._sign_up, methods=["POST"]),
                Route("/token", self._token, methods=["POST"]),
                Route("/user", self._get_user, methods=["GET"]),
                Route("/user", self._put_user, methods=["PUT"]),
                Route("/logout", self._log_out, methods=["POST"]),
                Route("/admin/users", self._list_users, methods=["GET"]),
                Route("/admin/users", self._create_user, methods=["POST"]),
                Route("/admin/users/{id}", self._find_user, methods=["GET"]),
                Route("/admin/users/{id}", self._change_user, methods=["PUT"]),
                Route("/admin/users/{id}", self._delete_user, methods=["DELETE"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/settings", self._get_settings, methods=["GET"]),
                Route("/.well-known/jwks.json", self._key_set, methods=["GET"]),
            ],
            exception_handlers={
                Refusal: _refused,
                HTTPException: _not_routed,
                ClientDisconnect: _disconnected,
                Exception: _failed,
            },
        )
        return [Mount("/auth/v1", app=application, name="auth")]

    async def aclose(self) -> None:
        """Let the password threads go."""
        self._passwords.close()

    # Sessions -----------------------------------------------------------------------------------------------

    async def _sign_up(self, request: Request) -> Response:
        self._check_api_key(request)
        return _json(await self._service.sign_up(parse(await _body(request), SignUp)))

    async def _token(self, request: Request) -> Response:
        self._check_api_key(request)
        match request.query_params.get("grant_type"):
            case "password":
                return _json(await self._service.sign_in(parse(await _body(request), PasswordGrant)))
            case "refresh_token":
                grant = parse(await _body(request), RefreshGrant)
                return _json(await self._service.refresh(grant.refresh_token))
            case _:
                raise errors.GRANT_TYPE.refusal()

    async def _log_out(self, request: Request) -> Response:
        subject = self._subject(request)
        try:
            scope = LogoutScope(request.query_params.get("scope") or LogoutScope.GLOBAL)
        except ValueError:
            raise errors.LOGOUT_SCOPE.refusal() from None
        await self._service.sign_out(subject, scope)
        return Response(status_code=204)

    # The user themselves ------------------------------------------------------------------------------------

    async def _get_user(self, request: Request) -> Response:
        return _json(await self._service.user_of(self._subject(request)))

    async def _put_user(self, request: Request) -> Response:
        subject = self._subject(request)
        return _json(await self._service.change_own(subject, parse(await _body(request), OwnChange)))

    # Administration -----------------------------------------------------------------------------------------

    async def _list_users(self, request: Request) -> Response:
        self._check_admin(request)
        page = _count(request, "page", default=1)
        per_page = _count(request, "per_page", default=DEFAULT_PAGE)
        if page < 1 or not 1 <= per_page <= MAX_PAGE:
            raise errors.PAGINATION.refusal(most=MAX_PAGE)
        users, total = await self._service.page(limit=per_page, offset=(page - 1) * per_page)
        return _json(
            {"users": users, "aud": "authenticated"},
            headers={"X-Total-Count": str(total), "Link": page_links(page, per_page, total)},
        )

    async def _create_user(self, request: Request) -> Response:
        self._check_admin(request)
        return _json(await self._service.create(parse(await _body(request), AdminUser)))

    async def _find_user(self, request: Request) -> Response:
        self._check_admin(request)
        return _json(await self._service.find(_user_id(request)))

    async def _change_user(self, request: Request) -> Response:
        self._check_admin(request)
        body = parse(await _body(request), AdminUser)
        return _json(await self._service.change(_user_id(request), body))

    async def _delete_user(self, request: Request) -> Response:
        self._check_admin(request)
        body = parse(await _body(request) or b"{}", Deletion)
        await self._service.delete(_user_id(request), soft=bool(body.should_soft_delete))
        return _json({})

    # Small ones ---------------------------------------------------------------------------------------------

    async def _health(self, _: Request) -> Response:
        return _json(
            {
                "version": "v2",
                "name": "GoTrue",
                "description": "Backbeat's development stand-in for the GoTrue auth service",
            }
        )

    async def _get_settings(self, _: Request) -> Response:
        return _json(self._settings)

    async def _key_set(self, _: Request) -> Response:
        # Tokens are signed with the shared secret, which is not for publication.
        return _json({"keys": []})

    # Who asks -----------------------------------------------------------------------------------------------

    def _check_api_key(self, request: Request) -> None:
        """Let those pass who hold a key of the project; a user token beside it may be as old as it likes."""
        key = request.headers.get("apikey", "")
        try:
            value = self._keys.token_of_request("" if key else request.headers.get("authorization", ""), key)
            if value is not None:
                self._verifier.verify(value, now=time.time(), source=TokenSource.API_KEY)
        except TokenRefused as refusal:
            raise errors.API_KEY_UNKNOWN.refusal() from refusal
        if value is None:
            raise errors.API_KEY_MISSING.refusal()

    def _check_admin(self, request: Request) -> None:
        if self._caller(request).claims.role != "service_role":
            raise errors.NOT_ADMIN.refusal()

    def _subject(self, request: Request) -> Subject:
        """Find whom the request speaks for: an API key alone speaks for nobody."""
        if "authorization" not in request.headers:
            raise errors.NO_AUTHORIZATION.refusal()
        return subject_of(self._caller(request).claims.values)

    def _caller(self, request: Request) -> Token:
        authorization = request.headers.get("authorization")
        if authorization is not None and not _BEARER.match(authorization):
            raise errors.NO_AUTHORIZATION.refusal()
        try:
            token = caller(request, self._keys, self._verifier)
        except TokenRefused as refusal:
            if refusal.code == reasons.API_KEY_UNKNOWN.code:
                raise errors.API_KEY_UNKNOWN.refusal() from refusal
            raise errors.BAD_JWT.refusal(detail=refusal.message) from refusal
        if token is None:
            raise errors.NO_AUTHORIZATION.refusal()
        return token


def page_links(page: int, per_page: int, total: int) -> str:
    """Write the `Link` header of a page of users (section 4.8); `page` stays the first parameter.

    Args:
        page: the page that is answered, from 1.
        per_page: users on a page.
        total: users altogether.
    """
    last = max(1, -(-total // per_page))
    size = "" if per_page == DEFAULT_PAGE else f"&per_page={per_page}"
    links = [f'</admin/users?page={page + 1}{size}>; rel="next"'] if page < last else []
    return ", ".join([*links, f'</admin/users?page={last}{size}>; rel="last"'])


async def _body(request: Request) -> bytes:
    """Read the body, and no more than may be sent."""
    too_large = errors.BODY_TOO_LARGE.refusal(most=MAX_BODY_BYTES)
    return await collect(request.stream(), most=MAX_BODY_BYTES, too_large=too_large)


def _count(request: Request, name: str, *, default: int) -> int:
    # An absent number arrives as an empty text from auth-js.
    text = request.query_params.get(name) or str(default)
    return int(text) if _COUNT.fullmatch(text) else 0


def _user_id(request: Request) -> UUID:
    try:
        return UUID(request.path_params["id"])
    except ValueError:
        raise errors.USER_NOT_FOUND.refusal() from None


def _json(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # RFC 6749 section 5.1: answers that carry tokens are not to be stored.
    return Response(
        msgspec.json.encode(content),
        status,
        {"Cache-Control": "no-store"} | (headers or {}),
        media_type="application/json",
    )


def _error(request: Request, refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    coded = errors.understands_codes(request.headers.get("x-supabase-api-version", ""))
    return _json(
        errors.error_body(refusal, coded=coded),
        status=refusal.status,
        headers={"X-Sb-Error-Code": refusal.code}
        | ({"X-Supabase-Api-Version": errors.API_VERSION} if coded else {})
        | (headers or {}),
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _error(request, error)


async def _not_routed(request: Request, error: Exception) -> Response:
    """Answer what Starlette itself refuses: a path or a method we do not have."""
    assert isinstance(error, HTTPException)
    reason = errors.METHOD_NOT_ALLOWED if error.status_code == 405 else errors.NO_ENDPOINT
    refusal = reason.refusal(method=request.method, path=request.url.path)
    return _error(request, refusal, dict(error.headers or {}))


async def _disconnected(_: Request, __: Exception) -> Response:
    """The caller left in the middle of the body: nobody reads this, and it is no failure of ours."""
    return Response(status_code=400)


async def _failed(request: Request, _: Exception) -> Response:
    """Answer for a defect of ours; Starlette passes the exception on, and the server logs its traceback."""
    return _error(request, errors.UNEXPECTED.refusal())
