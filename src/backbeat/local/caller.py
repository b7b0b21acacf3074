"""Who calls an HTTP endpoint of the local project, and the headers a browser needs to read the answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from backbeat.tokens.claims import TokenSource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from backbeat.tokens.claims import Token
    from backbeat.tokens.keys import ApiKeys
    from backbeat.tokens.verifier import Verifier

__all__ = ["CrossOrigin", "caller"]

ALLOW_ORIGIN = b"access-control-allow-origin"
EXPOSED = (
    b"Content-Range, Content-Location, Location, Preference-Applied, "
    b"X-Supabase-Api-Version, X-Sb-Error-Code, X-Total-Count, Link"
)


def caller(request: Request, keys: ApiKeys, verifier: Verifier) -> Token | None:
    """Find and verify the token of a request (HTTP surface specification, section 2.3).

    Returns:
        The caller's token, or None when the request carries neither key nor token.

    Raises:
        TokenRefused: an unknown key, or a token that does not verify.
    """
    key = request.headers.get("apikey", "")
    value = keys.token_of_request(request.headers.get("authorization", ""), key)
    if value is None:
        return None
    api_key = value in (key, keys.anon, keys.service)
    source = TokenSource.API_KEY if api_key else TokenSource.USER
    return verifier.verify(value, now=time.time(), source=source)


class CrossOrigin:
    """Answers preflights before anything else, and lets every origin read every answer (section 3).

    The project is a laptop's: whoever can reach its port may call it, and the keys, not the origin, decide
    what they may do.

    Args:
        app: the application behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            await send(
                {"type": "http.response.start", "status": 204, "headers": list(_preflight(scope["headers"]))}
            )
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    # Some routes say so themselves; browsers reject an answer that says it twice.
                    *(pair for pair in message.get("headers", ()) if pair[0] != ALLOW_ORIGIN),
                    (ALLOW_ORIGIN, b"*"),
                    (b"access-control-expose-headers", EXPOSED),
                ]
            await send(message)

        await self._app(scope, receive, send_readable)


def _preflight(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """The headers that answer a preflight; what the browser wants to send is echoed."""
    yield ALLOW_ORIGIN, b"*"
    yield b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    yield b"access-control-max-age", b"86400"
    for name, value in headers:
        if name == b"access-control-request-headers":
            yield b"access-control-allow-headers", value
