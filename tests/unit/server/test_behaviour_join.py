"""What a join may say, and what the answer is when something is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from backbeat.postgres.authorize import Grants, Permissions
from backbeat.protocol import reasons
from backbeat.protocol.join import JoinRequest

ROOM = "realtime:room"
SONGS = {"event": "*", "schema": "public", "table": "songs"}
VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
FLAGS = {
    "private": "private",
    "broadcast.ack": "ack",
    "broadcast.self": "self_broadcast",
    "presence.enabled": "presence",
}
"""The booleans of a join, and where they are read into."""


def reason(message: list[Any]) -> str:
    """The reason of an error reply to a join."""
    assert (message[3], message[4]["status"]) == ("phx_reply", "error")
    return str(message[4]["response"]["reason"])


def nested(path: str, value: object) -> dict[str, Any]:
    """A join payload with one value at a place in its configuration."""
    *outer, name = path.split(".")
    config: dict[str, Any] = {name: value}
    for parent in reversed(outer):
        config = {parent: config}
    return {"config": config}


def parsed(path: str, value: object) -> JoinRequest:
    """What is read from a join with one value in its configuration."""
    return JoinRequest.parse(json.dumps(nested(path, value)).encode())


# The payload ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "field"), FLAGS.items())
@pytest.mark.parametrize(
    ("value", "read"),
    [(True, True), (False, False)]
    + [(word, word.lower() == "true") for word in ("true", "True", "TRUE", "false", "False", "FALSE")],
)
def test_every_flag_may_be_a_word(path: str, field: str, value: object, read: bool) -> None:
    """Some clients send booleans as text, in every field that takes one."""
    request = parsed(path, value)
    assert (getattr(request, field), request.problems) == (read, ())


@pytest.mark.parametrize(("path", "field"), FLAGS.items())
@pytest.mark.parametrize("value", ["yes", "", 0, 1, [], {}])
def test_other_values_of_a_flag_are_false_and_named(path: str, field: str, value: object) -> None:
    """The field keeps its default, and its full name is in the message."""
    request = parsed(path, value)
    assert not getattr(request, field)
    assert request.problems == (f"{path}: unable to parse, expected a boolean",)


@pytest.mark.parametrize("path", FLAGS)
def test_a_flag_that_is_null_is_false(path: str) -> None:
    """Null stands for what is left out."""
    assert parsed(path, None) == JoinRequest()


@VERSIONS
@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("broadcast", "x", "a map"),
        ("presence", [], "a map"),
        ("postgres_changes", {}, "an array of maps"),
        ("private", 5, "a boolean"),
        ("presence.key", {}, "a string"),
        ("broadcast.ack", "maybe", "a boolean"),
    ],
)
async def test_a_field_of_the_wrong_type_does_not_fail_the_join(
    server: Any, vsn: str, path: str, value: object, expected: str
) -> None:
    """The client is joined with the rest, and the operator reads which field it was."""
    client = server.client(vsn)
    with capture_logs() as lines:
        client.join(ROOM, nested(path, value))
    assert client.messages()[0][4]["status"] == "ok"
    assert lines[0]["problems"] == (f"{path}: unable to parse, expected {expected}",)


def test_several_wrong_fields_are_all_named() -> None:
    """One mistake does not hide the next."""
    config = {"private": 1, "broadcast": {"self": 2, "ack": 3}, "presence": "x"}
    problems = JoinRequest.parse(json.dumps({"config": config}).encode()).problems
    assert sorted(problem.split(":")[0] for problem in problems) == [
        "broadcast.ack",
        "broadcast.self",
        "presence",
        "private",
    ]


async def test_empty_entries_of_a_list_of_changes_are_left_out(server: Any) -> None:
    """Only the objects are echoed, in their order."""
    client = server.client()
    client.join(ROOM, postgres_changes=[None, SONGS, None])
    (echoed,) = client.messages()[0][4]["response"]["postgres_changes"]
    assert echoed.pop("id")
    assert echoed == SONGS


@VERSIONS
async def test_an_empty_topic_is_refused(server: Any, vsn: str) -> None:
    """The reply has the ref of the join, over both versions."""
    client = server.client(vsn)
    client.join("realtime:", ref="4")
    (reply,) = client.messages()
    assert (reply[1], reason(reply)) == ("4", "TopicNameRequired: You must provide a topic name")


# Presence ---------------------------------------------------------------------------------------------------


def tracked_key(client: Any, presence: dict[str, Any]) -> str:
    """The key that somebody who joins with a presence configuration is seen under."""
    client.join(ROOM, presence=presence)
    client.push(ROOM, "presence", {"event": "track", "payload": {}}, ref="2")
    (diff,) = [message[4] for message in client.messages() if message[3] == "presence_diff"]
    (key,) = diff["joins"]
    return str(key)


@VERSIONS
@pytest.mark.parametrize("presence", [{}, {"key": ""}, {"key": None}], ids=["absent", "empty", "null"])
async def test_without_a_presence_key_everybody_has_their_own(
    server: Any, vsn: str, presence: dict[str, Any]
) -> None:
    """The server makes one up for each channel."""
    keys = {tracked_key(server.client(vsn), {"enabled": True} | presence) for _ in range(3)}
    assert len(keys - {""}) == 3


async def test_a_number_may_be_a_presence_key(server: Any) -> None:
    """Others see it as text."""
    assert tracked_key(server.client(), {"enabled": True, "key": 7}) == "7"


@pytest.mark.parametrize("presence", [{}, {"key": "eric"}, {"enabled": False}])
async def test_presence_is_off_unless_asked_for(server: Any, presence: dict[str, Any]) -> None:
    """No state is sent to whoever did not enable it."""
    client = server.client()
    client.join(ROOM, presence=presence)
    assert [message[3] for message in await client.settled()] == ["phx_reply"]


# Tokens -----------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("name", ["access_token", "user_token"])
async def test_the_token_of_a_join_has_two_names(server: Any, vsn: str, name: str) -> None:
    """Under either, its claims decide."""
    client = server.client(vsn)
    client.join(ROOM, {name: server.token(sub="u7"), "config": {"private": True}})
    assert (await client.settled())[0][4]["status"] == "ok"
    assert server.policies.asked[0][1].sub == "u7"


@VERSIONS
@pytest.mark.parametrize("name", ["access_token", "user_token"])
async def test_an_opaque_key_stands_for_the_token_of_the_connection(server: Any, vsn: str, name: str) -> None:
    """Here, a user's token in the header of the upgrade, as a gateway sends it."""
    client = server.client(vsn, apikey="", headers=f"x-api-key: {server.token(sub='u8')}\r\n")
    client.join(ROOM, {name: "sb_publishable_x", "config": {"private": True}})
    assert (await client.settled())[0][4]["status"] == "ok"
    assert server.policies.asked[0][1].sub == "u8"


