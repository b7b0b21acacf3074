"""The HTTP API: what is accepted, what is refused, and who receives it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from tests.unit.server.conftest import Client, Server

from backbeat.postgres.authorize import Grants, Permissions
from backbeat.protocol import reasons
from backbeat.protocol.reasons import Reason
from backbeat.server.broadcast_api import MAX_BODY_BYTES, Limiter, broadcast_routes
from backbeat.server.broadcast_batch import PER_TURN
from backbeat.server.endpoint import request_id
from backbeat.server.openapi import document
from backbeat.websocket.frames import Opcode

KEY = "sb_publishable_x"
READ_ONLY = replace(Permissions.all(), write=Grants(broadcast=False, presence=False))
UNAUTHORIZED = {"message": "Unauthorized"}
BLANK = ["can't be blank"]


def http(server: Server, limiter: Limiter | None = None, **headers: str) -> httpx.AsyncClient:
    """A caller with the project's key; a header that is empty is not sent."""
    app = Starlette(routes=broadcast_routes(server.realtime, limiter=limiter))
    chosen = {name: value for name, value in ({"apikey": KEY} | headers).items() if value}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", headers=chosen)


async def heard(client: Client) -> list[dict[str, Any]]:
    """The payloads of the text messages that arrived."""
    return [message[4] for message in await client.settled()]


def message(topic: str = "room", event: object = "ping", **rest: Any) -> dict[str, Any]:
    """One message of a batch."""
    return {"topic": topic, "event": event, "payload": {}} | rest


class Budget:
    """A limiter that does what it is told, and remembers what it was asked."""

    def __init__(self, *, requests: Reason | None = None, messages: Reason | None = None) -> None:
        self.requests = requests
        self.messages = messages
        self.counted: list[int] = []

    def request(self, _: float) -> Reason | None:
        """Count a request."""
        return self.requests

    def http(self, count: int, _: float) -> Reason | None:
        """Count messages."""
        self.counted.append(count)
        return self.messages


# Batches ----------------------------------------------------------------------------------------------------


async def test_a_large_batch_leaves_others_their_turns(server: Server) -> None:
    """It is read and sent in parts, in order."""
    client, turns = await server.joined(), 0
    loop = asyncio.get_running_loop()

    def next_turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(next_turn)

    next_turn()
    async with http(server, Budget()) as caller:
        numbers = [*range(20 * PER_TURN)]
        sent = [message(payload={"n": number}) for number in numbers]
        assert (await caller.post("/api/broadcast", json={"messages": sent})).status_code == 202
    assert turns >= 40
    assert [each["payload"]["n"] for each in await heard(client)] == numbers


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_a_batch_reaches_every_version_as_text(server: Server, vsn: str) -> None:
    """Event, payload and type are in the payload; there is no meta without an id."""
    client = await server.joined(vsn=vsn)
    async with http(server) as caller:
        response = await caller.post("/api/broadcast", json={"messages": [message(payload={"n": 1})]})
    assert (response.status_code, response.content) == (202, b"")
    assert [each[1:] for each in await client.settled()] == [
        [None, "realtime:room", "broadcast", {"event": "ping", "payload": {"n": 1}, "type": "broadcast"}]
    ]


async def test_the_gateway_path_is_the_same(server: Server) -> None:
    """A client derives `/realtime/v1/api/broadcast` from its socket URL, with the key in the query."""
    client = await server.joined()
    async with http(server) as caller:
        await caller.post("/realtime/v1/api/broadcast?apikey=x&vsn=2.0.0", json={"messages": [message()]})
    assert len(await heard(client)) == 1


async def test_an_id_becomes_meta(server: Server) -> None:
    """Receivers find the id of a message where they find those of stored ones."""
    client = await server.joined()
    async with http(server) as caller:
        await caller.post("/api/broadcast", json={"messages": [message(id="m-1")]})
    assert (await heard(client))[0]["meta"] == {"id": "m-1"}


async def test_a_batch_keeps_its_order(server: Server) -> None:
    """Messages for one topic arrive in the order of the batch."""
    client = await server.joined()
    batch = [message(event=str(number)) for number in range(5)]
    async with http(server) as caller:
        await caller.post("/api/broadcast", json={"messages": batch})
    assert [each["event"] for each in await heard(client)] == ["0", "1", "2", "3", "4"]


