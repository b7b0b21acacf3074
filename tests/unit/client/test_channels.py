"""Channels: joining, leaving, being refused, sending (client specification, 1.7 to 1.13)."""

from __future__ import annotations

import pytest
from tests.unit.client.world import World

from backbeat.client import events
from backbeat.client.config import ChangeBinding
from backbeat.client.engine import inputs
from backbeat.client.engine.link import MOVES as LINK_MOVES
from backbeat.client.engine.link import LinkState
from backbeat.client.engine.membership import MOVES, ChannelState
from backbeat.errors import (
    BackbeatError,
    BindingMismatch,
    ConnectionLost,
    NoReply,
    NotSubscribed,
    PushDropped,
    RateLimited,
)

SONGS = ChangeBinding(table="songs")
NEWS = ChangeBinding(event="INSERT", table="news", filter="id=gt.5")


def test_the_tables_of_moves_name_every_state() -> None:
    """A state that is missing could never be left."""
    assert set(MOVES) == set(ChannelState)
    assert set(LINK_MOVES) == set(LinkState)


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_a_join_asks_for_what_the_channel_is(vsn: str) -> None:
    """Every key, in both versions of the protocol."""
    world = World(vsn=vsn)
    world.joined(ack=True, receive_own=True, presence=True, presence_key="eric", changes=(SONGS, NEWS))
    (join,) = world.server.joins()
    assert join["config"] == {
        "broadcast": {"ack": True, "self": True},
        "presence": {"key": "eric", "enabled": True},
        "postgres_changes": [
            {"event": "*", "schema": "public", "table": "songs"},
            {"event": "INSERT", "schema": "public", "table": "news", "filter": "id=gt.5"},
        ],
        "private": False,
    }
    assert "access_token" not in join


def test_every_push_names_its_join() -> None:
    """Also after a rejoin, with the new name."""
    world = World()
    channel = world.joined()
    world.broadcast(channel)
    world.server.cut()
    world.advance(1)
    world.track(channel, {})
    world.broadcast(channel)
    pushes = [each.message for each in world.server.received if each.topic == "room"]
    assert all(push.join_ref == "1" for push in pushes)


def test_a_refused_join_is_tried_again_with_growing_waits() -> None:
    """1, 2, 5, 10, 10 seconds, where the reason may pass."""
    world = World()
    world.server.refuse_join("room", "DatabaseLackOfConnections: Database can't accept more connections")
    world.subscribe()
    world.advance(28.5)
    waits = [event.retry_in for event in world.of(events.Interrupted)]
    assert waits == [1, 2, 5, 10, 10, 10]
    assert len(world.server.joins()) == 6


def test_a_limit_is_waited_out() -> None:
    """Thirty seconds; whoever cannot wait so long is told at once."""
    world = World()
    world.server.refuse_join("room", "ChannelRateLimitReached: Too many channels", times=1)
    channel, ticket = world.subscribe()
    assert isinstance(world.outcome(ticket).error, RateLimited)
    world.advance(29)
    assert len(world.server.joins()) == 1
    world.advance(1)
    assert world.state(channel) == "joined"


def test_a_join_without_an_answer_is_left_and_tried_again() -> None:
    """The half-open join is left, so that the server does not keep it."""
    world = World()
    world.server.ignore("phx_join", times=1)
    channel, ticket = world.subscribe(timeout=10)
    world.advance(10)
    assert isinstance(world.outcome(ticket).error, NoReply)
    assert len(world.server.of("phx_leave")) == 1
    world.advance(1)
    assert world.state(channel) == "joined"


def test_a_late_answer_to_a_join_that_was_given_up_is_not_believed() -> None:
    """It belongs to a join that counts no more."""
    world = World()
    world.server.ignore("phx_join")
    channel, _ = world.subscribe()
    world.advance(10)
    world.server.raw('["1","1","realtime:room","phx_reply",{"status":"ok","response":{}}]')
    assert world.state(channel) == "errored"


def test_a_second_subscription_waits_for_the_same_outcome() -> None:
    """It sends nothing of its own."""
    world = World()
    world.server.ignore("phx_join", times=1)
    channel, first = world.subscribe()
    _, second = world.subscribe(channel=channel)
    world.server.connections[0].reply(world.server.of("phx_join")[0].message)
    assert world.outcome(first).error is world.outcome(second).error is None
    assert len(world.server.joins()) == 1


