"""Joining, leaving, broadcasting, presence and tokens, over both versions of the protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from backbeat.postgres.authorize import Grants, Permissions
from backbeat.protocol import reasons
from backbeat.server.channel import MAX_BACKLOG
from backbeat.websocket.frames import Opcode

ROOM = "realtime:room"
OK = {"status": "ok", "response": {}}
JOINED = {"status": "ok", "response": {"postgres_changes": []}}
YES, NO = Grants(broadcast=True, presence=True), Grants(broadcast=False, presence=False)

VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


def events(messages: list[list[Any]]) -> list[str]:
    """The events of messages, in order."""
    return [message[3] for message in messages]


def reason(message: list[Any]) -> str:
    """The reason of an error reply."""
    assert message[3] == "phx_reply"
    assert message[4]["status"] == "error"
    return str(message[4]["response"]["reason"])


# Joining ----------------------------------------------------------------------------------------------------


@VERSIONS
async def test_a_public_join_is_answered_at_once(server: Any, vsn: str) -> None:
    """No database is asked; the reply is there before anything else happens."""
    client = server.client(vsn)
    client.join(ROOM, ref="3")
    join_ref = "3" if vsn == "2.0.0" else None
    assert client.messages() == [[join_ref, "3", ROOM, "phx_reply", JOINED]]
    assert server.policies.asked == []


async def test_requested_changes_are_echoed_verbatim(server: Any) -> None:
    """Every key of every entry comes back, in order, with a truthy id."""
    changes = [
        {"event": "INSERT", "schema": "public", "table": "songs", "filter": "band_id=eq.1", "extra": None},
        {"event": "*", "schema": "public", "table": "shows"},
    ]
    client = server.client()
    client.join(ROOM, postgres_changes=changes)
    echoed = client.messages()[0][4]["response"]["postgres_changes"]
    assert [{name: value for name, value in entry.items() if name != "id"} for entry in echoed] == changes
    assert all(entry["id"] for entry in echoed)


async def test_the_reply_precedes_everything_else(server: Any) -> None:
    """Presence and system messages of a channel follow the reply to its join."""
    client = server.client()
    client.join(ROOM, presence={"enabled": True}, postgres_changes=[{"event": "*", "table": "songs"}])
    assert events(await client.settled()) == ["phx_reply", "presence_state", "system"]


async def test_an_empty_topic_is_refused(server: Any) -> None:
    """A channel has a name."""
    client = server.client()
    client.join("realtime:")
    assert reason(client.messages()[0]) == "TopicNameRequired: You must provide a topic name"


async def test_a_join_payload_of_the_wrong_shape_is_refused(server: Any) -> None:
    """The reason names what is wrong with it."""
    client = server.client()
    client.push(ROOM, "phx_join", {"config": []})
    assert reason(client.messages()[0]) == "UnknownErrorOnChannel: `config` is not an object"


async def test_private_only_projects_refuse_public_channels(start: Callable[..., Any]) -> None:
    """The reason says what is allowed."""
    client = start(private_only=True).client()
    client.join(ROOM)
    assert reason(client.messages()[0]) == "PrivateOnly: This project only allows private channels"


async def test_one_socket_may_hold_so_many_channels(start: Callable[..., Any]) -> None:
    """One more is refused, and those that are there stay."""
    client = start(max_channels=2).client()
    for number in range(3):
        client.join(f"{ROOM}{number}")
    messages = client.messages()
    assert reason(messages[2]) == "ChannelRateLimitReached: Too many channels"
    assert len(client.socket.channels) == 2


async def test_an_expired_user_token_is_refused_with_its_age(server: Any) -> None:
    """The text is the one clients match on; the connection lives."""
    client = server.client()
    client.join(ROOM, {"access_token": server.token(exp=int(server.clock.now) - 7), "config": {}})
    assert reason(client.messages()[0]) == "InvalidJWTToken: Token has expired 7 seconds ago"


async def test_an_api_key_that_ended_since_cannot_join(server: Any) -> None:
    """The connection's token is looked at again."""
    client = server.client(apikey=server.token())
    server.clock.now += 61
    client.join(ROOM)
    assert reason(client.messages()[0]) == "InvalidJWTToken: Token has expired 1 seconds ago"


async def test_an_opaque_token_means_the_connections(server: Any) -> None:
    """supabase-js sends the publishable key when nobody is signed in."""
    client = server.client()
    client.join(ROOM, {"access_token": "sb_publishable_x", "config": {"private": True}})
    await client.settled()
    assert server.policies.asked[0][1].role == "anon"


