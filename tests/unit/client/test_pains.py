"""What people suffered from with other clients, a test for each symptom (client specification, 5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.client.test_client import SOON
from tests.unit.client.world import START, World, jwt

from backbeat.client import events
from backbeat.client.config import ChangeBinding
from backbeat.client.endpoint import Endpoint
from backbeat.client.engine import inputs
from backbeat.errors import BindingMismatch, NoReply, PushDropped, Retry, TokenUnavailable

if TYPE_CHECKING:
    from tests.unit.client.conftest import MakeClient

    from backbeat.testing import MemoryServer

SONGS = (ChangeBinding(table="songs"),)
T0, T1 = jwt(), jwt()
EXPIRED = "Token has expired 3 seconds ago"


def test_01_the_first_join_of_a_private_channel_had_no_token() -> None:
    """The join waits for the token source, and carries its answer."""
    world = World(source=True)
    world.subscribe(private=True)
    world.advance(3)
    assert world.join_tokens() == []
    world.resolve(T1)
    assert world.join_tokens() == [T1]


def test_02_after_sleep_channels_rejoined_with_the_expired_token() -> None:
    """Waking up asks for a token before anything is joined."""
    world = World(source=True)
    world.answer = lambda: jwt(now=world.wall, lives=600)
    world.joined(private=True)
    world.sleep(7200)
    world.server.cut()
    world.advance(2)
    first, second = world.join_tokens()
    assert first != second


def test_03_an_expired_token_closed_the_channel_for_good_and_said_nothing() -> None:
    """It comes back by itself, and the status says why it was away."""
    world = World(source=True, answer=T0)
    channel = world.joined(private=True)
    world.answer = T1
    world.server.connections[0].shut_down("room", EXPIRED)
    assert world.state(channel) == "joined"
    assert world.of(events.Interrupted)[0].error.retry is Retry.REFRESH


@pytest.mark.parametrize("symptom", ["04 reconnect used the first token", "05 so did every rejoin, for ever"])
def test_04_05_a_join_payload_is_never_kept(symptom: str) -> None:
    """Every join is put together anew."""
    world = World(source=True, answer=T0)
    world.joined(private=True)
    for token in (T1, jwt()):
        world.answer = token
        if symptom.startswith("04"):
            world.server.cut()
        else:
            world.server.connections[0].crash("room")
        world.advance(2)
        assert world.join_tokens()[-1] == token


def test_06_a_manual_token_was_lost_with_the_channel() -> None:
    """Removing a channel touches no token."""
    world = World(token=None)
    world.set_auth(T0)
    world.remove(world.joined("conversation:1", private=True))
    world.joined("conversation:2", private=True)
    assert world.join_tokens() == [T0, T0]


def test_07_the_first_token_froze_the_refresh() -> None:
    """A token that a source gave is followed by the next of that source."""
    world = World(source=True, answer=T0, token_max_age=0)
    world.joined(private=True)
    world.answer = T1
    world.advance(25)
    assert world.pushed_tokens() == [{"access_token": T1}]


def test_08_signing_out_left_channels_failing_every_five_seconds() -> None:
    """They wait for somebody to sign in, and send nothing."""
    world = World(source=True, answer=T0)
    world.joined(private=True)
    world.answer = None
    world.tell(inputs.SourceChanged(signed_out=True))
    joins = len(world.server.joins())
    world.advance(300)
    assert len(world.server.joins()) == joins


def test_09_channels_went_on_delivering_the_old_users_rows() -> None:
    """From the moment of the switch, nothing of the old membership is delivered."""
    world = World(source=True, answer=T0)
    world.joined(private=True, changes=SONGS)
    world.server.hold("phx_leave")
    world.answer = jwt("mike")
    world.tell(inputs.SourceChanged())
    world.server.change("songs", "INSERT", {"secret": "eric's"})
    assert world.of(events.ChangeEvent) == []


def test_10_rows_under_row_level_security_silently_never_came() -> None:
    """Joining without a user is said, with the tables; or refused, if that was asked for."""
    world = World()
    world.joined(changes=SONGS)
    assert world.of(events.JoinedAsAnon)[0].tables == ("public.songs",)
    strict = World(require_user_token=True)
    _, ticket = strict.subscribe(changes=SONGS)
    assert isinstance(strict.outcome(ticket).error, TokenUnavailable)


@pytest.mark.parametrize("how", ["crash", "shut_down", "cut", "refuse"])
def test_11_12_a_status_came_without_a_reason(how: str) -> None:
    """Every interruption has a code and a text, and recovery is nobody's business but the client's."""
    world = World()
    if how == "refuse":
        world.server.refuse_join("room", "", times=1)
        channel, _ = world.subscribe()
    else:
        channel = world.joined()
        connection = world.server.connections[0]
        {
            "crash": lambda: connection.crash("room"),
            "shut_down": lambda: connection.shut_down("room", "Too many messages per second"),
            "cut": world.server.cut,
        }[how]()
    (interrupted,) = world.of(events.Interrupted)
    assert interrupted.error.code
    assert interrupted.error.message
    world.advance(31)
    assert world.state(channel) == "joined"


def test_13_a_channel_could_not_be_subscribed_again() -> None:
    """Leaving and joining the same object works, however often."""
    world = World()
    channel = world.joined()
    for _ in range(3):
        world.unsubscribe(channel)
        world.subscribe(channel=channel)
        assert world.state(channel) == "joined"


def test_14_heartbeats_starved() -> None:
    """Traffic from the server is no reason to leave one out."""
    world = World()
    world.joined()
    for _ in range(60):
        world.server.broadcast("room", "x", {})
        world.advance(1)
    assert len(world.server.of("heartbeat")) == 2


def test_15_subscribed_came_before_the_changes_streamed() -> None:
    """The subscription waits for the server's word."""
    world = World()
    world.server.streams = False
    _, ticket = world.subscribe(changes=SONGS, ready="streaming")
    assert not world.settled(ticket)