@pytest.mark.parametrize("value", [None, 5, {"access_token": "a.b.c"}, ["a.b.c"]])
async def test_a_token_that_is_no_text_is_as_good_as_none(server: Any, value: object) -> None:
    """The token of the connection decides."""
    client = server.client()
    client.join(ROOM, {"access_token": value, "config": {"private": True}})
    assert (await client.settled())[0][4]["status"] == "ok"
    assert server.policies.asked[0][1].role == "anon"


async def test_times_of_a_token_may_have_fractions(server: Any) -> None:
    """Some issuers write them so."""
    token = server.token(exp=server.clock.now + 59.5, iat=server.clock.now - 0.5)
    client = server.client()
    client.join(ROOM, {"access_token": token, "config": {}})
    assert client.messages()[0][4]["status"] == "ok"


@VERSIONS
@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({"exp": 1_699_999_993}, "InvalidJWTToken: Token has expired 7 seconds ago"),
        ({"role": None}, "InvalidJWTToken: Fields `role` and `exp` are required in JWT"),
        ({"exp": None}, "InvalidJWTToken: Fields `role` and `exp` are required in JWT"),
        ({"secret": "x" * 40}, "JwtSignatureError: Failed to validate JWT signature"),
    ],
    ids=["expired", "no role", "no exp", "signature"],
)
async def test_a_bad_token_refuses_the_join(server: Any, vsn: str, claims: dict[str, Any], text: str) -> None:
    """The reason has its code in front; the socket stays, and so do its other channels."""
    client = server.client(vsn)
    client.join(ROOM, {"access_token": server.token(**claims), "config": {}})
    client.join("realtime:other", ref="2")
    refused, joined = client.messages()
    assert reason(refused) == text
    assert joined[4]["status"] == "ok"


@VERSIONS
@pytest.mark.parametrize("token", ["", "garbage", "a.b", "a.b.c"])
async def test_what_is_no_token_refuses_the_join(server: Any, vsn: str, token: str) -> None:
    """An empty text is no token either, and does not stand for the connection's."""
    client = server.client(vsn)
    client.join(ROOM, {"access_token": token, "config": {}})
    assert reason(client.messages()[0]) == "MalformedJWT: The token provided is not a valid JWT"