async def test_public_and_private_rooms_are_apart(server: Server) -> None:
    """A private message is heard in the private channel of that name only."""
    public, private = await server.joined(), await server.joined(private=True)
    async with http(server) as caller:
        batch = [message(event="open"), message(event="closed", private=True)]
        await caller.post("/api/broadcast", json={"messages": batch})
    assert [each["event"] for each in await heard(public)] == ["open"]
    assert [each["event"] for each in await heard(private)] == ["closed"]


async def test_what_a_policy_refuses_is_named(server: Server) -> None:
    """The status stays 202, the rest is sent, and the answer says which message was refused, and why."""
    server.policies.answers["no"] = READ_ONLY
    client = await server.joined(private=True)
    batch = [message("no", private=True), message(private=True), message("no")]
    async with http(server) as caller:
        response = await caller.post("/api/broadcast", json={"messages": batch})
    assert response.status_code == 202
    assert response.json() == {
        "refused": [
            {
                "index": 0,
                "topic": "no",
                "code": "Unauthorized",
                "reason": "You do not have permissions to send to this Channel topic: no",
            }
        ]
    }
    assert len(await heard(client)) == 1


async def test_each_topic_is_asked_about_once(server: Server) -> None:
    """However many messages a batch has for it."""
    batch = [message(topic, private=True) for topic in ("a", "b", "a", "b")]
    async with http(server) as caller:
        await caller.post("/api/broadcast", json={"messages": batch})
    assert [topic for topic, _ in server.policies.asked] == ["a", "b"]


async def test_an_absent_database_is_asked_once(server: Server) -> None:
    """When it could not answer for one topic, the others are refused without waiting for it again."""
    server.policies.answers["a"] = reasons.DATABASE_UNREACHABLE.refusal(topic="a")
    async with http(server) as caller:
        response = await caller.post(
            "/api/broadcast", json={"messages": [message("a", private=True), message("b", private=True)]}
        )
    assert [each["code"] for each in response.json()["refused"]] == ["UnableToConnectToProject"] * 2
    assert len(server.policies.asked) == 1


async def test_a_failing_policy_costs_its_topic(server: Server) -> None:
    """Other topics of the batch are asked about and sent to."""
    server.policies.answers["a"] = reasons.POLICY_FAILED.refusal(topic="a")
    client = await server.joined(topic="realtime:b", private=True)
    async with http(server) as caller:
        batch = [message("a", private=True), message("b", private=True)]
        await caller.post("/api/broadcast", json={"messages": batch})
    assert len(await heard(client)) == 1


async def test_policies_are_asked_as_the_user(server: Server) -> None:
    """The Bearer token decides, not the key beside it."""
    async with http(server, authorization=f"Bearer {server.token(sub='mike')}") as caller:
        await caller.post("/api/broadcast", json={"messages": [message(private=True)]})
    assert server.policies.asked[0][1].sub == "mike"


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, BLANK),
        ([], BLANK),
        ({"messages": None}, BLANK),
        ({"messages": []}, BLANK),
        ({"messages": {}}, ["is invalid"]),
        ({"messages": [{}]}, [{"topic": BLANK, "event": BLANK, "payload": BLANK}]),
        ({"messages": [7]}, [{"topic": BLANK, "event": BLANK, "payload": BLANK}]),
        ({"messages": [message(topic=" ")]}, [{"topic": BLANK}]),
        ({"messages": [message(event=1)]}, [{"event": ["is invalid"]}]),
        ({"messages": [message(payload=[1])]}, [{"payload": ["is invalid"]}]),
        ({"messages": [message(private="no")]}, [{"private": ["is invalid"]}]),
        ({"messages": [message(id=7)]}, [{"id": ["is invalid"]}]),
        ({"messages": [message(), message(payload=None)]}, [{}, {"payload": BLANK}]),
        (
            {"messages": [message(payload={"n": "x" * 100})]},
            [{"payload": ["Payload size exceeds tenant limit"]}],
        ),
    ],
)
async def test_a_batch_that_makes_no_sense_is_not_sent(
    start: Callable[..., Server], body: object, errors: object
) -> None:
    """One object for each message says what is wrong with it; the good ones are not sent either."""
    server = start(max_payload_bytes=100)
    client = await server.joined()
    async with http(server) as caller:
        response = await caller.post("/api/broadcast", json=body)
    assert (response.status_code, response.json()) == (422, {"errors": {"messages": errors}})
    assert await heard(client) == []


