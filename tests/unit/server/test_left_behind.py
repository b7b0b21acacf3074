"""Nothing is kept of a client that is gone, whatever it was in the middle of."""

from __future__ import annotations

import gc
from typing import Any

from backbeat.postgres.messages import StoredMessage
from backbeat.server.channel import Channel
from backbeat.server.socket import Socket

ROOM = "realtime:room"


def alive(kind: type) -> int:
    """How many objects of a type there are."""
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


async def test_a_client_in_the_middle_of_a_message(server: Any) -> None:
    """The sweep had noted since when the message was unfinished."""
    before = alive(Socket)
    client = server.client()
    client.socket.data_received(b"\x81\xfe")
    server.realtime._sweep()
    client.drop()
    del client
    assert alive(Socket) == before


async def test_a_channel_that_had_a_replay(server: Any) -> None:
    """Which messages it had is remembered for a while, in case they come again; but not without it."""
    before = alive(Channel)
    server.subscriptions.stored = [
        StoredMessage("id-1", "room", "hi", private=True, payload=b"{}", binary=None)
    ]
    client = server.client()
    client.join(ROOM, private=True, broadcast={"replay": {"since": 1, "limit": 10}})
    assert len(await client.settled()) == 2
    client.drop()
    del client
    assert alive(Channel) == before
