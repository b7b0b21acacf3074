"""What ended while the database was asked stays ended, though the answer arrives in the same moment."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from tests.unit.server.conftest import Policies, Subscriptions

from backbeat.postgres.authorize import Permissions
from backbeat.protocol.messages import Event
from backbeat.server.cancellation import unless_cancelled

ROOM = "realtime:room"
SONGS = {"event": "*", "schema": "public", "table": "songs"}


class DeafPolicies(Policies):
    """Answers whoever was cancelled too, as a `wait_for` does whose result has just come."""

    async def probe(self, *_: Any, **__: Any) -> Permissions:
        """Wait, and answer all the same."""
        with suppress(asyncio.CancelledError):
            await self.open.wait()
        return Permissions.all()


class DeafSubscriptions(Subscriptions):
    """Subscribes whoever was cancelled too."""

    async def subscribe(self, *_: Any) -> None:
        """Wait, and answer all the same."""
        with suppress(asyncio.CancelledError):
            await self.reading.wait()


async def waiting(server: Any) -> Any:
    """A client whose join of a private channel is with the policies."""
    server.realtime.authorizer = DeafPolicies()
    server.realtime.authorizer.open.clear()
    client = server.client()
    client.join(ROOM, private=True)
    assert await client.settled() == []
    return client


async def test_a_connection_that_is_gone_enters_no_room(server: Any) -> None:
    """The room would keep the channel, and the server count a user, for ever."""
    client = await waiting(server)
    client.drop()
    await client.settled()
    assert (len(server.realtime.hub), server.realtime.metrics.channels) == (0, 0)


async def test_a_join_that_was_replaced_is_not_answered_with_ok(server: Any) -> None:
    """The later join is; the earlier one is closed."""
    client = await waiting(server)
    client.join(ROOM, ref="2", private=True)
    server.realtime.authorizer.open.set()
    answers = [(ref, event) for _, ref, _, event, _ in await client.settled()]
    assert answers == [("2", Event.REPLY), ("1", Event.CLOSE)]


async def test_a_channel_that_was_left_is_not_told_that_it_is_subscribed(server: Any) -> None:
    """Nothing is written after the leave was answered."""
    server.realtime.changes = DeafSubscriptions()
    server.realtime.changes.reading.clear()
    client = server.client()
    client.join(ROOM, postgres_changes=[SONGS])
    await client.settled()
    client.push(ROOM, "phx_leave", {})
    assert [message[3] for message in await client.settled()] == [Event.REPLY, Event.CLOSE]


async def test_the_outcome_comes_through_as_it_is() -> None:
    """Of what nobody cancelled."""

    async def fail() -> None:
        raise LookupError

    assert await unless_cancelled(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(LookupError):
        await unless_cancelled(fail())