async def test_an_empty_batch_body_has_no_messages(server: Server) -> None:
    """No body at all is like an empty object."""
    async with http(server) as caller:
        response = await caller.post("/api/broadcast")
    assert response.json() == {"errors": {"messages": BLANK}}


# Single messages --------------------------------------------------------------------------------------------


async def test_a_json_message_arrives_binary_or_as_text(server: Server) -> None:
    """Version 2 receives the payload untouched behind a header; version 1 an object around it."""
    new, old = await server.joined(vsn="2.0.0"), await server.joined(vsn="1.0.0")
    async with http(server) as caller:
        response = await caller.post(
            "/api/broadcast/room/events/hi",
            content=b'{"x": 1}',
            headers={"content-type": "application/json; charset=utf-8"},
        )
    assert (response.status_code, response.content) == (202, b"")
    await asyncio.sleep(0)
    assert new.frames() == [(Opcode.BINARY, b'\x04\x0d\x02\x00\x01realtime:roomhi{"x": 1}')]
    assert await heard(old) == [{"event": "hi", "payload": {"x": 1}, "type": "broadcast"}]


async def test_bytes_arrive_as_bytes(server: Server) -> None:
    """Whatever they are; a version 1 client cannot receive them."""
    new, old = await server.joined(vsn="2.0.0"), await server.joined(vsn="1.0.0")
    async with http(server) as caller:
        await caller.post(
            "/api/broadcast/room/events/hi",
            content=b"\xff\x00",
            headers={"content-type": "application/octet-stream"},
        )
    await asyncio.sleep(0)
    assert new.frames() == [(Opcode.BINARY, b"\x04\x0d\x02\x00\x00realtime:roomhi\xff\x00")]
    assert await heard(old) == []


@pytest.mark.parametrize(
    ("content_type", "body", "payload"),
    [
        ("application/json", b"", b"{}"),
        ("application/json", b"[1]", b"[1]"),
        ("application/json", b'{"private":true}', b'{"private":true}'),
        ("application/octet-stream", b"", b""),
        (None, b"not read", b"{}"),
    ],
)
async def test_a_payload_is_passed_on_as_it_is(
    server: Server, content_type: str | None, body: bytes, payload: bytes
) -> None:
    """Nothing is wrapped and no key is looked at; without a content type the payload is empty."""
    client = await server.joined()
    headers = {"content-type": content_type} if content_type else {}
    async with http(server) as caller:
        response = await caller.post("/api/broadcast/room/events/e", content=body, headers=headers)
    assert response.status_code == 202
    await asyncio.sleep(0)
    assert client.frames()[0][1].partition(b"realtime:roome")[2] == payload


@pytest.mark.parametrize("topic", ["a/b", "a:b:c", "ä ?#%", "events/events"])
async def test_any_topic_can_be_written_in_a_path(server: Server, topic: str) -> None:
    """Percent-encoded, slashes included, as `encodeURIComponent` does."""
    client = await server.joined(topic=f"realtime:{topic}")
    encoded = "".join(f"%{byte:02X}" for byte in topic.encode())
    async with http(server) as caller:
        response = await caller.post(f"/realtime/v1/api/broadcast/{encoded}/events/e", json={})
    assert response.status_code == 202
    await asyncio.sleep(0)
    assert len(client.frames()) == 1


@pytest.mark.parametrize("path", ["//events/e", "/a/events/", "/a/b/events/e", "/a/events", "/%ff/events/e"])
async def test_a_path_without_topic_or_event_is_not_found(server: Server, path: str) -> None:
    """More parts, empty parts, and parts that are no text."""
    async with http(server) as caller:
        response = await caller.post(f"/api/broadcast{path}", json={})
    assert (response.status_code, response.json()) == (404, {"message": "not found"})


@pytest.mark.parametrize(("value", "private"), [("true", True), ("1", True), ("false", False), ("", False)])
async def test_the_query_makes_a_message_private(server: Server, value: str, private: bool) -> None:
    """Only then are policies asked."""
    async with http(server) as caller:
        await caller.post(f"/api/broadcast/room/events/e?private={value}", json={})
    assert bool(server.policies.asked) is private