def test_16_a_mismatch_between_bindings_that_were_the_same() -> None:
    """Order, letter case and nulls do not matter; what is really missing is named."""
    world = World()
    world.server.ignore("phx_join")
    channel, ticket = world.subscribe(changes=(*SONGS, ChangeBinding(table="news", filter="id=eq.1")))
    join = world.server.of("phx_join")[0].message
    entries = [
        {"id": 2, "event": "*", "schema": "public", "table": "news", "filter": "id=eq.1"},
        {"id": 1, "event": "*", "schema": "public", "table": "songs", "filter": None, "select": None},
    ]
    world.server.connections[0].reply(join, response={"postgres_changes": entries})
    assert world.state(channel) == "joined"
    other, ticket = world.subscribe("other", changes=SONGS)
    for _ in range(2):
        join = world.server.of("phx_join")[-1].message
        world.server.connections[0].reply(join, response={"postgres_changes": []})
        world.advance(1)
    assert isinstance(world.outcome(ticket).error, BindingMismatch)
    assert world.state(other) == "denied"


def test_17_removing_one_channel_closed_its_successor() -> None:
    """A late word about the old one is not about the new one."""
    world = World()
    old = world.joined()
    world.server.hold("phx_leave")
    world.unsubscribe(old)
    new, ticket = world.subscribe("room")
    world.server.release()
    assert (world.outcome(ticket).error, world.state(new)) == (None, "joined")


async def test_20_an_error_in_a_callback_was_lost(server: MemoryServer, make_client: MakeClient) -> None:
    """The subscription raises to whoever awaits it; a handler's error is an event."""
    client = make_client()
    failures = client.events(events.HandlerFailed)
    channel = client.channel("room")
    channel.on_status(lambda _: 1 / 0)
    await channel.subscribe()
    assert isinstance((await failures.next(SOON)).error, ZeroDivisionError)


