"""Replays: which stored messages a joiner gets, in which form, and none of them twice."""

from __future__ import annotations

import asyncio
import json
from math import inf
from typing import Any

import pytest

from backbeat.postgres.authorize import Grants, Permissions
from backbeat.postgres.messages import StoredMessage
from backbeat.protocol import reasons
from backbeat.server.delivery import UserBroadcast
from backbeat.websocket.frames import Opcode

ROOM = "realtime:room"
REPLAY = {"replay": {"since": 1, "limit": 10}}


def stored(number: int, *, binary: bytes | None = None) -> StoredMessage:
    """A stored message."""
    payload = None if binary is not None else json.dumps({"n": number}).encode()
    return StoredMessage(f"id-{number}", "room", "hi", private=True, payload=payload, binary=binary)


def live(number: int) -> UserBroadcast:
    """The same message as the stream delivers it."""
    metadata = json.dumps({"id": f"id-{number}"}).encode()
    payload = json.dumps({"n": number}).encode()
    return UserBroadcast("hi", payload, is_json=True, metadata=metadata, stored_as=f"id-{number}")


async def listener(server: Any) -> Any:
    """A client that has had the first message as a replay."""
    server.subscriptions.stored = [stored(1)]
    client = server.client()
    client.join(ROOM, private=True, broadcast=REPLAY)
    await client.settled()
    return client


def pass_by(server: Any) -> Any:
    """Publish the first message and a second one; return the room, which has still to send them."""
    room = server.realtime.hub.find(ROOM, private=True)
    for number in (1, 2):
        room.publish(live(number), 1)
    return room


def numbers(client: Any) -> list[int]:
    """The numbers of the broadcasts that have arrived, whatever their form."""
    found = []
    for opcode, data in client.frames():
        if opcode == Opcode.BINARY:
            found.append(json.loads(data[data.rindex(b"{") :])["n"])
        elif (message := json.loads(data))[3] == "broadcast":
            found.append(message[4]["payload"]["n"])
    return found


async def test_stored_messages_follow_the_reply_oldest_first(server: Any) -> None:
    """Each is text, marked as replayed, with its id, under the join ref."""
    server.subscriptions.stored = [stored(1), stored(2)]
    client = server.client()
    client.join(ROOM, ref="5", private=True, broadcast=REPLAY)
    reply, first, second = await client.settled()
    assert reply[3] == "phx_reply"
    meta = {"replayed": True, "id": "id-1"}
    payload = {"payload": {"n": 1}, "event": "hi", "type": "broadcast", "meta": meta}
    assert first == ["5", None, ROOM, "broadcast", payload]
    assert second[4]["payload"] == {"n": 2}


async def test_binary_messages_are_replayed_as_bytes(server: Any) -> None:
    """Kind 4, with the same marks, in their place among the others; vsn 1 gets the others only."""
    server.subscriptions.stored = [stored(1), stored(2, binary=b"\xff"), stored(3)]
    new, old = server.client(), server.client("1.0.0")
    for client in (new, old):
        client.join(ROOM, private=True, broadcast=REPLAY)
        for _ in range(20):
            await asyncio.sleep(0)
    frames = new.frames()
    assert [opcode for opcode, _ in frames] == [Opcode.TEXT, Opcode.TEXT, Opcode.BINARY, Opcode.TEXT]
    metadata = b'{"replayed":true,"id":"id-2"}'
    header = bytes((4, len(ROOM), 2, len(metadata), 0)) + ROOM.encode() + b"hi" + metadata
    assert frames[2][1] == header + b"\xff"
    assert len(old.messages()) == 3


async def test_a_live_copy_of_a_replayed_message_is_left_out(server: Any) -> None:
    """It was stored before the replay was read, and comes through the stream after it."""
    client, other = await listener(server), server.client()
    other.join(ROOM, private=True)
    await other.settled()
    pass_by(server).send(inf)
    assert numbers(client) == [2]
    assert numbers(other) == [1, 2]


