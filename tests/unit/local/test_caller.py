"""Who calls over HTTP, and what a browser may read."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from backbeat.local.caller import CrossOrigin, caller
from backbeat.tokens.claims import TokenSource
from backbeat.tokens.keys import ApiKeys
from backbeat.tokens.verifier import Verifier, sign

SECRET = "a secret of at least thirty-two bytes"
KEYS = ApiKeys.of(SECRET, publishable="sb_publishable_x")


def answering(response: Response) -> httpx.AsyncClient:
    """A client of an application that always answers the same."""

    async def endpoint(_: Request) -> Response:
        return response

    app = CrossOrigin(Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])]))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://project")


async def test_a_preflight_is_answered_before_anything_else() -> None:
    """On every path, with what the browser wants to send."""
    async with answering(PlainTextResponse("")) as client:
        headers = {"access-control-request-headers": "apikey, x-client-info", "origin": "http://page"}
        response = await client.options("/nowhere", headers=headers)
    assert response.status_code == 204
    assert response.headers["access-control-allow-headers"] == "apikey, x-client-info"
    assert response.headers["access-control-allow-origin"] == "*"


async def test_every_answer_is_readable() -> None:
    """An error too, and the headers clients look at."""
    async with answering(PlainTextResponse("", 500)) as client:
        response = await client.get("/")
    assert response.headers["access-control-allow-origin"] == "*"
    assert "Content-Range" in response.headers["access-control-expose-headers"]


async def test_the_origin_is_allowed_once() -> None:
    """A route that says so itself does not make a header that browsers reject."""
    allowed = PlainTextResponse("", headers={"Access-Control-Allow-Origin": "*"})
    async with answering(allowed) as client:
        response = await client.get("/")
    assert response.headers.get_list("access-control-allow-origin") == ["*"]


@pytest.mark.parametrize(
    ("headers", "role", "source"),
    [
        ({"apikey": "sb_publishable_x"}, "anon", TokenSource.API_KEY),
        ({"apikey": KEYS.anon, "authorization": f"Bearer {KEYS.anon}"}, "anon", TokenSource.API_KEY),
        ({"apikey": KEYS.service}, "service_role", TokenSource.API_KEY),
        (
            {
                "apikey": "sb_publishable_x",
                "authorization": f"Bearer {sign({'role': 'authenticated', 'exp': 2**33}, SECRET)}",
            },
            "authenticated",
            TokenSource.USER,
        ),
    ],
)
def test_the_source_of_a_token_is_known(headers: dict[str, str], role: str, source: TokenSource) -> None:
    """A value whose source is unknown cannot be debugged."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    token = caller(Request({"type": "http", "headers": raw}), KEYS, Verifier(SECRET))
    assert token is not None
    assert (token.claims.role, token.source) == (role, source)


def test_nobody_is_not_somebody() -> None:
    """Without key and token there is no caller."""
    assert caller(Request({"type": "http", "headers": []}), KEYS, Verifier(SECRET)) is None
