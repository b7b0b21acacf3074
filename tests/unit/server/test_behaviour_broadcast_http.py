"""Broadcast over HTTP: what the limits, the policies and the tokens of a project make of a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from structlog.testing import capture_logs
from tests.unit.server.conftest import SECRET, Server

from backbeat.postgres.authorize import Grants, Permissions
from backbeat.server.broadcast_api import broadcast_routes
from backbeat.server.keyring import Keyring
from backbeat.server.limits import LimitSettings
from backbeat.websocket.frames import Opcode

KEY = "sb_publishable_x"
BATCH, SINGLE = "/api/broadcast", "/api/broadcast/room/events/ping"
READ_ONLY = replace(Permissions.all(), write=Grants(broadcast=False, presence=False))

VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


def http(server: Server, **headers: str) -> httpx.AsyncClient:
    """A caller of the server with its real limits."""
    app = Starlette(routes=broadcast_routes(server.realtime, limiter=server.realtime.limits))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://server", headers=headers or {"apikey": KEY}
    )


def batch(*topics: str, private: bool = False) -> dict[str, Any]:
    """A message for each topic."""
    return {
        "messages": [{"topic": each, "event": "ping", "payload": {}, "private": private} for each in topics]
    }


# Rights -----------------------------------------------------------------------------------------------------


@VERSIONS
async def test_with_every_right_a_batch_reaches_every_topic(server: Server, vsn: str) -> None:
    """Public and private ones; there is nothing to say about it."""
    listeners = [await server.joined(vsn, f"realtime:{topic}", private=True) for topic in ("a", "b")]
    listeners.append(await server.joined(vsn, "realtime:a"))
    messages = batch("a", "b", private=True)["messages"] + batch("a")["messages"]
    async with http(server) as caller:
        response = await caller.post(BATCH, json={"messages": messages})
    assert (response.status_code, response.content) == (202, b"")
    assert [len(await listener.settled()) for listener in listeners] == [1, 1, 1]


async def test_without_any_right_a_private_batch_reaches_nobody(server: Server) -> None:
    """The status is 202 all the same; every message is named."""
    listeners = [await server.joined(topic=f"realtime:{topic}", private=True) for topic in ("a", "b")]
    server.policies.answers |= {"a": READ_ONLY, "b": READ_ONLY}
    async with http(server) as caller:
        response = await caller.post(BATCH, json=batch("a", "b", private=True))
    assert response.status_code == 202
    assert [each["topic"] for each in response.json()["refused"]] == ["a", "b"]
    assert [await listener.settled() for listener in listeners] == [[], []]


async def test_a_single_private_message_that_is_refused_reaches_nobody(server: Server) -> None:
    """403, and silence in the channel."""
    listener = await server.joined(private=True)
    server.policies.answers["room"] = READ_ONLY
    async with http(server) as caller:
        response = await caller.post(f"{SINGLE}?private=true", json={})
    assert response.status_code == 403
    assert listener.frames() == []


async def test_a_single_private_message_is_heard_in_the_private_channel_only(server: Server) -> None:
    """The public channel of that name is another room."""
    public, private = await server.joined(), await server.joined(private=True)
    async with http(server) as caller:
        await caller.post(f"{SINGLE}?private=true", json={})
    await asyncio.sleep(0)
    assert (len(public.frames()), len(private.frames())) == (0, 1)


async def test_a_public_message_asks_no_policy(server: Server) -> None:
    """Neither in a batch nor alone."""
    async with http(server) as caller:
        await caller.post(BATCH, json=batch("a", "b"))
        await caller.post(SINGLE, json={})
    assert server.policies.asked == []


# Limits -----------------------------------------------------------------------------------------------------


async def test_a_batch_larger_than_the_limit_is_refused(start: Callable[..., Server]) -> None:
    """With the text that says what to do; nobody hears any of it."""
    server = start(limits=LimitSettings(max_events_per_second=2))
    listener = await server.joined()
    async with http(server) as caller:
        response = await caller.post(BATCH, json=batch(*["room"] * 100))
    text = "Too many messages to broadcast, please reduce the batch size"
    assert (response.status_code, response.json()) == (429, {"message": text})
    assert await listener.settled() == []


@pytest.mark.parametrize("path", [BATCH, SINGLE])
async def test_too_many_requests_are_refused(start: Callable[..., Server], path: str) -> None:
    """Also those that come without a token."""
    server = start(limits=LimitSettings(max_events_per_second=1))
    async with http(server, host="server") as caller:
        answers = [await caller.post(path, json={}) for _ in range(30)]
    assert (answers[0].status_code, answers[-1].status_code) == (401, 429)
    assert answers[-1].json() == {"message": "Too many requests"}


async def test_messages_sent_by_others_leave_none_over_http(start: Callable[..., Server]) -> None:
    """A caller without a share left is refused in its own words."""
    server = start(limits=LimitSettings(max_events_per_second=10))
    now = server.realtime.loop.time()
    while server.realtime.limits.http(1, now) is None:
        pass
    async with http(server) as caller:
        response = await caller.post(SINGLE, json={})
    assert (response.status_code, response.json()) == (429, {"message": "You have exceeded your rate limit"})


async def test_without_a_limit_any_batch_is_sent(start: Callable[..., Server]) -> None:
    """0 is no limit; a batch is still one write to each member."""
    server = start(limits=LimitSettings(max_events_per_second=0))
    listener = await server.joined()
    async with http(server) as caller:
        response = await caller.post(BATCH, json=batch(*["room"] * 1000))
    assert response.status_code == 202
    assert len(await listener.settled()) == 1000


# Sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "status"), [(10, 202), (11, 422)])
async def test_a_binary_message_has_the_same_size_limit(
    start: Callable[..., Server], size: int, status: int
) -> None:
    """To the byte; what is refused is not delivered."""
    server = start(max_payload_bytes=10)
    listener = await server.joined()
    async with http(server, apikey=KEY, **{"content-type": "application/octet-stream"}) as caller:
        response = await caller.post(SINGLE, content=b"\xff" * size)
    assert response.status_code == status
    await asyncio.sleep(0)
    assert len(listener.frames()) == (status == 202)


# Tokens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream"])
async def test_an_expired_token_sends_no_single_message(server: Server, content_type: str) -> None:
    """Whatever the message is."""
    token = server.token(exp=int(server.clock.now) - 1)
    headers = {"authorization": f"Bearer {token}", "content-type": content_type}
    async with http(server, **headers) as caller:
        response = await caller.post(SINGLE, content=b"{}")
    assert (response.status_code, response.json()) == (401, {"message": "Unauthorized"})


async def test_the_header_apikey_is_another_than_x_api_key(server: Server) -> None:
    """The latter opens sockets, and is not looked at here."""
    async with http(server, **{"x-api-key": KEY}) as caller:
        response = await caller.post(SINGLE, json={})
    assert response.status_code == 401


@pytest.fixture
async def foreign(server: Server, tmp_path: Path) -> str:
    """A token whose key is not in the key set of the server."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "known"}
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [public]}))
    keyring = Keyring(SECRET, source=str(path))
    await keyring.start()
    await keyring.aclose()  # the keys that were read stay
    server.realtime.keyring = keyring
    claims = {"role": "authenticated", "exp": int(server.clock.now) + 60}
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "stranger"})