async def test_an_unclear_query_does_not_make_a_message_public(server: Server) -> None:
    """What is neither true nor false is refused."""
    client = await server.joined()
    async with http(server) as caller:
        response = await caller.post("/api/broadcast/room/events/e?private=yes", json={})
    assert (response.status_code, response.json()) == (422, {"errors": {"private": ["is invalid"]}})
    assert await heard(client) == []


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (READ_ONLY, 403, "Unauthorized"),
        (replace(READ_ONLY, write_refusal=reasons.BROADCAST_DENIED.refusal()), 422, "RLS policy error"),
        (reasons.POLICY_FAILED.refusal(), 422, "RLS policy error"),
        (reasons.QUERY_CANCELED.refusal(), 422, "Query canceled"),
        (reasons.MISSING_PARTITION.refusal(), 422, "Missing messages partition"),
        (reasons.DATABASE_UNREACHABLE.refusal(), 422, "Tenant database unavailable"),
        (reasons.POOL_EXHAUSTED.refusal(), 429, "Connection pool exhausted"),
    ],
)
async def test_a_private_message_is_refused_in_words(
    server: Server, answer: Permissions | Exception, status: int, text: str
) -> None:
    """Section 6.5: a policy that says no is not a policy that failed."""
    server.policies.answers["room"] = answer
    async with http(server) as caller:
        response = await caller.post("/api/broadcast/room/events/e?private=true", json={})
    assert (response.status_code, response.json()) == (status, {"message": text})


async def test_a_large_payload_is_refused(start: Callable[..., Server]) -> None:
    """At the limit of the server, not of the request."""
    server = start(max_payload_bytes=10)
    async with http(server) as caller:
        good = await caller.post("/api/broadcast/room/events/e", json="x" * 8)
        bad = await caller.post("/api/broadcast/room/events/e", json="x" * 9)
    assert good.status_code == 202
    assert (bad.status_code, bad.json()) == (
        422,
        {"errors": {"payload": ["Payload size exceeds tenant limit"]}},
    )


async def test_a_long_event_is_refused_at_its_sender(server: Server) -> None:
    """A binary header has one byte for its length."""
    async with http(server) as caller:
        response = await caller.post(f"/api/broadcast/room/events/{'e' * 256}", json={})
    assert (response.status_code, response.json()) == (
        422,
        {"errors": {"event": ["should be at most 255 byte(s)"]}},
    )


# What all of it has in common -------------------------------------------------------------------------------

PATHS = ["/api/broadcast", "/api/broadcast/room/events/e"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("apikey", "authorization"),
    [
        ("", ""),
        ("nonsense", ""),
        (KEY, "nonsense"),
        (KEY, "Bearer nonsense"),
        (KEY, "Basic dTpw"),
        ("", "Bearer \xff.\xff.\xff"),
    ],
)
async def test_without_a_good_token_nothing_is_sent(
    server: Server, path: str, apikey: str, authorization: str
) -> None:
    """A bad token is not replaced by the key beside it, and one without a space is no failure."""
    client = await server.joined()
    headers = {"apikey": apikey, "authorization": authorization}
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items() if value]
    async with http(server, apikey="") as caller:
        response = await caller.post(path, json={"messages": [message()]}, headers=sent)
    assert (response.status_code, response.json()) == (401, UNAUTHORIZED)
    assert await heard(client) == []


async def test_an_expired_token_is_refused(server: Server) -> None:
    """The text is the same as without a token."""
    async with http(server, authorization=f"Bearer {server.token(exp=1)}") as caller:
        response = await caller.post("/api/broadcast", json={"messages": [message()]})
    assert (response.status_code, response.json()) == (401, UNAUTHORIZED)


@pytest.mark.parametrize(
    ("apikey", "authorization"),
    [
        (KEY, ""),
        (KEY, f"Bearer {KEY}"),
        ("", f"bEARER {KEY}"),
        ("{token}", ""),
        ("", "Bearer {token}"),
        (KEY, "Bearer {token}"),
    ],
)
async def test_every_way_to_send_a_key_works(server: Server, apikey: str, authorization: str) -> None:
    """Section 2.2 of the HTTP surface specification."""
    token = server.token()
    keys = {"apikey": apikey.format(token=token), "authorization": authorization.format(token=token)}
    async with http(server, None, **keys) as caller:
        response = await caller.post("/api/broadcast", json={"messages": [message()]})
    assert response.status_code == 202


