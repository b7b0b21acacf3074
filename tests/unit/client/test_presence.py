"""Presence: what a client knows about who is there, and what it tells about itself."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.client.world import World

from backbeat.client import events
from backbeat.client.engine.presence import PresenceView
from backbeat.errors import NoReply, PushDropped
from backbeat.protocol.presence import PresenceMap, encode_diff, encode_state
from backbeat.server.presence import PresenceTable

calls = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["ann", "bob", "__proto__"]),
        st.one_of(st.none(), st.dictionaries(st.sampled_from("xy"), st.integers(0, 2), max_size=2)),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(calls, st.integers(0, 25), st.integers(0, 10), st.booleans())
def test_every_view_agrees_with_the_server(
    done: list[tuple[int, str, dict[str, int] | None]], joins_at: int, early: int, again: bool
) -> None:
    """Whenever it joined, whatever diffs came before its state, and if it joined twice."""
    table: PresenceTable[int] = PresenceTable()
    diffs: list[bytes] = []
    states = [encode_state({})]
    keys: dict[int, str] = {}
    for number, (member, key, payload) in enumerate(done):
        own = keys.setdefault(member, key)
        diff = table.untrack(member) if payload is None else table.track(member, own, payload, f"r{number}")
        if diff is not None:
            diffs.append(diff)
            states.append(encode_state(table.state()))
    start = min(joins_at, len(diffs))
    view = PresenceView("room")
    for _ in range(1 + again):
        view.expect_state()
        # Diffs that are part of the state already may come before it, and those after it may be early.
        for diff in diffs[max(0, start - early) : start]:
            view.take_diff(diff, 0.0)
        view.take_state(states[start], 0.0)
        for diff in diffs[start:]:
            view.take_diff(diff, 0.0)
    expected = {key: sorted(meta["phx_ref"] for meta in metas) for key, metas in table.state().items()}
    found = {key: sorted(meta["presence_ref"] for meta in metas) for key, metas in view.public().items()}
    assert found == expected


def test_an_update_is_told_as_one() -> None:
    """Beside the joining of the new and the leaving of the old."""
    view = PresenceView("room")
    view.take_state(encode_state({"ann": [{"phx_ref": "1", "x": 1}]}), 0.0)
    new = {"phx_ref": "2", "phx_ref_prev": "1", "x": 2}
    found = view.take_diff(encode_diff({"ann": [new]}, {"ann": [{"phx_ref": "1", "x": 1}]}), 0.0)
    assert [type(event).__name__ for event in found] == [
        "PresenceUpdate",
        "PresenceJoin",
        "PresenceLeave",
        "PresenceSync",
    ]
    update = found[0]
    assert isinstance(update, events.PresenceUpdate)
    assert (update.before["x"], update.after["x"]) == (1, 2)
    assert view.public() == {"ann": ({"presence_ref": "2", "x": 2},)}


def test_an_unknown_leave_skips_only_itself() -> None:
    """The other keys of the diff are applied."""
    view = PresenceView("room")
    view.take_state(encode_state({"ann": [{"phx_ref": "1"}]}), 0.0)
    found = view.take_diff(encode_diff({}, {"nobody": [{"phx_ref": "9"}], "ann": [{"phx_ref": "1"}]}), 0.0)
    assert [event.key for event in found if isinstance(event, events.PresenceLeave)] == ["ann"]
    assert view.public() == {}


def test_what_is_given_out_cannot_change_what_is_known() -> None:
    """The state is a copy."""
    view = PresenceView("room")
    state: PresenceMap = {"ann": [{"phx_ref": "1", "x": 1}]}
    view.take_state(encode_state(state), 0.0)
    shown = view.public()
    shown["ann"][0]["x"] = 2  # type: ignore[index]
    assert view.public()["ann"][0]["x"] == 1


def test_presence_is_shared_between_two_clients_of_a_server() -> None:
    """Through the whole engine; the joiner gets the state, the others a diff."""
    world = World()
    one = world.joined("room", presence=True, presence_key="ann")
    world.track(one, {"x": 1})
    assert [event.key for event in world.of(events.PresenceJoin)] == ["ann"]
    assert world.membership(one).presences["ann"][0]["x"] == 1
    world.track(one, None)
    assert world.membership(one).presences == {}


def test_what_was_tracked_is_tracked_again_after_a_rejoin() -> None:
    """The newest payload, once; nothing after an untrack."""
    world = World()
    channel = world.joined(presence=True)
    world.track(channel, {"x": 1})
    world.track(channel, {"x": 2})
    world.server.cut()
    world.advance(1)
    tracked = [each.payload.get("payload") for each in world.server.of("presence")]
    assert tracked == [{"x": 1}, {"x": 2}, {"x": 2}]
    world.track(channel, None)
    world.server.cut()
    world.advance(2)
    assert len(world.server.of("presence")) == 4


def test_too_many_calls_wait_and_only_the_newest_is_sent() -> None:
    """Five in thirty seconds; those who waited for one that was replaced hear of the newest."""
    world = World()
    channel = world.joined()
    tickets = [world.track(channel, {"n": n}, timeout=60) for n in range(9)]
    assert [world.settled(ticket) for ticket in tickets] == [True] * 5 + [False] * 4
    world.advance(29)
    assert len(world.server.of("presence")) == 5
    world.advance(1)
    assert world.server.of("presence")[-1].payload["payload"] == {"n": 8}
    assert len(world.server.of("presence")) == 6
    assert all(world.outcome(ticket).error is None for ticket in tickets)


def test_a_call_that_waits_too_long_is_told_so() -> None:
    """It is sent all the same when its turn comes, for it is what the user wants."""
    world = World()
    channel = world.joined()
    for n in range(5):
        world.track(channel, {"n": n})
    ticket = world.track(channel, {"n": 5}, timeout=3)
    world.advance(3)
    assert isinstance(world.outcome(ticket).error, NoReply)
    world.advance(27)
    assert world.server.of("presence")[-1].payload["payload"] == {"n": 5}


def test_a_call_before_the_join_waits_for_it() -> None:
    """And is settled if the channel is left."""
    world = World()
    world.server.ignore("phx_join", times=1)
    channel, _ = world.subscribe()
    ticket = world.track(channel, {"n": 1})
    assert not world.settled(ticket)
    world.unsubscribe(channel)
    assert isinstance(world.outcome(ticket).error, PushDropped)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_channel_without_presence_ignores_diffs(enabled: bool) -> None:
    """Servers send them to public channels all the same; without a state they mean nothing."""
    world = World()
    world.joined(presence=enabled)
    diff = msgspec.json.decode(encode_diff({"ann": [{"phx_ref": "1"}]}, {}))
    for _ in range(3):
        world.server.connections[0].send("room", "presence_diff", diff)
    assert bool(world.of(events.PresenceJoin)) is enabled