async def test_a_refusal_explains_itself_when_it_may(start: Callable[..., Any]) -> None:
    """The legacy text comes first; which token, whose role and what to do follow."""
    server = start(explain=True)
    server.policies.answers["room"] = Permissions.none()
    client = server.client()
    client.join(ROOM, {"access_token": server.token(), "config": {"private": True}})
    response = (await client.settled())[0][4]["response"]
    text = (
        "Unauthorized: You do not have permissions to read from this Channel topic: room. Hint: Asked with "
    )
    assert response["reason"].startswith(text)
    assert "user token" in response["reason"]
    assert "role authenticated" in response["reason"]
    assert response.keys() == {"reason"}


# Private channels -------------------------------------------------------------------------------------------


async def test_a_private_join_asks_the_policies_with_the_users_claims(server: Any) -> None:
    """The sub-topic and the claims of the join's token decide."""
    client = server.client()
    client.join(ROOM, {"access_token": server.token(sub="u7"), "config": {"private": True}})
    assert (await client.settled())[0][4] == JOINED
    topic, claims = server.policies.asked[0]
    assert (topic, claims.sub) == ("room", "u7")


async def test_heartbeats_are_answered_while_a_join_waits(server: Any) -> None:
    """A slow policy holds up nobody but its own channel."""
    server.policies.open.clear()
    client = server.client()
    client.join(ROOM, private=True)
    client.push("phoenix", "heartbeat", {}, ref="9", join_ref=None)
    client.join("realtime:other", ref="2")
    assert [message[1] for message in await client.settled()] == ["9", "2"]
    server.policies.open.set()
    assert events(await client.settled()) == ["phx_reply"]


async def test_what_arrives_while_a_join_waits_is_handled_after_it_in_order(server: Any) -> None:
    """A broadcast and a leave sent before the reply are not lost, and come after it."""
    server.policies.open.clear()
    client, listener = server.client(), server.client()
    client.join(ROOM, private=True, broadcast={"ack": True})
    client.push(ROOM, "broadcast", {"n": 1}, ref="2")
    client.push(ROOM, "phx_leave", {}, ref="3")
    listener.join(ROOM, private=True)
    server.policies.open.set()
    messages = await client.settled()
    assert [(message[1], message[3]) for message in messages] == [
        ("1", "phx_reply"), ("2", "phx_reply"), ("3", "phx_reply"), ("1", "phx_close"),
    ]  # fmt: skip


async def test_the_backlog_of_a_join_is_bounded(server: Any) -> None:
    """One message too many is refused, and the sender is told."""
    server.policies.open.clear()
    client = server.client()
    client.join(ROOM, private=True)
    for number in range(MAX_BACKLOG + 1):
        client.push(ROOM, "broadcast", {"n": number}, ref=str(number))
    messages = client.messages()
    assert [message[1] for message in messages] == [str(MAX_BACKLOG)]
    assert "while the channel was joining" in reason(messages[0])


async def test_a_database_that_is_away_is_said(server: Any) -> None:
    """The join is refused at once, with the text that clients retry on."""
    server.policies.answers["room"] = reasons.DATABASE_UNREACHABLE.refusal()
    client = server.client()
    client.join(ROOM, private=True)
    text = "UnableToConnectToProject: Realtime was unable to connect to the project database"
    assert reason((await client.settled())[0]) == text


async def test_a_failure_of_ours_refuses_the_join(server: Any) -> None:
    """The client is answered, and tries again later."""
    server.policies.answers["room"] = RuntimeError("a typo")
    client = server.client()
    client.join(ROOM, private=True)
    assert reason((await client.settled())[0]) == "Unknown Error on Channel"
    assert server.realtime.metrics.handler_failures == 1


async def test_a_lost_connection_ends_a_waiting_join(server: Any) -> None:
    """Nobody is left in a room, and nothing is written to a connection that is gone."""
    server.policies.open.clear()
    client = server.client()
    client.join(ROOM, private=True)
    client.drop()
    server.policies.open.set()
    assert await client.settled() == []
    assert len(server.realtime.hub) == 0


async def test_public_and_private_rooms_of_one_name_are_apart(server: Any) -> None:
    """What is sent in one is not heard in the other."""
    public, private = server.client(), server.client()
    public.join(ROOM)
    private.join(ROOM, private=True)
    await private.settled()
    public.push(ROOM, "broadcast", {"n": 1})
    assert await private.settled() == []


async def test_a_member_with_presence_rights_only_hears_no_broadcast(server: Any) -> None:
    """Rights are given for each extension apart."""
    server.policies.answers["room"] = Permissions(Grants(broadcast=False, presence=True), YES)
    listener = server.client()
    listener.join(ROOM, private=True, presence={"enabled": True})
    await listener.settled()
    server.policies.answers.clear()
    sender = server.client()
    sender.join(ROOM, private=True, broadcast={"self": True})
    await sender.settled()
    sender.push(ROOM, "broadcast", {"n": 1})
    assert events(await sender.settled()) == ["broadcast"]
    assert listener.messages() == []


# Leaving ----------------------------------------------------------------------------------------------------