# The database -----------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(
    ("why", "text"),
    [
        (
            reasons.DATABASE_UNREACHABLE,
            "UnableToConnectToProject: Realtime was unable to connect to the project database",
        ),
        (reasons.POOL_EXHAUSTED, "IncreaseConnectionPool: Please increase your connection pool size"),
        (reasons.QUERY_CANCELED, "QueryCanceled: Query was cancelled, please try again"),
        (
            reasons.MISSING_PARTITION,
            "MissingPartition: Realtime was unable to find the expected messages partition",
        ),
        (
            reasons.POLICY_FAILED,
            "Unauthorized: You do not have permissions to read from this Channel topic: room",
        ),
    ],
    ids=lambda value: value.code if isinstance(value, reasons.Reason) else "",
)
async def test_a_database_that_gives_no_answer_refuses_the_join(
    server: Any, vsn: str, why: reasons.Reason, text: str
) -> None:
    """Each way to fail has its own text, and none of them harms the socket."""
    server.policies.answers["room"] = why.refusal(topic="room")
    client = server.client(vsn)
    client.join(ROOM, private=True)
    assert reason((await client.settled())[0]) == text
    assert client.socket.channels == {}
    assert not client.transport.is_closing()


async def test_a_failure_of_ours_in_a_public_join_is_said(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client hears `phx_error` for the topic, and joins again by itself."""

    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("a typo")

    monkeypatch.setattr(server.realtime.hub, "room", explode)
    client = server.client()
    client.join(ROOM, ref="3")
    assert client.messages() == [["3", "3", ROOM, "phx_error", {"reason": "channel_crash"}]]
    assert client.socket.channels == {}


# Private channels -------------------------------------------------------------------------------------------


@VERSIONS
async def test_private_only_projects_take_private_channels(start: Callable[..., Any], vsn: str) -> None:
    """What is refused there is the public ones."""
    client = start(private_only=True).client(vsn)
    client.join(ROOM, private=True)
    assert (await client.settled())[0][4]["status"] == "ok"


@VERSIONS
async def test_one_grant_is_enough_to_join(server: Any, vsn: str) -> None:
    """Whoever may hear presence only is let in, when presence is enabled."""
    server.policies.answers["room"] = Permissions(
        read=Grants(broadcast=False, presence=True), write=Grants(broadcast=False, presence=False)
    )
    client = server.client(vsn)
    client.join(ROOM, private=True, presence={"enabled": True})
    assert [message[3] for message in await client.settled()] == ["phx_reply", "presence_state"]


async def test_without_the_right_to_it_there_is_no_presence_state(server: Any) -> None:
    """A member who hears broadcasts only does not learn who is there."""
    server.policies.answers["room"] = Permissions(
        read=Grants(broadcast=True, presence=False), write=Grants(broadcast=True, presence=False)
    )
    client = server.client()
    client.join(ROOM, private=True, presence={"enabled": True})
    assert [message[3] for message in await client.settled()] == ["phx_reply"]


# Readiness of the database's broadcasts ---------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("value", [True, 1, "yes", "false"])
async def test_readiness_is_said_at_once_when_it_is_there(server: Any, vsn: str, value: object) -> None:
    """Behind the reply; any value but a false one asks for it."""
    client = server.client(vsn)
    client.join(ROOM, broadcast={"replication_ready": value})
    reply, system = await client.settled()
    assert reply[4]["status"] == "ok"
    assert system[4]["message"] == "Replication connection established"


async def test_readiness_is_said_once(server: Any) -> None:
    """A stream that is lost and comes back is no news to the channel."""
    client = server.client()
    client.join(ROOM, broadcast={"replication_ready": True})
    await client.settled()
    server.subscriptions.streaming.clear()
    server.subscriptions.streaming.set()
    assert await client.settled() == []


@pytest.mark.parametrize("broadcast", [{}, {"replication_ready": False}, {"replication_ready": None}])
async def test_readiness_is_not_said_to_whoever_did_not_ask(server: Any, broadcast: dict[str, Any]) -> None:
    """Only the reply arrives."""
    client = server.client()
    client.join(ROOM, broadcast=broadcast)
    assert [message[3] for message in await client.settled()] == ["phx_reply"]


async def test_a_channel_that_left_waits_for_nothing(server: Any) -> None:
    """Nothing is written on a topic that is not joined any more."""
    server.subscriptions.streaming.clear()
    client = server.client()
    client.join(ROOM, broadcast={"replication_ready": True})
    client.push(ROOM, "phx_leave", {}, ref="2")
    client.messages()
    server.subscriptions.streaming.set()
    assert await client.settled() == []
