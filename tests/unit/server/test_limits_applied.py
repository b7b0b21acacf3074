"""Limits at work: whoever breaks one is told, with the documented reason, and nobody else notices."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from backbeat.server.limits import LimitSettings
from backbeat.websocket.frames import Opcode

ROOM = "realtime:room"

Start = Callable[..., Any]


def close_code(client: Any) -> int:
    """The code of the close frame that arrived last."""
    opcode, data = client.frames()[-1]
    assert opcode == Opcode.CLOSE
    return int.from_bytes(data[:2], "big")


def flood(client: Any, event: str = "broadcast", *, count: int = 50) -> None:
    """Send more than a limit of one per second allows."""
    for number in range(count):
        client.push(ROOM, event, {"n": number})


async def test_too_many_users_are_refused_at_connect(start: Start) -> None:
    """429, with the text clients know; a socket that only connected is no user yet."""
    server = start(limits=LimitSettings(max_concurrent_users=1))
    first, second = server.client(), server.client()
    first.join(ROOM)
    third = server.client()
    assert third.response.startswith(b"HTTP/1.1 429 ")
    assert json.loads(third.response.split(b"\r\n\r\n")[1]) == {"error": "Too many connected users"}
    second.join(ROOM)
    text = "ConnectionRateLimitReached: Too many connected users"
    assert second.messages()[0][4]["response"]["reason"] == text


async def test_a_user_may_join_more_channels(start: Start) -> None:
    """The limit counts sockets, not channels."""
    server = start(limits=LimitSettings(max_concurrent_users=1))
    client = server.client()
    for number in range(3):
        client.join(f"{ROOM}{number}")
    assert [message[4]["status"] for message in client.messages()] == ["ok"] * 3


async def test_a_user_who_goes_makes_room(start: Start) -> None:
    """The next one may join."""
    server = start(limits=LimitSettings(max_concurrent_users=1))
    first, second = server.client(), server.client()
    first.join(ROOM)
    first.drop()
    second.join(ROOM)
    assert second.messages()[0][4]["status"] == "ok"


async def test_too_many_joins_close_the_socket(start: Start) -> None:
    """The join is answered with the reason, then the connection is closed with 1001."""
    server = start(limits=LimitSettings(max_joins_per_second=1))
    client = server.client()
    for number in range(10):
        if not client.transport.is_closing() and client.socket._closing is None:
            client.join(f"{ROOM}{number}")
    *replies, (opcode, close) = client.frames()
    last = json.loads(replies[-1][1])
    assert last[4]["response"]["reason"] == "ClientJoinRateLimitReached: Too many joins per second"
    assert (opcode, close[:2]) == (Opcode.CLOSE, (1001).to_bytes(2, "big"))


async def test_whoever_sends_too_much_loses_the_channel(start: Start) -> None:
    """The sender is shut down with the reason; those who listened got what was sent before, and stay."""
    server = start(limits=LimitSettings(max_events_per_second=1))
    sender, listener = server.client(), server.client()
    for client in (sender, listener):
        client.join(ROOM)
        client.messages()
    flood(sender)
    *_, system, close = [message for message in sender.messages() if message[3] != "phx_reply"][:2]
    assert system[4]["message"] == "Too many messages per second"
    assert close[3] == "phx_close"
    heard = [message[4]["n"] for message in await listener.settled()]
    assert heard == list(range(len(heard)))
    assert list(listener.socket.channels) == [ROOM]


async def test_unknown_events_count_too(start: Start) -> None:
    """Nobody floods with events that mean nothing."""
    client = start(limits=LimitSettings(max_events_per_second=1)).client()
    client.join(ROOM)
    client.messages()
    flood(client, "dance")
    assert client.messages()[0][4]["message"] == "Too many messages per second"


async def test_a_channel_may_track_so_often(start: Start) -> None:
    """Five calls in 30 seconds by default; the sixth ends the channel with its own reason."""
    client = start().client()
    client.join(ROOM, presence={"enabled": True})
    client.messages()
    for number in range(6):
        client.push(ROOM, "presence", {"event": "track", "payload": {"n": number}}, ref=str(number))
    messages = client.messages()
    assert [message[1] for message in messages if message[3] == "phx_reply"] == list("01234")
    assert messages[-2][4]["message"] == "Client presence rate limit exceeded"


async def test_a_project_may_track_so_often(start: Start) -> None:
    """The limit of all channels together has its own reason."""
    limits = LimitSettings(max_presence_events_per_second=1, max_client_presence_events_per_window=0)
    client = start(limits=limits).client()
    client.join(ROOM, presence={"enabled": True})
    client.messages()
    for number in range(20):
        client.push(ROOM, "presence", {"event": "track", "payload": {"n": number}})
    (system,) = [message for message in client.messages() if message[3] == "system"]
    assert system[4]["message"] == "Too many presence messages per second"


@pytest.mark.parametrize("field", ["max_events_per_second", "max_joins_per_second"])
async def test_zero_switches_a_limit_off(start: Start, field: str) -> None:
    """Nothing is refused, however much is sent."""
    server = start(limits=LimitSettings(**{field: 0, "max_presence_events_per_second": 0}))
    client = server.client()
    client.join(ROOM)
    client.messages()
    flood(client, count=400 if field == "max_events_per_second" else 1)
    assert await client.settled() == []