async def test_an_unknown_opaque_key_is_called_so(server: Server) -> None:
    """It is nobody's token: the caller is told to look at the key."""
    async with http(server, apikey="sb_publishable_y") as caller:
        response = await caller.post("/api/broadcast", json={"messages": [message()]})
    assert (response.status_code, response.json()) == (401, {"message": "Invalid API key"})


async def test_an_explaining_server_says_what_is_wrong_with_the_token(start: Callable[..., Server]) -> None:
    """Code and hint come beside the text that clients match on; never the token."""
    server = start(explain=True)
    token = server.token(exp=int(server.clock.now) - 5)
    async with http(server, authorization=f"Bearer {token}") as caller:
        body = (await caller.post("/api/broadcast", json={})).json()
    assert body["message"] == "Unauthorized"
    assert body["code"] == "InvalidJWTToken"
    assert body["hint"].startswith("Token has expired 5 seconds ago. This is the user token ")
    assert token not in body["hint"]


async def test_an_explaining_server_says_which_policy_is_missing(start: Callable[..., Server]) -> None:
    """For a single message, and for each refused message of a batch."""
    server = start(explain=True)
    server.policies.answers["room"] = READ_ONLY
    async with http(server) as caller:
        single = await caller.post("/api/broadcast/room/events/e?private=true", json={})
        batch = await caller.post("/api/broadcast", json={"messages": [message(private=True)]})
    for answer in (single.json(), batch.json()["refused"][0]):
        assert "Asked with the api key" in answer["hint"]
        assert "INSERT policy on realtime.messages" in answer["hint"]


async def test_an_explaining_server_says_how_a_batch_looks(start: Callable[..., Server]) -> None:
    """Beside the errors by field."""
    async with http(start(explain=True)) as caller:
        body = (await caller.post("/api/broadcast", json={})).json()
    assert body["errors"] == {"messages": BLANK}
    assert body["code"] == "UnprocessableEntity"
    assert "A batch is" in body["hint"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"messages":"\xff"}', b"NaN", b"[" * 100_000, b"{} {}"])
async def test_a_broken_body_is_refused(server: Server, path: str, body: bytes) -> None:
    """Not JSON, not UTF-8, or nested too deeply."""
    async with http(server) as caller:
        response = await caller.post(path, content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()) == (
        400,
        {"message": "The request body is not valid JSON"},
    )


@pytest.mark.parametrize(
    ("path", "types"),
    [(PATHS[0], "application/json"), (PATHS[1], "application/json or application/octet-stream")],
)
@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
async def test_other_content_types_are_refused(
    server: Server, path: str, types: str, content_type: str
) -> None:
    """Before the token is looked at, under the key `error`."""
    async with http(server, apikey="") as caller:
        response = await caller.post(path, content=b"x", headers={"content-type": content_type})
    assert response.status_code == 415
    assert response.json() == {"error": f"Unsupported Media Type. Use {types}"}