@VERSIONS
async def test_leaving_is_answered_then_closed(server: Any, vsn: str) -> None:
    """The leave's ref is answered; the close carries the join's ref, or clients ignore it."""
    client = server.client(vsn)
    client.join(ROOM, ref="3")
    client.messages()
    client.push(ROOM, "phx_leave", {}, ref="4", join_ref="3")
    assert [message[1:] for message in client.messages()] == [
        ["4", ROOM, "phx_reply", OK],
        ["3", ROOM, "phx_close", {}],
    ]
    assert len(server.realtime.hub) == 0


async def test_a_stale_leave_is_ignored(server: Any) -> None:
    """A leave that was meant for an earlier join does not end this one."""
    client = server.client()
    client.join(ROOM, ref="3")
    client.push(ROOM, "phx_leave", {}, ref="4", join_ref="1")
    assert len(client.messages()) == 1
    assert list(client.socket.channels) == [ROOM]


async def test_joining_again_closes_the_old_channel_after_the_new_reply(server: Any) -> None:
    """The close carries the old join ref, so the new channel is not taken for it."""
    client = server.client()
    client.join(ROOM, ref="1")
    client.messages()
    client.join(ROOM, ref="2")
    assert client.messages() == [["2", "2", ROOM, "phx_reply", JOINED], ["1", "1", ROOM, "phx_close", {}]]
    assert server.realtime.metrics.channels == 1


# Broadcast --------------------------------------------------------------------------------------------------


@VERSIONS
async def test_a_broadcast_reaches_the_others(server: Any, vsn: str) -> None:
    """The payload comes as it was sent; join ref and ref are null; the sender hears nothing."""
    sender, listener = server.client(vsn), server.client(vsn)
    for client in (sender, listener):
        client.join(ROOM)
        client.messages()
    payload = {"type": "broadcast", "event": "hi", "payload": {"ü": [1, None]}}
    sender.push(ROOM, "broadcast", payload, ref="2")
    assert await listener.settled() == [[None, None, ROOM, "broadcast", payload]]
    assert sender.messages() == []


async def test_a_sender_hears_itself_when_it_asked_to(server: Any) -> None:
    """`self: true` includes the sender."""
    client = server.client()
    client.join(ROOM, broadcast={"self": True})
    client.messages()
    client.push(ROOM, "broadcast", {"n": 1})
    assert events(await client.settled()) == ["broadcast"]


async def test_another_channel_of_the_same_user_hears_it(server: Any) -> None:
    """`self: false` leaves out the sending channel, not the person."""
    first, second = server.client(), server.client()
    for client in (first, second):
        client.join(ROOM, {"access_token": server.token(), "config": {}})
        client.messages()
    first.push(ROOM, "broadcast", {"n": 1})
    assert events(await second.settled()) == ["broadcast"]


async def test_an_acknowledged_broadcast_is_answered_after_delivery(server: Any) -> None:
    """The reply never overtakes the broadcast."""
    client = server.client()
    client.join(ROOM, broadcast={"self": True, "ack": True})
    client.messages()
    client.push(ROOM, "broadcast", {"n": 1}, ref="2")
    assert client.messages() == [
        [None, None, ROOM, "broadcast", {"n": 1}],
        ["1", "2", ROOM, "phx_reply", OK],
    ]


async def test_many_messages_arrive_in_order_and_as_one_write(server: Any) -> None:
    """What is sent during one turn of the loop is joined once."""
    sender, listener = server.client(), server.client()
    for client in (sender, listener):
        client.join(ROOM)
        client.messages()
    for number in range(50):
        sender.push(ROOM, "broadcast", {"n": number})
    await asyncio.sleep(0)
    assert len(listener.transport.written) == 1
    assert [message[4]["n"] for message in listener.messages()] == list(range(50))


async def test_a_joiner_does_not_see_what_was_sent_before(server: Any) -> None:
    """Even when both happen in the same turn of the loop."""
    sender, joiner = server.client(), server.client()
    sender.join(ROOM)
    sender.push(ROOM, "broadcast", {"n": 1})
    joiner.join(ROOM)
    sender.push(ROOM, "broadcast", {"n": 2})
    assert [message[4] for message in await joiner.settled()] == [JOINED, {"n": 2}]


async def test_versions_meet_in_one_room(server: Any) -> None:
    """A text broadcast reaches vsn 1 as an object and vsn 2 as an array."""
    old, new, sender = server.client("1.0.0"), server.client("2.0.0"), server.client("1.0.0")
    for client in (old, new, sender):
        client.join(ROOM)
        client.messages()
    sender.push(ROOM, "broadcast", {"n": 1})
    await asyncio.sleep(0)
    assert json.loads(old.frames()[0][1]) == {
        "topic": ROOM, "event": "broadcast", "payload": {"n": 1}, "ref": None,
    }  # fmt: skip
    assert json.loads(new.frames()[0][1]) == [None, None, ROOM, "broadcast", {"n": 1}]


