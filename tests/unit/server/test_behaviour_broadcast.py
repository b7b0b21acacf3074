"""Broadcast between clients, with either version of the protocol, on public and on private channels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from tests.unit.server.conftest import Server

from backbeat.postgres.authorize import Grants, Permissions
from backbeat.protocol import reasons
from backbeat.websocket.frames import Opcode

ROOM = "realtime:room"
OK = {"status": "ok", "response": {}}
YES, NO = Grants(broadcast=True, presence=True), Grants(broadcast=False, presence=False)

VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
PRIVACY = pytest.mark.parametrize("private", [False, True], ids=["public", "private"])


def binary_push(topic: str, event: str, payload: bytes, *, is_json: bool) -> bytes:
    """A broadcast as vsn 2 clients send it (kind 3)."""
    strings = [b"1", b"2", topic.encode(), event.encode(), b""]
    return bytes((3, *map(len, strings), is_json)) + b"".join(strings) + payload


# Delivery ---------------------------------------------------------------------------------------------------


@VERSIONS
@PRIVACY
async def test_without_ack_a_broadcast_is_delivered_and_not_answered(
    server: Server, vsn: str, private: bool
) -> None:
    """The others get it, the sender gets nothing."""
    sender, listener = [await server.joined(vsn, private=private) for _ in range(2)]
    sender.push(ROOM, "broadcast", {"n": 1})
    assert [message[3:] for message in await listener.settled()] == [["broadcast", {"n": 1}]]
    assert await sender.settled() == []


@VERSIONS
@PRIVACY
async def test_with_ack_a_broadcast_is_delivered_and_answered(
    server: Server, vsn: str, private: bool
) -> None:
    """The others get it, the sender gets ok under the ref of the push."""
    sender = await server.joined(vsn, private=private, broadcast={"ack": True})
    listener = await server.joined(vsn, private=private)
    sender.push(ROOM, "broadcast", {"n": 1}, ref="7")
    assert [message[4] for message in await listener.settled()] == [{"n": 1}]
    assert [message[1:] for message in await sender.settled()] == [["7", ROOM, "phx_reply", OK]]


@VERSIONS
async def test_a_topic_may_have_colons(server: Server, vsn: str) -> None:
    """Only the first one belongs to the protocol; policies are asked about all the rest."""
    topic = "realtime:band:1:set:2"
    sender, listener = [await server.joined(vsn, topic, private=True) for _ in range(2)]
    sender.push(topic, "broadcast", {"n": 1})
    assert [message[2:] for message in await listener.settled()] == [[topic, "broadcast", {"n": 1}]]
    assert {asked for asked, _ in server.policies.asked} == {"band:1:set:2"}


async def test_public_and_private_rooms_of_one_name_are_apart_on_one_server(server: Server) -> None:
    """Neither hears what is sent in the other, text or binary."""
    public, private = await server.joined(), await server.joined(private=True)
    for sender in (public, private):
        sender.push(ROOM, "broadcast", {"n": 1})
        sender.send(Opcode.BINARY, binary_push(ROOM, "hi", b"{}", is_json=True))
    assert await public.settled() == []
    assert await private.settled() == []


@pytest.mark.parametrize("payload", [b'{"x":1}', b"\xff\x00"], ids=["json", "bytes"])
async def test_a_private_binary_broadcast_is_heard_by_its_sender_then_acknowledged(
    server: Server, payload: bytes
) -> None:
    """With `self` and `ack`: first the frame, then the reply."""
    is_json = payload.startswith(b"{")
    client = await server.joined(private=True, broadcast={"self": True, "ack": True})
    client.send(Opcode.BINARY, binary_push(ROOM, "hi", payload, is_json=is_json))
    header = bytes((4, len(ROOM), 2, 0, is_json)) + ROOM.encode() + b"hi"
    (first, heard), (second, reply) = client.frames()
    assert (first, heard) == (Opcode.BINARY, header + payload)
    assert (second, json.loads(reply)) == (Opcode.TEXT, ["1", "2", ROOM, "phx_reply", OK])


# Rights -----------------------------------------------------------------------------------------------------


@VERSIONS
async def test_who_may_not_send_reaches_nobody(server: Server, vsn: str) -> None:
    """A denied broadcast is not delivered."""
    listener = await server.joined(vsn, private=True)
    server.policies.answers["room"] = Permissions(YES, NO)
    sender = await server.joined(vsn, private=True)
    sender.push(ROOM, "broadcast", {"n": 1})
    assert await listener.settled() == []


@VERSIONS
async def test_who_may_not_send_still_receives(server: Server, vsn: str) -> None:
    """Also after an attempt that was denied."""
    sender = await server.joined(vsn, private=True)
    server.policies.answers["room"] = Permissions(YES, NO)
    listener = await server.joined(vsn, private=True)
    listener.push(ROOM, "broadcast", {"n": 1})
    await listener.settled()
    sender.push(ROOM, "broadcast", {"n": 2})
    assert [message[4] for message in await listener.settled()] == [{"n": 2}]


@VERSIONS
async def test_who_may_not_receive_cannot_join(server: Server, vsn: str) -> None:
    """Being allowed to send is not enough."""
    server.policies.answers["room"] = Permissions(NO, YES)
    client = server.client(vsn)
    client.join(ROOM, private=True)
    text = "Unauthorized: You do not have permissions to read from this Channel topic: room"
    refused = {"status": "error", "response": {"reason": text}}
    assert [message[4] for message in await client.settled()] == [refused]


@pytest.mark.parametrize("write", [YES, NO], ids=["allowed", "denied"])
async def test_policies_are_asked_once_however_much_is_sent(server: Server, write: Grants) -> None:
    """The answer of the join holds until there is another token, a yes as well as a no."""
    server.policies.answers["room"] = Permissions(YES, write)
    client = await server.joined(private=True, broadcast={"ack": True})
    for _ in range(3):
        client.push(ROOM, "broadcast", {"n": 1})
    status = "ok" if write is YES else "error"
    assert [message[4]["status"] for message in await client.settled()] == [status] * 3
    assert len(server.policies.asked) == 1


async def test_a_public_channel_asks_no_policy(server: Server) -> None:
    """Whatever is sent in it."""
    client = await server.joined()
    client.push(ROOM, "broadcast", {"n": 1})
    await client.settled()
    assert server.policies.asked == []


async def test_a_policy_that_failed_is_no_policy_that_said_no(server: Server) -> None:
    """The reply to the sender has the refusal that the failure was given."""
    failed = reasons.POLICY_FAILED.refusal(topic="room")
    server.policies.answers["room"] = replace(Permissions(YES, NO), write_refusal=failed)
    client = await server.joined(private=True, broadcast={"ack": True})
    client.push(ROOM, "broadcast", {"n": 1})
    (reply,) = await client.settled()
    assert reply[4] == {"status": "error", "response": {"reason": failed.message}}


async def test_no_free_connection_is_logged_with_its_code(server: Server) -> None:
    """An operator learns that the pool is too small, for which topic."""
    server.policies.answers["room"] = reasons.POOL_EXHAUSTED.refusal(topic="room")
    client = server.client()
    with capture_logs() as lines:
        client.join(ROOM, private=True)
        await client.settled()
    assert [(line["code"], line["topic"]) for line in lines] == [("IncreaseConnectionPool", ROOM)]


@pytest.mark.parametrize("outcome", ["waiting", "refused"])
async def test_public_channels_do_not_notice_an_exhausted_pool(server: Server, outcome: str) -> None:
    """Neither while a private join of the same socket waits for a connection, nor after it was refused."""
    server.policies.answers["room"] = reasons.POOL_EXHAUSTED.refusal(topic="room")
    if outcome == "waiting":
        server.policies.open.clear()
    client = server.client()
    client.join(ROOM, private=True)
    client.join("realtime:public", ref="2", broadcast={"self": True})
    await client.settled()
    client.push("realtime:public", "broadcast", {"n": 1}, join_ref="2")
    assert [message[4] for message in await client.settled()] == [{"n": 1}]


# Size -------------------------------------------------------------------------------------------------------


@VERSIONS
@PRIVACY
async def test_a_large_broadcast_is_not_delivered(
    start: Callable[..., Server], vsn: str, private: bool
) -> None:
    """One byte over the limit, nobody hears it; at the limit, everybody does."""
    server = start(max_payload_bytes=9)
    sender, listener = [await server.joined(vsn, private=private) for _ in range(2)]
    for digits in (2, 3):
        sender.push(ROOM, "broadcast", {"n": 10 ** (digits - 1)})
    assert [message[4] for message in await listener.settled()] == [{"n": 10}]


@VERSIONS
@PRIVACY
async def test_with_ack_a_large_broadcast_is_refused_by_a_bare_text(
    start: Callable[..., Server], vsn: str, private: bool
) -> None:
    """`payload_size_exceeded` stands in place of the response object; the channel lives."""
    client = await start(max_payload_bytes=9).joined(vsn, private=private, broadcast={"ack": True})
    client.push(ROOM, "broadcast", {"n": 100}, ref="7")
    client.push(ROOM, "broadcast", {"n": 10}, ref="8")
    refused = {"status": "error", "response": "payload_size_exceeded"}
    assert [(message[1], message[4]) for message in await client.settled()] == [("7", refused), ("8", OK)]


async def test_without_ack_a_large_broadcast_is_refused_by_a_system_message(
    start: Callable[..., Server],
) -> None:
    """Nothing is dropped in silence."""
    client = await start(max_payload_bytes=9).joined()
    client.push(ROOM, "broadcast", {"n": 100})
    (system,) = await client.settled()
    assert (system[3], system[4]["status"]) == ("system", "error")


async def test_a_large_binary_broadcast_is_refused_like_a_text(start: Callable[..., Server]) -> None:
    """The limit is on the payload, whatever carries it."""
    server = start(max_payload_bytes=9)
    sender, listener = await server.joined(broadcast={"ack": True}), await server.joined()
    sender.send(Opcode.BINARY, binary_push(ROOM, "hi", b"\xff" * 10, is_json=False))
    assert (await sender.settled())[0][4]["response"] == "payload_size_exceeded"
    assert listener.frames() == []


# The two versions in one room -------------------------------------------------------------------------------


@PRIVACY
async def test_a_binary_json_broadcast_reaches_either_version(server: Server, private: bool) -> None:
    """Kind 4 for vsn 2, text for vsn 1 (section 2.4)."""
    sender, new = [await server.joined(private=private) for _ in range(2)]
    old = await server.joined("1.0.0", private=private)
    sender.send(Opcode.BINARY, binary_push(ROOM, "hi", b'{"x":1}', is_json=True))
    payload = {"event": "hi", "payload": {"x": 1}, "type": "broadcast"}
    assert [message[4] for message in await old.settled()] == [payload]
    header = bytes((4, len(ROOM), 2, 0, 1)) + ROOM.encode() + b"hi"
    assert new.frames() == [(Opcode.BINARY, header + b'{"x":1}')]


@PRIVACY
async def test_bytes_pass_by_vsn_1_and_leave_no_gap(server: Server, private: bool) -> None:
    """What is sent before and after them arrives, in order."""
    sender, old = [await server.joined(vsn, private=private) for vsn in ("2.0.0", "1.0.0")]
    sender.push(ROOM, "broadcast", {"n": 1})
    sender.send(Opcode.BINARY, binary_push(ROOM, "hi", b"\xff", is_json=False))
    sender.push(ROOM, "broadcast", {"n": 2})
    assert [message[4] for message in await old.settled()] == [{"n": 1}, {"n": 2}]