async def test_a_body_beyond_the_limit_is_not_read_to_its_end(server: Server) -> None:
    """Reading stops at 8 MB."""
    chunks = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal chunks
        for chunks in range(1, 100):  # noqa: B007 - counted from outside
            yield b" " * (MAX_BODY_BYTES // 4)

    async with http(server) as caller:
        response = await caller.post("/api/broadcast", content=body())
    assert (response.status_code, response.json()) == (
        413,
        {"message": "The request body is larger than 8 MB"},
    )
    assert chunks == 5


async def test_a_caller_that_hangs_up_is_no_failure(server: Server) -> None:
    """In the middle of its body; there is nobody to answer."""
    app = Starlette(routes=broadcast_routes(server.realtime))
    scope = {
        "type": "http", "method": "POST", "path": "/api/broadcast", "raw_path": b"/api/broadcast",
        "query_string": b"", "headers": [(b"apikey", KEY.encode())],
    }  # fmt: skip
    received: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> dict[str, Any]:
        return next(received)

    async def send(_: MutableMapping[str, Any]) -> None:
        pass

    await app(scope, receive, send)
    assert server.realtime.metrics.handler_failures == 0


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0, */*", "image/png, text/*"])
async def test_a_caller_that_takes_no_json_is_refused(server: Server, accept: str) -> None:
    """There is no other answer to give."""
    async with http(server, accept=accept) as caller:
        response = await caller.get("/api/ping")
    assert response.status_code == 406


@pytest.mark.parametrize(
    "accept", ["*/*", "text/html, application/*;q=0.5", "Application/JSON; charset=utf-8"]
)
async def test_a_caller_that_takes_json_is_served(server: Server, accept: str) -> None:
    """Among others, or by a wildcard."""
    async with http(server, accept=accept) as caller:
        response = await caller.get("/api/ping")
    assert (response.status_code, response.json()) == (200, {"message": "Success"})


async def test_another_method_is_refused(server: Server) -> None:
    """In JSON, with the methods that are allowed."""
    async with http(server) as caller:
        response = await caller.get("/api/broadcast")
    assert (response.status_code, response.json()) == (405, {"message": "method not allowed"})
    assert response.headers["allow"] == "OPTIONS, POST"


@pytest.mark.parametrize("prefix", ["/api", "/realtime/v1/api"])
async def test_another_path_is_not_found(server: Server, prefix: str) -> None:
    """In JSON."""
    async with http(server) as caller:
        response = await caller.get(f"{prefix}/nothing/here")
    assert (response.status_code, response.json()) == (404, {"message": "not found"})


async def test_a_preflight_needs_no_key(server: Server) -> None:
    """A browser may send whatever headers it asks for."""
    asked = {
        "access-control-request-headers": "apikey, x-client-info",
        "access-control-request-method": "POST",
    }
    async with http(server, apikey="") as caller:
        response = await caller.options("/api/broadcast", headers=asked)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["access-control-allow-headers"] == "apikey, x-client-info"
    assert "POST" in response.headers["access-control-allow-methods"]


async def test_a_page_may_read_errors(server: Server) -> None:
    """Any origin, whatever the status."""
    async with http(server, apikey="") as caller:
        response = await caller.post("/api/broadcast", headers={"origin": "http://page"})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (401, "*")


async def test_a_request_is_named_as_its_caller_does(server: Server) -> None:
    """In every answer, errors included."""
    name = "a-name-of-good-length-7"
    async with http(server, baggage=f"user=mike, request-id={name};p=1") as caller:
        response = await caller.get("/api/nothing")
    assert response.headers["x-request-id"] == name


@pytest.mark.parametrize(
    "baggage",
    [
        "",
        "request-id=too-short",
        f"request-id={'x' * 201}",
        "request-id=a-name-with-a%0Aline-break",
        "request-id=a-name-that-is-not-%FF-text",
        "other=a-name-of-good-length-7",
    ],
)
def test_a_bad_name_for_a_request_is_replaced(baggage: str) -> None:
    """By one of the server's own."""
    assert len(request_id(baggage)) == 32
    assert request_id(baggage) != request_id(baggage)


async def test_too_many_requests_are_refused_before_the_token(server: Server) -> None:
    """Nobody is asked who they are."""
    async with http(server, Budget(requests=reasons.HTTP_REQUESTS_LIMIT), apikey="") as caller:
        answers = [await caller.post(path) for path in PATHS] + [await caller.get("/api/ping")]
    assert {answer.status_code for answer in answers} == {429}
    assert answers[0].json() == {"message": "Too many requests"}


async def test_too_many_messages_are_refused(server: Server) -> None:
    """Nothing of the batch is sent, and no policy is asked."""
    budget = Budget(messages=reasons.HTTP_BATCH_LIMIT)
    client = await server.joined()
    async with http(server, budget) as caller:
        response = await caller.post("/api/broadcast", json={"messages": [message(), message(private=True)]})
    assert response.status_code == 429
    assert response.json()["message"] == "Too many messages to broadcast, please reduce the batch size"
    assert budget.counted == [2]
    assert (await heard(client), server.policies.asked) == ([], [])


async def test_strangers_do_not_use_up_the_messages(server: Server) -> None:
    """Neither do messages that make no sense."""
    budget = Budget()
    async with http(server, budget, apikey="") as caller:
        await caller.post("/api/broadcast", json={"messages": [message()]})
        await caller.post("/api/broadcast", json={}, headers={"apikey": KEY})
    assert budget.counted == []


async def test_a_failure_of_ours_is_reported(server: Server) -> None:
    """The caller gets JSON and a name to ask about; the failure is counted."""
    server.policies.answers["room"] = ZeroDivisionError("a mistake")
    async with http(server) as caller:
        response = await caller.post("/api/broadcast/room/events/e?private=true", json={})
    assert (response.status_code, response.json()) == (500, {"message": "Unknown error"})
    assert server.realtime.metrics.handler_failures == 1


async def test_refusals_are_counted_by_code(server: Server) -> None:
    """Those of requests, and those of single messages in a batch."""
    server.policies.answers["room"] = READ_ONLY
    async with http(server) as caller:
        await caller.post("/api/broadcast", json={"messages": [message(private=True)]})
        await caller.get("/api/nothing")
    assert server.realtime.metrics.refusals == {"Unauthorized": 1, "NotFound": 1}


# The document -----------------------------------------------------------------------------------------------

OPERATIONS = [
    (path, method, operation)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
]


def nodes(value: object) -> list[dict[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(value, list):
        return [node for each in value for node in nodes(each)]
    if isinstance(value, dict):
        return [value, *(node for each in value.values() for node in nodes(each))]
    return []


def resolve(reference: str) -> Any:
    """What a `$ref` points to."""
    target: Any = document()
    for part in reference.removeprefix("#/").split("/"):
        target = target[part]
    return target


TYPES: dict[str, type] = {
    "object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None),
}  # fmt: skip


def conforms(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is what a schema says; the keywords that the document uses for answers."""
    if "$ref" in schema:
        return conforms(value, resolve(schema["$ref"]))
    if "anyOf" in schema:
        return any(conforms(value, each) for each in schema["anyOf"])
    types = schema.get("type", list(TYPES))
    if not any(isinstance(value, TYPES[each]) for each in ([types] if isinstance(types, str) else types)):
        return False
    if isinstance(value, list):
        return all(conforms(each, schema.get("items", {})) for each in value)
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            conforms(each, known.get(name, others)) for name, each in value.items()
        )
    return True


def assert_documented(response: httpx.Response, operation: dict[str, Any]) -> None:
    """An answer has a status that the document names, and a body as it says."""
    described = operation["responses"].get(str(response.status_code))
    assert described, (response.status_code, response.text)
    if response.content:
        assert response.headers["content-type"].startswith("application/json")
        schema = described["content"]["application/json"]["schema"]
        assert conforms(response.json(), schema), (response.status_code, response.text)


@pytest.mark.parametrize("path", ["/api/openapi", "/realtime/v1/api/openapi"])
async def test_the_document_is_served(server: Server, path: str) -> None:
    """To anybody, as JSON."""
    async with http(server, apikey="") as caller:
        response = await caller.get(path)
    assert (response.status_code, response.json()) == (200, document())


def test_every_reference_of_the_document_resolves() -> None:
    """And points to something."""
    references = [node["$ref"] for node in nodes(document()) if "$ref" in node]
    assert references
    assert all(resolve(reference) for reference in references)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_operation_is_described(path: str, method: str, operation: dict[str, Any]) -> None:
    """A name, a summary, a description for each answer, and the parameters of the path."""
    assert operation["operationId"]
    assert operation["summary"]
    assert all(response["description"] for response in operation["responses"].values())
    declared = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
    assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_operations_have_names_of_their_own() -> None:
    """Generated clients make functions of them."""
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_examples_conform_to_their_schemas() -> None:
    """The document is the first to obey it."""
    contents = [node for node in nodes(document()) if "example" in node]
    assert contents
    assert all(conforms(content["example"], content["schema"]) for content in contents)


async def test_the_document_names_the_paths_that_are_served(server: Server) -> None:
    """No more, no fewer, below each of its servers."""
    catch_all = "/{path}"
    served = {route.path_format for route in broadcast_routes(server.realtime)}
    described = {
        each["url"] + path for each in document()["servers"] for path in [*document()["paths"], catch_all]
    }
    assert served == described


# Anything ---------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
topics = st.sampled_from(["room", "no", "\0", "realtime:room", "\ud800", "x" * 300]) | st.text(max_size=10)
batches = st.fixed_dictionaries(
    {
        "messages": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "topic": topics | values,
                    "event": st.text(max_size=300) | values,
                    "payload": st.dictionaries(st.text(max_size=5), values, max_size=2) | values,
                    "private": st.booleans() | values,
                    "id": st.text(max_size=10) | values,
                },
            )
            | values,
            max_size=4,
        )
        | values
    }
)
bodies = st.binary(max_size=200) | (batches | values).map(lambda body: json.dumps(body).encode())
parts = st.sampled_from([b"room", b"no", b"events", b"%2F", b"%00", b"%ff", b"", b"%", b".."]) | st.binary(
    max_size=300
).map(lambda raw: b"".join(b"%%%02x" % byte for byte in raw))
paths = st.sampled_from(
    [b"/api/broadcast"] * 3 + [b"/api/ping", b"/api/broadcast/room/events/e"]
) | st.builds(
    lambda prefix, topic, event: b"%b/broadcast/%b/events/%b" % (prefix, topic, event),
    st.sampled_from([b"/api", b"/realtime/v1/api"]),
    parts,
    parts,
)
queries = st.sampled_from(
    [b"", b"", b"?private=true", b"?private=false", b"?private", b"?private=%ff&private"]
)
header_values = st.binary(max_size=30).filter(lambda raw: not {0, 10, 13} & set(raw))
headers = st.fixed_dictionaries(
    {b"apikey": st.sampled_from([KEY.encode()] * 6 + [b"", b"sb_x", b"a.b.c"]) | header_values},
    optional={
        name: st.sampled_from(known) | header_values
        for name, known in {
            b"content-type": [b"application/json"] * 6 + [b"application/octet-stream", b"text/plain", b";"],
            b"authorization": [b"Bearer " + KEY.encode()] * 6 + [b"Bearer", b"Bearer a.b.c", b"nonsense"],
            b"accept": [b"*/*"] * 6 + [b"application/json", b"text/html", b";;,,q=0"],
            b"baggage": [b"request-id=" + b"x" * 30, b"=,;="],
        }.items()
    },
)
requests = st.builds(
    lambda method, path, query, sent, body: httpx.Request(
        method,
        httpx.URL("http://server").copy_with(raw_path=path + query),
        headers=list(sent.items()),
        content=body,
    ),
    st.integers(0, 9).map(lambda number: ["GET", "HEAD", "PUT", "OPTIONS", *["POST"] * 6][number]),
    paths,
    queries,
    headers,
    bodies,
)