def binary_push(event: str, payload: bytes, *, is_json: bool) -> bytes:
    """A broadcast as vsn 2 clients send it (kind 3)."""
    strings = [b"1", b"2", ROOM.encode(), event.encode(), b""]
    return bytes((3, *map(len, strings), is_json)) + b"".join(strings) + payload


async def test_a_binary_json_broadcast_reaches_both_versions(server: Any) -> None:
    """Kind 4 for vsn 2, text for vsn 1."""
    old, new, sender = server.client("1.0.0"), server.client(), server.client()
    for client in (old, new, sender):
        client.join(ROOM)
        client.messages()
    sender.send(Opcode.BINARY, binary_push("hi", b'{"x":1}', is_json=True))
    await asyncio.sleep(0)
    header = bytes((4, len(ROOM), 2, 0, 1)) + ROOM.encode() + b"hi"
    assert new.frames() == [(Opcode.BINARY, header + b'{"x":1}')]
    assert old.messages()[0][4] == {"event": "hi", "payload": {"x": 1}, "type": "broadcast"}


async def test_opaque_bytes_reach_vsn_2_only(server: Any) -> None:
    """Vsn 1 has no way to write them."""
    old, new, sender = server.client("1.0.0"), server.client(), server.client()
    for client in (old, new, sender):
        client.join(ROOM)
        client.messages()
    sender.send(Opcode.BINARY, binary_push("hi", b"\xff\x00", is_json=False))
    await asyncio.sleep(0)
    assert new.frames()[0][1].endswith(b"hi\xff\x00")
    assert old.frames() == []


async def test_a_binary_broadcast_is_acknowledged(server: Any) -> None:
    """The reply is text, under the frame's ref."""
    client = server.client()
    client.join(ROOM, broadcast={"ack": True})
    client.messages()
    client.send(Opcode.BINARY, binary_push("hi", b"{}", is_json=True))
    assert client.messages() == [["1", "2", ROOM, "phx_reply", OK]]


async def test_an_oversized_broadcast_is_refused_to_its_sender(start: Callable[..., Any]) -> None:
    """With `ack`, by the reply stock clients know: a text in place of an object."""
    server = start(max_payload_bytes=20)
    client, listener = server.client(), server.client()
    client.join(ROOM, broadcast={"ack": True})
    listener.join(ROOM)
    client.messages()
    listener.messages()
    client.push(ROOM, "broadcast", {"n": "x" * 20}, ref="2")
    refused = {"status": "error", "response": "payload_size_exceeded"}
    assert client.messages() == [["1", "2", ROOM, "phx_reply", refused]]
    assert await listener.settled() == []


@pytest.mark.parametrize("payload", ["text", 5, None, [1]])
async def test_a_broadcast_that_is_no_object_is_refused(server: Any, payload: object) -> None:
    """Stock clients throw on it, so nobody gets it, and its sender is told."""
    client = server.client()
    client.join(ROOM, broadcast={"ack": True, "self": True})
    client.messages()
    client.push(ROOM, "broadcast", payload, ref="2")
    assert reason((await client.settled())[0]) == "Broadcast payload must be a map"


async def test_a_broadcast_refused_by_policy_is_answered(server: Any) -> None:
    """With `ack` there is an error reply with the reason, not silence."""
    server.policies.answers["room"] = Permissions(YES, NO)
    client = server.client()
    client.join(ROOM, private=True, broadcast={"ack": True})
    await client.settled()
    client.push(ROOM, "broadcast", {"n": 1}, ref="2")
    text = "You do not have permissions to send to this Channel topic: room"
    assert reason(client.messages()[0]) == text


async def test_a_broadcast_refused_by_policy_without_ack_is_said(server: Any) -> None:
    """Without `ack` a system message says so."""
    server.policies.answers["room"] = Permissions(YES, NO)
    client = server.client()
    client.join(ROOM, private=True)
    await client.settled()
    client.push(ROOM, "broadcast", {"n": 1})
    (message,) = client.messages()
    assert message[3:] == [
        "system",
        {
            "channel": "room",
            "extension": "system",
            "message": "You do not have permissions to send to this Channel topic: room",
            "status": "error",
        },
    ]


async def test_unknown_events_are_counted_and_nothing_else(server: Any) -> None:
    """No reply, no harm."""
    client = server.client()
    client.join(ROOM)
    client.messages()
    client.push(ROOM, "dance", {})
    assert await client.settled() == []
    assert server.realtime.metrics.unknown_events == 1


# Presence ---------------------------------------------------------------------------------------------------


def track(client: Any, payload: object, *, ref: str = "2") -> None:
    """Track an object."""
    client.push(ROOM, "presence", {"type": "presence", "event": "track", "payload": payload}, ref=ref)