def test_21_nothing_came_for_hours_and_nobody_noticed() -> None:
    """A heartbeat without an answer ends the connection."""
    world = World()
    world.joined()
    world.server.ignore("heartbeat", times=1)
    world.advance(40)
    assert world.opens == 2


async def test_22_a_handler_that_raised_made_the_client_deaf(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """The next broadcast is delivered, to that handler and to others."""
    heard: list[Any] = []
    channel = make_client().channel("room")

    @channel.on_broadcast()
    def deaf(event: events.BroadcastEvent) -> None:
        heard.append(event.payload)
        raise RuntimeError

    stream = channel.broadcasts()
    await channel.subscribe()
    for n in range(2):
        server.broadcast("room", "x", n)
    assert [(await stream.next(SOON)).payload for _ in range(2)] == [0, 1]
    await channel.settled()
    assert heard == [0, 1]


def test_23_a_clean_close_was_not_reconnected_and_changes_were_lost() -> None:
    """Code 1000 is a close like others; the bindings are asked for again."""
    world = World()
    world.joined(changes=SONGS)
    world.server.close(1000)
    world.advance(1)
    world.server.change("songs", "INSERT", {"id": 1})
    assert len(world.of(events.ChangeEvent)) == 1


def test_24_a_join_timed_out_after_it_had_succeeded() -> None:
    """A timer of a join that was answered does nothing; one that was not is followed by another."""
    world = World()
    channel = world.joined()
    world.advance(60)
    assert world.of(events.Interrupted) == []
    world.server.cut()
    world.server.ignore("phx_join", times=2)
    world.advance(40)
    assert [type(event.error) for event in world.of(events.Interrupted)][1:] == [NoReply, NoReply]
    assert world.state(channel) == "joined"


def test_a_dropped_or_removed_push_never_settled() -> None:
    """Both raise to whoever awaits them."""
    world = World(push_buffer=1)
    world.server.ignore("phx_join")
    channel, _ = world.subscribe()
    tickets = [world.broadcast(channel) for _ in range(2)]
    world.unsubscribe(channel)
    assert all(isinstance(world.outcome(ticket).error, PushDropped) for ticket in tickets)


def test_leaving_was_confirmed_before_the_server_knew() -> None:
    """The acknowledgement is the server's."""
    world = World()
    channel = world.joined()
    world.server.hold("phx_leave")
    ticket = world.unsubscribe(channel)
    assert not world.settled(ticket)
    world.server.release()
    assert world.outcome(ticket).value is True


def test_large_whole_numbers_were_rounded() -> None:
    """An int8 is exact."""
    world = World()
    world.joined(changes=SONGS)
    world.server.change("songs", "INSERT", {"id": 2**63 - 1}, columns={"id": "int8"})
    assert world.of(events.ChangeEvent)[0].new == {"id": 2**63 - 1}


def test_the_log_level_warn_was_ignored() -> None:
    """Servers know it as `warning` only."""
    endpoint = Endpoint.of("ws://x", vsn="2.0.0", params={"log_level": "warn"})
    assert "log_level=warning" in endpoint.socket(None)


def test_missed_events_while_offline_were_not_even_suspected() -> None:
    """A gap says what is missing, from when to when."""
    world = World()
    world.joined(changes=SONGS)
    world.server.cut()
    world.advance(1)
    assert {(gap.missing, gap.since) for gap in world.of(events.Gap)} == {
        ("broadcasts", START),
        ("changes", START),
    }


async def test_awaiting_track_never_came_back(server: MemoryServer, make_client: MakeClient) -> None:
    """It is answered, refused, or late; never nothing."""
    channel = make_client(push_timeout=0.01).channel("room")
    await channel.subscribe()
    server.ignore("presence")
    with pytest.raises(NoReply):
        await asyncio.wait_for(channel.presence.track({}), SOON)