@asynccontextmanager
async def fuzzed() -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    """A server that refuses one topic, and a caller."""
    server = Server(max_payload_bytes=150)
    server.policies.answers["no"] = READ_ONLY
    async with http(server, apikey="") as caller:
        yield server, caller
    await server.realtime.aclose()


@settings(deadline=None, max_examples=80)
@given(st.lists(requests, min_size=1, max_size=4))
def test_no_request_breaks_anything(attempts: list[httpx.Request]) -> None:
    """Never an answer that is not documented, never a failure; and the room goes on receiving in order."""

    async def scenario() -> None:
        async with fuzzed() as (server, caller):
            client = await server.joined()
            for number, attempt in enumerate(attempts):
                response = await caller.send(attempt)
                assert response.status_code < 500
                operation = documented(attempt)
                if operation is not None and response.status_code != 404:
                    assert_documented(response, operation)
                mark = {"messages": [message(event=f"mark {number}")]}
                assert (
                    await caller.post("/api/broadcast", json=mark, headers={"apikey": KEY})
                ).status_code == 202
            for _ in range(3):
                await asyncio.sleep(0)
            texts = [json.loads(data) for opcode, data in client.frames() if opcode == Opcode.TEXT]
            events = [text[4]["event"] for text in texts]
            marks = [event for event in events if event.startswith("mark ")]
            assert marks == [f"mark {number}" for number in range(len(attempts))]
            assert server.realtime.metrics.handler_failures == 0

    asyncio.run(scenario())


def documented(request: httpx.Request) -> dict[str, Any] | None:
    """The operation that a request is for, if the document has it."""
    paths = document()["paths"]
    path = request.url.raw_path.partition(b"?")[0].decode()
    path = path.removeprefix("/realtime/v1").removeprefix("/api")
    if path.startswith("/broadcast/"):
        path = "/broadcast/{topic}/events/{event}"
    operation: dict[str, Any] | None = paths.get(path, {}).get(request.method.lower())
    return operation