def test_a_channel_can_be_subscribed_again() -> None:
    """The same one, after it was left."""
    world = World()
    channel = world.joined()
    assert world.outcome(world.unsubscribe(channel)).value is True
    world.subscribe(channel=channel)
    assert world.state(channel) == "joined"
    statuses = [type(event).__name__ for event in world.of(events.StatusEvent)]
    assert statuses == ["Subscribed", "ChannelClosed", "Subscribed"]


def test_leaving_waits_for_the_server() -> None:
    """Until it says so, or the patience is over; then the result says that it did not."""
    world = World()
    channel = world.joined()
    world.server.ignore("phx_leave")
    ticket = world.unsubscribe(channel)
    assert (world.state(channel), world.settled(ticket)) == ("leaving", False)
    world.advance(5)
    assert (world.state(channel), world.outcome(ticket).value) == ("closed", False)


def test_subscribing_while_leaving_joins_behind_the_leave() -> None:
    """The order on the wire is that of the calls."""
    world = World()
    channel = world.joined()
    world.server.ignore("phx_leave", times=1)
    leaving = world.unsubscribe(channel)
    _, joining = world.subscribe(channel=channel)
    assert not world.settled(joining)
    world.server.connections[0].reply(world.server.of("phx_leave")[0].message)
    assert world.outcome(leaving).value is True
    assert world.outcome(joining).error is None


def test_another_channel_of_the_topic_waits_for_the_leave() -> None:
    """A late closing of the old one does not touch the new one."""
    world = World()
    old = world.joined()
    world.server.ignore("phx_leave", times=1)
    world.unsubscribe(old)
    new, ticket = world.subscribe("room")
    assert len(world.server.joins()) == 1
    world.server.connections[0].reply(world.server.of("phx_leave")[0].message)
    assert world.outcome(ticket).error is None
    world.server.raw('["1","1","realtime:room","phx_close",{}]')
    assert (world.state(old), world.state(new)) == ("closed", "joined")


def test_removing_one_channel_touches_no_other() -> None:
    """Neither its membership nor the connection."""
    world = World()
    one, two = world.joined("one"), world.joined("two")
    world.remove(one)
    assert (one in world.engine.channels, world.state(two)) == (False, "joined")


def test_a_channel_that_is_removed_is_forgotten_when_it_is_left() -> None:
    """Whether the server says so or not, and however long that takes."""
    world = World()
    channel = world.joined()
    world.server.ignore("phx_leave")
    world.remove(channel)
    assert channel in world.engine.channels
    world.advance(5)
    assert world.engine.channels == {}


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_a_channel_that_the_server_ends_comes_back(event: str) -> None:
    """With a status that says why, and after a wait."""
    world = World()
    channel = world.joined()
    world.server.raw(f'["1","1","realtime:room","{event}",{{}}]')
    (interrupted,) = world.of(events.Interrupted)
    assert (world.state(channel), interrupted.retry_in, bool(interrupted.error.message)) == (
        "errored",
        1,
        True,
    )
    world.advance(1)
    assert world.state(channel) == "joined"


def test_an_ending_of_another_join_is_not_believed() -> None:
    """Its ref, or its join ref, is another one."""
    world = World()
    channel = world.joined()
    for frame in (
        '["9","9","realtime:room","phx_close",{}]',
        '[null,"9","realtime:room","phx_error",{}]',
    ):
        world.server.raw(frame)
    assert world.state(channel) == "joined"


def test_a_limit_that_ends_a_channel_is_waited_out() -> None:
    """The system message before the closing says what it was."""
    world = World()
    channel = world.joined()
    world.server.connections[0].shut_down("room", "Too many messages per second")
    (interrupted,) = world.of(events.Interrupted)
    assert (interrupted.error.code, interrupted.retry_in) == ("MessagePerSecondRateLimitReached", 30)
    world.advance(30)
    assert world.state(channel) == "joined"