@VERSIONS
async def test_presence_state_is_sent_even_when_empty(server: Any, vsn: str) -> None:
    """Stock clients hold every diff back until they have seen a state."""
    client = server.client(vsn)
    client.join(ROOM, presence={"enabled": True})
    assert [message[3:] for message in client.messages()][1] == ["presence_state", {}]


async def test_tracking_is_announced_to_all_before_it_is_answered(server: Any) -> None:
    """The tracker sees its own diff too, in front of the reply."""
    client, listener = server.client(), server.client()
    client.join(ROOM, presence={"enabled": True, "key": "eric"})
    listener.join(ROOM)
    client.messages()
    listener.messages()
    track(client, {"plays": "bass"})
    diff, reply = client.messages()
    meta = diff[4]["joins"]["eric"]["metas"][0]
    assert diff[:4] == [None, None, ROOM, "presence_diff"]
    assert (meta["plays"], len(meta["phx_ref"]), diff[4]["leaves"]) == ("bass", 16, {})
    assert reply == ["1", "2", ROOM, "phx_reply", OK]
    assert (await listener.settled())[0][4] == diff[4]


async def test_a_joiner_learns_who_is_there(server: Any) -> None:
    """The state holds what others track."""
    client, joiner = server.client(), server.client()
    client.join(ROOM, presence={"enabled": True, "key": "eric"})
    track(client, {"plays": "bass"})
    joiner.join(ROOM, presence={"enabled": True})
    state = joiner.messages()[1][4]
    assert state["eric"]["metas"][0]["plays"] == "bass"


async def test_changing_what_is_tracked_is_one_diff(server: Any) -> None:
    """The new meta joins and names the old one, which leaves."""
    client = server.client()
    client.join(ROOM, presence={"enabled": True, "key": "eric"})
    track(client, {"plays": "bass"})
    first = client.messages()[2][4]["joins"]["eric"]["metas"][0]
    track(client, {"plays": "drums"})
    diff = client.messages()[0][4]
    assert diff["leaves"] == {"eric": {"metas": [first]}}
    assert diff["joins"]["eric"]["metas"][0]["phx_ref_prev"] == first["phx_ref"]


async def test_tracking_the_same_again_changes_nothing(server: Any) -> None:
    """It is answered, and nobody hears of it."""
    client = server.client()
    client.join(ROOM, presence={"enabled": True})
    track(client, {"plays": "bass"})
    client.messages()
    track(client, {"plays": "bass"})
    assert events(client.messages()) == ["phx_reply"]


async def test_untracking_is_announced(server: Any) -> None:
    """The meta leaves."""
    client = server.client()
    client.join(ROOM, presence={"enabled": True, "key": "eric"})
    track(client, {})
    client.messages()
    client.push(ROOM, "presence", {"event": "untrack"}, ref="3")
    messages = client.messages()
    assert events(messages) == ["presence_diff", "phx_reply"]
    assert list(messages[0][4]["leaves"]) == ["eric"]


@pytest.mark.parametrize("end", ["leave", "drop"])
async def test_who_goes_is_announced(server: Any, end: str) -> None:
    """Leaving and losing the connection look the same to the others."""
    client, listener = server.client(), server.client()
    client.join(ROOM, presence={"enabled": True, "key": "eric"})
    listener.join(ROOM, presence={"enabled": True})
    track(client, {})
    await listener.settled()
    if end == "leave":
        client.push(ROOM, "phx_leave", {}, ref="4")
    else:
        client.drop()
    (diff,) = await listener.settled()
    assert list(diff[4]["leaves"]) == ["eric"]


async def test_several_connections_share_a_key(server: Any) -> None:
    """Two tabs of one person are two metas under one key."""
    first, second, listener = server.client(), server.client(), server.client()
    for client in (first, second):
        client.join(ROOM, presence={"enabled": True, "key": "eric"})
        track(client, {"tab": id(client)})
    listener.join(ROOM, presence={"enabled": True})
    assert len(listener.messages()[1][4]["eric"]["metas"]) == 2


async def test_tracking_something_else_than_an_object_is_refused(server: Any) -> None:
    """The channel stays."""
    client = server.client()
    client.join(ROOM, presence={"enabled": True})
    client.messages()
    track(client, "bass")
    assert reason(client.messages()[0]) == "Presence track payload must be a map"
    assert list(client.socket.channels) == [ROOM]


async def test_tracking_needs_permission_on_a_private_channel(server: Any) -> None:
    """The reply says which policy is missing, and nothing is announced."""
    server.policies.answers["room"] = Permissions(YES, NO)
    client = server.client()
    client.join(ROOM, private=True, presence={"enabled": True})
    await client.settled()
    track(client, {})
    assert "track presence" in reason(client.messages()[0])