async def test_a_token_with_an_unknown_key_sends_nothing(server: Server, foreign: str) -> None:
    """401, with the text of all bad tokens."""
    async with http(server, authorization=f"Bearer {foreign}") as caller:
        response = await caller.post(SINGLE, json={})
    assert (response.status_code, response.json()) == (401, {"message": "Unauthorized"})


async def test_a_token_with_an_unknown_key_is_logged_with_its_kid(server: Server, foreign: str) -> None:
    """An operator learns which key is missing; the token itself is not in the log."""
    with capture_logs() as lines:
        async with http(server, authorization=f"Bearer {foreign}") as caller:
            await caller.post(SINGLE, json={})
    (line,) = [line for line in lines if line["event"] == "request refused"]
    assert line["code"] == "JwtSignerError"
    assert "stranger" in line["hint"]
    assert foreign not in str(lines)


# The log ----------------------------------------------------------------------------------------------------


async def test_what_a_caller_did_wrong_is_no_error_of_the_server(server: Server) -> None:
    """It is logged as information, once, with its status."""
    with capture_logs() as lines:
        async with http(server) as caller:
            await caller.post(BATCH, json={})
    assert [(line["log_level"], line["status"]) for line in lines] == [("info", 422)]


async def test_what_the_server_did_wrong_is_an_error(server: Server) -> None:
    """It is logged as one, with the traceback."""
    server.policies.answers["room"] = ZeroDivisionError("a mistake")
    with capture_logs() as lines:
        async with http(server) as caller:
            await caller.post(f"{SINGLE}?private=true", json={})
    (error,) = [line for line in lines if line["log_level"] == "error"]
    assert (error["event"], error["exc_info"]) == ("request failed", True)


async def test_what_succeeds_is_not_logged(server: Server) -> None:
    """Messages are counted; a line for each would drown the rest."""
    with capture_logs() as lines:
        async with http(server) as caller:
            await caller.post(SINGLE, json={})
            await caller.get("/api/ping")
    assert lines == []


# In the room ------------------------------------------------------------------------------------------------


async def test_a_sender_with_a_socket_hears_its_own_http_message(server: Server) -> None:
    """A request belongs to no channel, so nobody is left out: `self` is about the socket."""
    client = await server.joined(broadcast={"self": False})
    async with http(server, authorization=f"Bearer {server.token()}") as caller:
        await caller.post(BATCH, json=batch("room"))
    assert len(await client.settled()) == 1


async def test_a_message_for_nobody_is_accepted(server: Server) -> None:
    """And leaves no room behind."""
    async with http(server) as caller:
        response = await caller.post(SINGLE, json={})
    assert response.status_code == 202
    assert len(server.realtime.hub) == 0


async def test_bytes_have_no_metadata(server: Server) -> None:
    """Only stored messages have an id."""
    client = await server.joined()
    async with http(server, apikey=KEY, **{"content-type": "application/octet-stream"}) as caller:
        await caller.post(SINGLE, content=b"")
    await asyncio.sleep(0)
    topic = b"realtime:room"
    assert client.frames() == [(Opcode.BINARY, bytes((4, len(topic), 4, 0, 0)) + topic + b"ping")]