def test_an_old_complaint_does_not_explain_a_later_ending() -> None:
    """A refused broadcast is no reason to stay away when the server restarts a minute later."""
    world = World()
    channel = world.joined(private=True)
    world.server.connections[0].system(
        "room", "You do not have permissions to send to this Channel topic: room", status="error"
    )
    world.advance(24)
    world.server.raw('["1","1","realtime:room","phx_close",{}]')
    assert world.state(channel) == "errored"


# Row changes ------------------------------------------------------------------------------------------------


def test_a_subscription_with_row_changes_waits_until_they_stream() -> None:
    """Unless it is told to wait for the join only."""
    world = World()
    world.server.streams = False
    channel, streaming = world.subscribe(changes=(SONGS,), ready="streaming")
    _, joined = world.subscribe(channel=channel, ready="joined")
    assert (world.settled(streaming), world.settled(joined)) == (False, True)
    world.server.connections[0].system("room", "Subscribed to PostgreSQL", extension="postgres_changes")
    assert world.outcome(streaming).error is None


def test_row_changes_that_will_not_come_are_told_at_once() -> None:
    """What is wrong with the request raises; the channel stays joined."""
    world = World()
    world.server.streams = False
    channel, ticket = world.subscribe(changes=(SONGS,), ready="streaming")
    world.server.connections[0].system(
        "room",
        "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the "
        "given connect parameters: [event: *, schema: public, table: songs, filters: [], select: nil]",
        extension="postgres_changes",
        status="error",
    )
    error = world.outcome(ticket).error
    assert isinstance(error, BackbeatError)
    assert (error.code, world.state(channel)) == ("RealtimeDisabledForConfiguration", "joined")
    assert "alter publication" in error.hint


def test_row_changes_that_are_not_confirmed_in_time_are_told() -> None:
    """Joined, but not streaming: the error says so."""
    world = World()
    world.server.streams = False
    _, ticket = world.subscribe(changes=(SONGS,), ready="streaming")
    world.advance(10)
    error = world.outcome(ticket).error
    assert isinstance(error, NoReply)
    assert error.code == "ChangesNotReady"


def reply_to_join(world: World, changes: object) -> None:
    """Answer the last join with these bindings."""
    join = world.server.of("phx_join")[-1].message
    world.server.connections[-1].reply(join, response={"postgres_changes": changes})


def test_bindings_are_matched_by_content() -> None:
    """In any order, with null for what is absent, with keys nobody asked about, and with a number 0."""
    world = World()
    world.server.ignore("phx_join")
    channel, _ = world.subscribe(changes=(SONGS, NEWS))
    reply_to_join(
        world,
        [
            {"id": 0, "event": "insert", "schema": "public", "table": "news", "filter": "id=gt.5", "more": 1},
            {"id": 7, "event": "*", "schema": "public", "table": "songs", "filter": None},
        ],
    )
    data = {"schema": "public", "table": "news", "type": "INSERT", "record": {"id": 6}}
    world.server.connections[0].send("room", "postgres_changes", {"ids": [0], "data": data})
    assert world.state(channel) == "joined"
    assert world.bindings == [(1,)]


@pytest.mark.parametrize(
    "changes", [None, [], [{"id": 1, "event": "*", "schema": "public", "table": "other"}], "lies", [1, None]]
)
def test_bindings_that_do_not_match_are_refused(changes: object) -> None:
    """The channel is left and joined once more; then it is denied, and the error names what is missing."""
    world = World()
    world.server.ignore("phx_join")
    channel, ticket = world.subscribe(changes=(SONGS,))
    reply_to_join(world, changes)
    assert (world.state(channel), len(world.server.of("phx_leave"))) == ("errored", 1)
    world.advance(1)
    reply_to_join(world, changes)
    error = world.outcome(ticket).error
    assert isinstance(error, BindingMismatch)
    assert "public.songs" in error.message
    world.advance(60)
    assert (world.state(channel), len(world.server.joins())) == ("denied", 2)


# Sending ----------------------------------------------------------------------------------------------------