async def test_unknown_presence_events_are_refused(server: Any) -> None:
    """Only track and untrack exist."""
    client = server.client()
    client.join(ROOM, presence={"enabled": True})
    client.messages()
    client.push(ROOM, "presence", {"event": "dance"}, ref="2")
    assert reason(client.messages()[0]) == "Unknown presence event"


async def test_a_hostile_phx_ref_is_replaced(server: Any) -> None:
    """Clients tell metas apart by it, so it is the server's to choose."""
    client = server.client()
    client.join(ROOM, presence={"enabled": True, "key": "k"})
    track(client, {"phx_ref": "mine"})
    assert client.messages()[2][4]["joins"]["k"]["metas"][0]["phx_ref"] != "mine"


async def test_presence_turned_on_by_tracking_comes_with_a_state(server: Any) -> None:
    """A client that joined without presence and tracks gets the state it did not get then, then the diff."""
    client = server.client()
    client.join(ROOM)
    client.messages()
    track(client, {"plays": "bass"})
    assert events(client.messages()) == ["presence_state", "presence_diff", "phx_reply"]


async def test_presence_turned_on_late_asks_the_policies(server: Any) -> None:
    """On a private channel the presence policies are asked before the first track, not at the join."""
    server.policies.answers["room"] = Permissions(YES, Grants(broadcast=True, presence=False))
    client = server.client()
    client.join(ROOM, private=True)
    await client.settled()
    track(client, {})
    messages = await client.settled()
    assert events(messages) == ["presence_state", "phx_reply"]
    assert "track presence" in reason(messages[1])
    assert len(server.policies.asked) == 2


async def test_presence_is_not_asked_about_when_it_is_off(server: Any) -> None:
    """Whoever may only use presence cannot join without it (section 6.3)."""
    server.policies.answers["room"] = Permissions(Grants(broadcast=False, presence=True), YES)
    client = server.client()
    client.join(ROOM, private=True)
    assert reason((await client.settled())[0]).startswith("Unauthorized: ")


# Tokens -----------------------------------------------------------------------------------------------------


async def test_a_new_token_has_no_reply(server: Any) -> None:
    """The event is not answered, whatever it carries."""
    client = server.client()
    client.join(ROOM)
    client.messages()
    client.push(ROOM, "access_token", {"access_token": server.token(sub="u2")})
    assert await client.settled() == []


@pytest.mark.parametrize("value", [None, "sb_publishable_x"])
async def test_tokens_that_mean_nothing_are_ignored(server: Any, value: object) -> None:
    """Signing out sends null, an anonymous client its key: the channel keeps its token."""
    client = server.client()
    client.join(ROOM, {"access_token": server.token(), "config": {"private": True}})
    await client.settled()
    client.push(ROOM, "access_token", {"access_token": value})
    assert await client.settled() == []
    assert len(server.policies.asked) == 1


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("", "The token provided is not a valid JWT"),
        ("garbage", "The token provided is not a valid JWT"),
        ({"exp": -7}, "Token has expired 7 seconds ago"),
        ({"role": None}, "Fields `role` and `exp` are required in JWT"),
    ],
)
async def test_a_bad_new_token_ends_the_channel(server: Any, token: Any, text: str) -> None:
    """A system message says why, then the channel is closed under its join ref."""
    client = server.client()
    client.join(ROOM, ref="3")
    client.messages()
    if isinstance(token, dict):
        if "exp" in token:
            token = {"exp": int(server.clock.now) + token["exp"]}
        token = server.token(**token)
    client.push(ROOM, "access_token", {"access_token": token}, join_ref="3")
    system, close = client.messages()
    assert system[3:] == [
        "system", {"channel": "room", "extension": "system", "message": text, "status": "error"},
    ]  # fmt: skip
    assert close == ["3", "3", ROOM, "phx_close", {}]


async def test_a_new_token_is_asked_about_again(server: Any) -> None:
    """On a private channel the policies decide anew, with the new claims."""
    client = server.client()
    client.join(ROOM, {"access_token": server.token(), "config": {"private": True}})
    await client.settled()
    client.push(ROOM, "access_token", {"access_token": server.token(sub="u2")})
    assert await client.settled() == []
    assert [claims.sub for _, claims in server.policies.asked] == ["u1", "u2"]


async def test_a_right_that_is_gone_ends_the_channel(server: Any) -> None:
    """What was granted to the old token and is not to the new one is no longer heard."""
    client = server.client()
    client.join(ROOM, private=True, presence={"enabled": True})
    await client.settled()
    server.policies.answers["room"] = Permissions(Grants(broadcast=False, presence=True), NO)
    client.push(ROOM, "access_token", {"access_token": server.token(sub="u2")})
    system, close = await client.settled()
    assert system[4]["message"] == "You no longer have permission to read from this Channel topic: room"
    assert close[3] == "phx_close"


