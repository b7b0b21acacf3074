"""Broadcasts over HTTP: what is sent, with which token, and what is made of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.unit.client.conftest import KEY
from tests.unit.client.test_client import T1

from backbeat.errors import BackbeatError, BadRequest, ClientError, Denied, NoReply, RateLimited, Refusal

if TYPE_CHECKING:
    from tests.unit.client.conftest import MakeClient

    from backbeat import RealtimeClient
    from backbeat.testing import MemoryServer

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def requests() -> list[httpx.Request]:
    """The requests that were made."""
    return []


@pytest.fixture
def over_http(make_client: MakeClient, requests: list[httpx.Request]) -> Callable[..., RealtimeClient]:
    """Make a client whose HTTP requests are answered by a function, or one answer after the other."""

    def make(*answers: httpx.Response | Exception, **options: Any) -> RealtimeClient:
        left = list(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            given = left.pop(0)
            if isinstance(given, Exception):
                raise given
            return given

        transport = httpx.MockTransport(answer)
        return make_client(http=lambda: httpx.AsyncClient(transport=transport), **options)

    return make


async def test_e1_the_users_token_goes_with_the_request(
    over_http: Callable[..., RealtimeClient], requests: list[httpx.Request]
) -> None:
    """After waiting for the source; the key is always there, and never in the URL."""

    async def source() -> str:
        return T1

    client = over_http(httpx.Response(202), token=source)
    await client.channel("a/b", private=True).http_send("hi", {"n": 1})
    (request,) = requests
    assert str(request.url) == "http://memory/realtime/v1/api/broadcast/a%2Fb/events/hi?private=true"
    assert (request.headers["authorization"], request.headers["apikey"]) == (f"Bearer {T1}", KEY)
    assert (request.headers["content-type"], json.loads(request.content)) == ("application/json", {"n": 1})
    assert client.state == "idle"


async def test_e1_without_a_token_there_is_no_such_header(
    over_http: Callable[..., RealtimeClient], requests: list[httpx.Request]
) -> None:
    """The key alone; bytes are sent as bytes."""
    await over_http(httpx.Response(202)).broadcast_http("room", "hi", b"\xff")
    (request,) = requests
    assert "authorization" not in request.headers
    assert "private" not in str(request.url)
    assert (request.headers["content-type"], request.content) == ("application/octet-stream", b"\xff")


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (401, {"message": "Unauthorized"}, Refusal, "Unauthorized"),
        (403, {"message": "Unauthorized"}, Denied, "INSERT policy"),
        (404, {"message": "not found"}, BadRequest, "2.97.0"),
        (413, None, BackbeatError, "413"),
        (422, {"message": "RLS policy error"}, Denied, "RLS policy error"),
        (400, "<html>", BackbeatError, "HTTP status 400"),
    ],
)
async def test_a_refusal_is_raised(
    over_http: Callable[..., RealtimeClient], status: int, body: Any, error: type[Exception], text: str
) -> None:
    """With what the server says, and what to do."""
    client = over_http(httpx.Response(status, json=body))
    with pytest.raises(error) as refused:
        await client.broadcast_http("room", "hi", {})
    assert text in str(refused.value)


async def test_what_may_pass_is_tried_again(
    over_http: Callable[..., RealtimeClient], requests: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the server asks; three times; not at all if it asks for too long."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("backbeat.client.http.asyncio.sleep", sleep)
    limited = {"message": "You have exceeded your rate limit"}
    client = over_http(
        httpx.Response(429, json=limited, headers={"Retry-After": "3"}),
        httpx.Response(503),
        httpx.Response(202),
    )
    await client.broadcast_http("room", "hi", {})
    assert pauses == [3.0, 2.0]
    client = over_http(*(httpx.Response(429, json=limited) for _ in range(3)))
    with pytest.raises(RateLimited):
        await client.broadcast_http("room", "hi", {})
    client = over_http(httpx.Response(429, json=limited, headers={"Retry-After": "600"}))
    with pytest.raises(RateLimited):
        await client.broadcast_http("room", "hi", {})
    assert len(requests) == 7


async def test_a_server_that_cannot_be_reached_is_said(over_http: Callable[..., RealtimeClient]) -> None:
    """Without what the library would tell about the request."""
    client = over_http(httpx.ConnectError(f"no route with {KEY}"))
    with pytest.raises(ClientError) as failed:
        await client.broadcast_http("room", "hi", {})
    assert KEY not in str(failed.value)
    assert failed.value.__cause__ is None


async def test_a_server_that_does_not_answer_is_given_up(
    make_client: MakeClient, server: MemoryServer
) -> None:
    """After the timeout of the call."""
    from backbeat.testing.socket import never

    async def hang(request: httpx.Request) -> httpx.Response:
        await never()
        return httpx.Response(202)

    client = make_client(http=lambda: httpx.AsyncClient(transport=httpx.MockTransport(hang)))
    with pytest.raises(NoReply, match=r"0.01 s"):
        await client.broadcast_http("room", "hi", {}, timeout=0.01)
    assert server.opened == 0
