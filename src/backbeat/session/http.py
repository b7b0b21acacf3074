"""Asks an auth service over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx

from backbeat.errors import AuthUnavailable, ConfigurationError, Retry
from backbeat.session import gotrue
from backbeat.session.clock import ServerClock
from backbeat.session.gotrue import Answer, AuthRequest, SignOutScope
from backbeat.session.session import Session
from backbeat.version import VERSION

__all__ = ["AuthService"]

MAX_ANSWER_BYTES: Final = 1 << 20

AUTH_PATH: Final = "/auth/v1"


class AuthService:
    """The auth service of a project: Supabase's GoTrue, or that of `backbeat dev`.

    Args:
        url: the project's URL, as in `http://127.0.0.1:54321`.
        apikey: the project's publishable or anon key.
        server: told what time it is at the service.
        timeout: seconds that an answer may take.
        transport: another way to send requests than over the network.

    Raises:
        ConfigurationError: the URL or the key cannot be one.
    """

    def __init__(
        self,
        url: str,
        apikey: str,
        *,
        server: ServerClock,
        timeout: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        # A header with anything else in it would be refused with its value in the text.
        if not apikey or not apikey.isascii() or not apikey.isprintable() or " " in apikey:
            raise ConfigurationError(
                "The API key is empty, or holds characters that no key has.", hint=gotrue.KEY_HINT
            )
        self.url = _service_url(url)
        self._apikey = apikey
        self._server = server
        self._timeout = timeout
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=timeout,
            headers={
                "apikey": apikey,
                # A packed answer could unpack to any size.
                "Accept-Encoding": "identity",
                "X-Supabase-Api-Version": gotrue.API_VERSION,
                "X-Client-Info": f"backbeat-py/{VERSION}",
            },
        )

    def __repr__(self) -> str:
        return f"AuthService({self.url!r})"

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def sign_in_with_password(self, email: str, password: str) -> Session:
        """Open a session (section 4.4 of the HTTP surface specification)."""
        return await self._session(gotrue.password_grant(email, password))

    async def sign_up(self, email: str, password: str, data: Mapping[str, Any]) -> Session | None:
        """Create a user; None when their address has to be confirmed first (section 4.3)."""
        return gotrue.session_in(
            await self._ask(gotrue.sign_up(email, password, data)), now=self._server.now()
        )

    async def sign_in_anonymously(self, data: Mapping[str, Any]) -> Session:
        """Create a user without an address (section 4.3)."""
        return await self._session(gotrue.anonymous_sign_up(data))

    async def refresh(self, refresh_token: str) -> Session:
        """Buy a session with a refresh token (section 4.5)."""
        return await self._session(gotrue.refresh_grant(refresh_token))

    async def update_user(self, changes: Mapping[str, Any], *, token: str) -> Mapping[str, Any]:
        """Change the user of an access token (section 4.6)."""
        return gotrue.user_in(await self._ask(gotrue.update_user(changes, token=token)))

    async def sign_out(self, scope: SignOutScope, *, token: str) -> None:
        """End sessions of the user of an access token (section 4.7)."""
        gotrue.has_ended(await self._ask(gotrue.logout(scope, token=token)))

    async def _session(self, request: AuthRequest) -> Session:
        answer = await self._ask(request)
        session = gotrue.session_in(answer, now=self._server.now())
        if session is None:
            raise gotrue.unexpected(answer, "it holds a user, but no session")
        return session

    async def _ask(self, request: AuthRequest) -> Answer:
        """Send a request.

        Raises:
            AuthUnavailable: there is no answer, or one that is too large.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._answer(request)
        except (httpx.HTTPError, TimeoutError) as error:
            raise AuthUnavailable(
                f"The auth service at {self.url} gave no answer: {type(error).__name__}.",
                hint=gotrue.HINTS["unreachable"],
            ) from error

    async def _answer(self, request: AuthRequest) -> Answer:
        headers = {
            "Authorization": f"Bearer {request.token or self._apikey}",
            "Content-Type": "application/json;charset=UTF-8",
        }
        url = f"{self.url}{request.path}"
        async with self._http.stream(
            request.method, url, content=request.content, headers=headers
        ) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise AuthUnavailable(
                        f"The answer is larger than {MAX_ANSWER_BYTES} bytes.",
                        code="unexpected_answer",
                        hint=gotrue.HINTS["unexpected_answer"],
                        status=response.status_code,
                        retry=Retry.SLOW,
                    )
            secrets = (*request.secrets, self._apikey)
            answer = Answer(response.status_code, dict(response.headers), bytes(body), secrets)
        if "access_token" in answer.fields:
            # Only whoever issues tokens is believed: the page of a hotel has a clock, too.
            self._server.learn(answer.date)
        return answer


def _service_url(url: str) -> str:
    """Find where the auth service of a project is."""
    try:
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, TypeError) as error:
        raise _no_url() from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise _no_url()
    path = parsed.path.rstrip("/")
    return str(parsed.copy_with(path=path if path.endswith(AUTH_PATH) else path + AUTH_PATH, query=None))


def _no_url() -> ConfigurationError:
    return ConfigurationError(
        "The URL of the project is not one.", hint="It looks like https://<project>.supabase.co."
    )