async def test_a_right_that_is_new_works_at_once(server: Any) -> None:
    """A member that heard presence only hears broadcasts after a better token."""
    server.policies.answers["room"] = Permissions(Grants(broadcast=False, presence=True), NO)
    client, sender = server.client(), server.client()
    client.join(ROOM, private=True, presence={"enabled": True})
    await client.settled()
    server.policies.answers.clear()
    client.push(ROOM, "access_token", {"access_token": server.token(sub="u2")})
    sender.join(ROOM, private=True)
    await sender.settled()
    await client.settled()
    sender.push(ROOM, "broadcast", {"n": 1})
    assert events(await client.settled()) == ["broadcast"]


async def test_a_token_that_expires_ends_its_channel(start: Callable[..., Any]) -> None:
    """The timer looks at the token when it ends; the text has the seconds since."""
    server = start()
    client = server.client()
    client.join(ROOM, {"access_token": server.token(), "config": {}})
    client.messages()
    server.clock.now += 61
    client.socket.channels[ROOM]._check_expiry()
    system, close = client.messages()
    assert system[4]["message"] == "Token has expired 1 seconds ago"
    assert close[3] == "phx_close"


async def test_another_identity_hears_nothing_of_the_first(server: Any) -> None:
    """From the message with Mike's token on, a private room is silent until Mike is let in."""
    client, sender = server.client(), server.client()
    client.join(ROOM, {"access_token": server.token(), "config": {"private": True}})
    sender.join(ROOM, private=True)
    await client.settled()
    await sender.settled()
    server.policies.open.clear()
    client.push(ROOM, "access_token", {"access_token": server.token(sub="mike")})
    sender.push(ROOM, "broadcast", {"for": "eric"})
    assert await client.settled() == []
    server.policies.open.set()
    await client.settled()
    sender.push(ROOM, "broadcast", {"for": "mike"})
    assert [message[4] for message in await client.settled()] == [{"for": "mike"}]


async def test_the_same_identity_hears_on_without_a_gap(server: Any) -> None:
    """A refreshed token of the same user interrupts nothing while it is asked about."""
    client, sender = server.client(), server.client()
    client.join(ROOM, {"access_token": server.token(), "config": {"private": True}})
    sender.join(ROOM, private=True)
    await client.settled()
    await sender.settled()
    server.policies.open.clear()
    client.push(ROOM, "access_token", {"access_token": server.token(exp=int(server.clock.now) + 99)})
    sender.push(ROOM, "broadcast", {"n": 1})
    assert events(await client.settled()) == ["broadcast"]
    server.policies.open.set()
    assert await client.settled() == []


async def test_another_identity_gets_no_row_changes_of_the_first(server: Any) -> None:
    """What was on its way to the first user is dropped; the second one is subscribed from that message on."""
    client = server.client()
    client.join(ROOM, {"access_token": server.token(), "config": {"postgres_changes": [SONGS]}})
    await client.settled()
    (before,) = server.subscriptions.held
    client.push(ROOM, "access_token", {"access_token": server.token(sub="mike")})
    ((now, (_, claims)),) = server.subscriptions.held.items()
    before.deliver(before.frame((5,), b"{}"))
    now.deliver(now.frame((7,), b"{}"))
    assert [message[4].get("ids") for message in await client.settled()] == [[7], None]
    assert claims.sub == "mike"


# Row changes ------------------------------------------------------------------------------------------------

SONGS = {"event": "*", "schema": "public", "table": "songs"}


async def test_a_subscription_is_confirmed(server: Any) -> None:
    """A system message says that changes arrive from now on."""
    client = server.client()
    client.join(ROOM, postgres_changes=[SONGS])
    system = (await client.settled())[1]
    assert system == [
        "1",
        None,
        ROOM,
        "system",
        {
            "channel": "room",
            "extension": "postgres_changes",
            "message": "Subscribed to PostgreSQL",
            "status": "ok",
        },
    ]


async def test_a_refused_subscription_says_why_and_keeps_the_channel(server: Any) -> None:
    """The channel goes on without row changes."""
    server.subscriptions.refuse_with = reasons.CHANGES_NO_TABLE.refusal(params="[table: nope]")
    client = server.client()
    client.join(ROOM, postgres_changes=[SONGS])
    system = (await client.settled())[1]
    assert system[4]["status"] == "error"
    assert system[4]["message"].endswith("connect parameters: [table: nope]")
    assert list(client.socket.channels) == [ROOM]


async def test_a_subscription_that_makes_no_sense_says_why(server: Any) -> None:
    """A filter that cannot be parsed is refused by its own text."""
    client = server.client()
    client.join(ROOM, postgres_changes=[SONGS | {"filter": "wrong"}])
    system = (await client.settled())[1]
    assert system[4]["message"].startswith("Error parsing `filter` params: ")