async def test_a_live_copy_is_left_out_after_the_token_was_renewed_too(server: Any) -> None:
    """Clients send their token again as soon as they have joined."""
    client = await listener(server)
    client.push(ROOM, "access_token", {"access_token": server.token()})
    await client.settled()
    pass_by(server).send(inf)
    assert numbers(client) == [2]


async def test_a_live_copy_is_left_out_at_the_end_too(server: Any) -> None:
    """Whoever joins anew is given what is on its way to the old channel, and nothing that had."""
    client = await listener(server)
    pass_by(server)
    client.join(ROOM, ref="2", private=True)
    assert numbers(client) == [2]


async def test_a_message_that_passes_while_the_replay_is_read_is_not_lost(server: Any) -> None:
    """It is too new for the replay, and is delivered before the joiner is a member."""
    server.subscriptions.stored = [stored(1)]
    server.subscriptions.reading.clear()
    client, other = server.client(), server.client()
    other.join(ROOM, private=True)
    await other.settled()
    client.join(ROOM, private=True, broadcast=REPLAY)
    await client.settled()
    pass_by(server).send(inf)
    server.subscriptions.reading.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert numbers(client) == [1, 2]


async def test_a_room_that_is_only_waited_for_is_forgotten(server: Any) -> None:
    """A join that fails leaves no empty room behind."""
    server.subscriptions.stored = reasons.REPLAY_FAILED.refusal()
    client = server.client()
    client.join(ROOM, private=True, broadcast=REPLAY)
    (reply,) = await client.settled()
    text = "UnableToReplayMessages: Realtime was unable to replay messages"
    assert reply[4] == {"status": "error", "response": {"reason": text}}
    assert len(server.realtime.hub) == 0


@pytest.mark.parametrize("value", [None, {"since": 1}, "x"])
async def test_public_channels_have_no_replay(server: Any, value: object) -> None:
    """The mere presence of the key refuses the join."""
    client = server.client()
    client.join(ROOM, broadcast={"replay": value})
    text = "UnableToReplayMessages: Replay is not allowed for public channels"
    assert client.messages()[0][4]["response"]["reason"] == text


@pytest.mark.parametrize("value", [{}, {"since": "1"}, {"since": 1, "limit": "5"}])
async def test_parameters_that_make_no_sense_are_refused(server: Any, value: object) -> None:
    """An object without an integer `since`, or with another `limit`."""
    client = server.client()
    client.join(ROOM, private=True, broadcast={"replay": value})
    text = "UnableToReplayMessages: Replay params are not valid"
    assert client.messages()[0][4]["response"]["reason"] == text


async def test_a_value_that_is_no_object_is_ignored_on_a_private_channel(server: Any) -> None:
    """There is nothing to replay, and nothing wrong."""
    server.subscriptions.stored = [stored(1)]
    client = server.client()
    client.join(ROOM, private=True, broadcast={"replay": "x"})
    assert len(await client.settled()) == 1


async def test_a_replay_needs_the_right_to_receive_broadcasts(server: Any) -> None:
    """Presence alone is not enough."""
    grants = Grants(broadcast=False, presence=True)
    server.policies.answers["room"] = Permissions(grants, grants)
    client = server.client()
    client.join(ROOM, private=True, presence={"enabled": True}, broadcast=REPLAY)
    assert (await client.settled())[0][4]["response"]["reason"].startswith("Unauthorized: ")


async def test_a_message_that_does_not_fit_a_binary_header_costs_only_itself(server: Any) -> None:
    """An event of 300 bytes cannot be written as a binary frame; the others are replayed."""
    event = "x" * 300
    long = StoredMessage("id-1", "room", event, private=True, payload=None, binary=b"1")
    server.subscriptions.stored = [long, stored(2)]
    client = server.client()
    client.join(ROOM, private=True, broadcast=REPLAY)
    messages = await client.settled()
    assert [message[3] for message in messages] == ["phx_reply", "broadcast"]