def test_a_push_without_a_subscription_is_refused() -> None:
    """With the advice to subscribe."""
    world = World()
    for ticket in (world.broadcast(1), world.track(1, {})):
        assert isinstance(world.outcome(ticket).error, NotSubscribed)
    channel = world.joined()
    world.unsubscribe(channel)
    assert isinstance(world.outcome(world.broadcast(channel)).error, NotSubscribed)


def test_pushes_wait_for_the_join_in_order() -> None:
    """None is sent before the reply."""
    world = World()
    world.server.ignore("phx_join", times=1)
    channel, _ = world.subscribe()
    tickets = [world.broadcast(channel, event) for event in "abc"]
    assert world.server.of("broadcast") == []
    world.server.connections[0].reply(world.server.of("phx_join")[0].message)
    assert all(map(world.settled, tickets))
    assert [each.message.user_event for each in world.server.of("broadcast")] == ["a", "b", "c"]  # type: ignore[union-attr]


def test_a_push_that_may_not_wait_fails() -> None:
    """At once, while the channel is not joined."""
    world = World()
    world.server.ignore("phx_join")
    channel, _ = world.subscribe()
    assert isinstance(world.outcome(world.broadcast(channel, hold=False)).error, NotSubscribed)


def test_too_many_waiting_pushes_drop_the_oldest() -> None:
    """Its sender is told."""
    world = World(push_buffer=2)
    world.server.ignore("phx_join")
    channel, _ = world.subscribe()
    tickets = [world.broadcast(channel) for _ in range(3)]
    error = world.outcome(tickets[0]).error
    assert isinstance(error, PushDropped)
    assert error.code == "PushBufferOverflow"
    assert [world.settled(ticket) for ticket in tickets] == [True, False, False]


def test_waiting_pushes_of_a_channel_that_is_left_are_settled() -> None:
    """So are those that wait for an answer."""
    world = World()
    world.server.ignore("broadcast")
    channel = world.joined(ack=True)
    ticket = world.broadcast(channel)
    world.unsubscribe(channel)
    assert isinstance(world.outcome(ticket).error, PushDropped)


def test_an_acknowledged_broadcast_waits_for_the_server() -> None:
    """Its refusal is raised; silence too, with what it may mean on a private channel."""
    world = World()
    channel = world.joined(ack=True, private=True)
    assert world.outcome(world.broadcast(channel)).error is None
    world.server.ignore("broadcast")
    refused = world.broadcast(channel)
    connection, push = world.server.connections[0], world.server.of("broadcast")[-1].message
    connection.reply(push, status="error", response={"reason": "payload_size_exceeded"})
    assert world.outcome(refused).error.code == "PayloadSizeExceeded"  # type: ignore[union-attr]
    silent = world.broadcast(channel)
    world.advance(10)
    error = world.outcome(silent).error
    assert isinstance(error, NoReply)
    assert "INSERT policy" in error.hint


def test_a_broadcast_under_way_when_the_connection_goes_is_told() -> None:
    """Whether it arrived is not known, so nobody sends it twice."""
    world = World()
    world.server.ignore("broadcast")
    channel = world.joined(ack=True)
    ticket = world.broadcast(channel)
    world.server.cut()
    assert isinstance(world.outcome(ticket).error, ConnectionLost)
    world.advance(5)
    assert len(world.server.of("broadcast")) == 1


def test_an_event_too_long_for_the_wire_fails_alone() -> None:
    """The others are sent."""
    world = World()
    channel = world.joined()
    bad, good = world.broadcast(channel, "x" * 256), world.broadcast(channel)
    assert isinstance(world.outcome(bad).error, BackbeatError)
    assert world.outcome(good).error is None


def test_bytes_need_the_second_version() -> None:
    """The first one has no binary frames."""
    world = World(vsn="1.0.0")
    channel = world.joined(receive_own=True)
    assert isinstance(
        world.outcome(world.broadcast(channel, payload=b"\xff", is_json=False)).error, BackbeatError
    )
    world.broadcast(channel, payload=b'{"n":1}')
    assert world.of(events.BroadcastEvent)[0].payload == {"n": 1}


def test_commands_for_a_channel_that_never_was_are_settled() -> None:
    """Leaving it is done at once."""
    world = World()
    assert world.outcome(world.unsubscribe(99)).value is False
    world.tell(inputs.RemoveChannel(99))