async def test_a_new_token_subscribes_again(server: Any) -> None:
    """From then on the new claims decide which rows are seen."""
    client = server.client()
    client.join(ROOM, {"access_token": server.token(), "config": {"postgres_changes": [SONGS]}})
    await client.settled()
    client.push(ROOM, "access_token", {"access_token": server.token(sub="u2")})
    assert events(await client.settled()) == ["system"]
    ((_, claims),) = server.subscriptions.held.values()
    assert claims.sub == "u2"


@pytest.mark.parametrize("end", ["leave", "drop", "rejoin"])
async def test_nobody_stays_subscribed(server: Any, end: str) -> None:
    """However a channel ends, its subscription ends with it."""
    client = server.client()
    client.join(ROOM, postgres_changes=[SONGS])
    await client.settled()
    if end == "leave":
        client.push(ROOM, "phx_leave", {})
    elif end == "drop":
        client.drop()
    else:
        client.join(ROOM, ref="2")
    assert server.subscriptions.held == {}


async def test_a_change_names_its_subscriptions(server: Any) -> None:
    """`ids` and `data`, with null refs: a fan-out, not an answer."""
    client = server.client()
    client.join(ROOM, postgres_changes=[SONGS])
    await client.settled()
    (subscription,) = server.subscriptions.held
    subscription.deliver(subscription.frame((5, 7), b'{"type":"INSERT"}'))
    payload = {"ids": [5, 7], "data": {"type": "INSERT"}}
    assert client.messages() == [[None, None, ROOM, "postgres_changes", payload]]


async def test_a_change_held_back_longer_than_its_channel_lived_is_forgotten(server: Any) -> None:
    """Nothing is written for a channel that was left, nor to a connection that is gone."""
    client = server.client()
    client.join(ROOM, postgres_changes=[SONGS])
    await client.settled()
    (subscription,) = server.subscriptions.held
    client.push(ROOM, "phx_leave", {})
    client.messages()
    subscription.deliver(subscription.frame((5,), b"{}"))
    assert client.messages() == []


# The database's own broadcasts -----------------------------------------------------------------------------


async def test_readiness_is_said_when_asked_for(server: Any) -> None:
    """A channel that wants to know hears when broadcasts from the database arrive."""
    server.subscriptions.streaming.clear()
    client = server.client()
    client.join(ROOM, broadcast={"replication_ready": True})
    assert events(await client.settled()) == ["phx_reply"]
    server.subscriptions.streaming.set()
    (system,) = await client.settled()
    assert system[4] == {
        "channel": "room",
        "extension": "system",
        "message": "Replication connection established",
        "status": "ok",
    }


async def test_readiness_that_does_not_come_ends_the_channel(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the patience is over, the channel is shut down with the reason."""
    monkeypatch.setattr("backbeat.server.channel.REPLICATION_PATIENCE", 0.0)
    server.subscriptions.streaming.clear()
    client = server.client()
    client.join(ROOM, broadcast={"replication_ready": True})
    _, system, close = await client.settled()
    assert system[4]["message"] == "Replication connection was not established in time"
    assert close[3] == "phx_close"


# The end ----------------------------------------------------------------------------------------------------


async def test_channels_are_told_before_the_server_stops(server: Any) -> None:
    """A system message for each channel, then the close frame with 1012."""
    client = server.client()
    client.join(ROOM)
    client.messages()
    client.socket.shutdown()
    (_, system), (opcode, close) = client.frames()
    assert json.loads(system)[4]["message"] == "Server requested disconnect"
    assert (opcode, close[:2]) == (Opcode.CLOSE, (1012).to_bytes(2, "big"))


async def test_a_draining_server_refuses_joins(server: Any) -> None:
    """Clients are told to come back later."""
    client = server.client()
    server.realtime.draining = True
    client.join(ROOM)
    assert reason(client.messages()[0]) == "RealtimeRestarting: Realtime is restarting, please standby"


async def test_silent_sockets_are_closed(server: Any) -> None:
    """Without a frame for a minute nobody is there; one that speaks stays."""
    silent, alive = server.client(), server.client()
    silent.socket.last_seen -= 61
    server.realtime._sweep()
    assert silent.frames()[0][1][:2] == (1000).to_bytes(2, "big")
    assert alive.frames() == []


async def test_sockets_that_left_every_channel_are_closed_later(server: Any) -> None:
    """One that never joined is left alone, and so is one that is joined."""
    left, joined, fresh = server.client(), server.client(), server.client()
    for client in (left, joined):
        client.join(ROOM)
    left.push(ROOM, "phx_leave", {})
    left.messages()
    joined.messages()
    left.socket.alone_since -= 601
    server.realtime._sweep()
    assert left.frames()[0][1][:2] == (1000).to_bytes(2, "big")
    assert joined.frames() == fresh.frames() == []
