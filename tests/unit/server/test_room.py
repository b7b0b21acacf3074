"""Rooms: who hears what, in which order, and how often it is encoded."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.unit.server.listeners import TOPIC, Counted, Listener, Turns

from backbeat.protocol.codec import V1, V2
from backbeat.server.delivery import Hears, UserBroadcast
from backbeat.server.hub import Hub
from backbeat.server.metrics import Metrics
from backbeat.server.room import MAX_BATCH_BYTES, MAX_WAITING_BYTES, Room


def entered(room: Room, *members: Listener) -> None:
    """Let members enter."""
    for member in members:
        room.enter(member)


# Fan-out ----------------------------------------------------------------------------------------------------


def test_a_delivery_is_encoded_once_for_each_version(room: Room, turns: Turns) -> None:
    """However many members there are, whatever they hear, in rooms of both versions."""
    members = [Listener(serializer, hears) for serializer in (V1, V2) for hears in (Hears(1), Hears(3)) * 3]
    entered(room, *members)
    delivery = Counted(b"x")
    room.publish(delivery, 1)
    turns.next()
    assert sorted(delivery.encoded) == ["1.0.0", "2.0.0"]
    assert {b"".join(each.written) for each in members if each.serializer is V1} == {b"x1"}
    assert {b"".join(each.written) for each in members if each.serializer is V2} == {b"x2"}


def test_a_version_nobody_speaks_is_never_encoded(room: Room, turns: Turns) -> None:
    """A room of vsn 2 costs no vsn 1."""
    entered(room, Listener(V2))
    delivery = Counted(b"x")
    room.publish(delivery, 1)
    turns.next()
    assert delivery.encoded == ["2.0.0"]


def test_all_members_of_a_version_get_the_same_bytes(room: Room, turns: Turns) -> None:
    """The same object: joining costs once, not once for each member."""
    members = Listener(), Listener()
    entered(room, *members)
    for name in (b"a", b"b"):
        room.publish(Counted(name), 1)
    turns.next()
    assert members[0].written[0] is members[1].written[0]


def test_a_turn_is_one_write(room: Room, turns: Turns) -> None:
    """What is published in one turn arrives together, in order, and not before the turn ends."""
    member = Listener()
    entered(room, member)
    for name in (b"a", b"b", b"c"):
        room.publish(Counted(name), 1)
    assert member.written == []
    turns.next()
    assert member.written == [b"a2b2c2"]


def test_two_turns_are_two_writes(room: Room, turns: Turns) -> None:
    """A turn that was flushed is asked for again by the next publication."""
    member = Listener()
    entered(room, member)
    for name in (b"a", b"b"):
        room.publish(Counted(name), 1)
        turns.next()
    assert member.written == [b"a2", b"b2"]


def test_a_large_batch_is_joined_before_its_turn(room: Room, turns: Turns) -> None:
    """What follows is a batch of its own, in the same turn and in order."""
    member = Listener()
    entered(room, member)
    for name, size in ((b"a", MAX_BATCH_BYTES), (b"b", 1), (b"c", 1)):
        room.publish(Counted(name), size)
    turns.next()
    assert member.written == [b"a2b2", b"c2"]


@pytest.mark.parametrize("others", [0, 2])
def test_a_sender_is_left_out_of_its_own_only(room: Room, turns: Turns, others: int) -> None:
    """It hears everybody else's messages of the same turn, in order."""
    sender, listeners = Listener(), [Listener() for _ in range(others)]
    entered(room, sender, *listeners)
    for name, by in ((b"a", None), (b"b", sender), (b"c", None)):
        room.publish(Counted(name, sender=by), 1)
    turns.next()
    assert sender.written == [b"a2c2"]
    assert all(each.written == [b"a2b2c2"] for each in listeners)


def test_a_sender_alone_is_written_nothing(room: Room, turns: Turns) -> None:
    """Not even an empty write."""
    sender = Listener()
    entered(room, sender)
    room.publish(Counted(b"a", sender=sender), 1)
    turns.next()
    assert sender.written == []


def test_a_sender_that_left_is_no_obstacle(room: Room, turns: Turns) -> None:
    """Others receive what it sent before it went."""
    sender, listener = Listener(), Listener()
    entered(room, sender, listener)
    room.publish(Counted(b"a", sender=sender), 1)
    room.leave(sender)
    turns.next()
    assert listener.written == [b"a2"]


@pytest.mark.parametrize(
    ("hears", "expected"),
    [
        (Hears.NOTHING, []),
        (Hears.BROADCAST, [b"b2"]),
        (Hears.PRESENCE, [b"p2"]),
        (Hears.BROADCAST | Hears.PRESENCE, [b"p2b2"]),
    ],
)
def test_members_hear_what_they_may(room: Room, turns: Turns, hears: Hears, expected: list[bytes]) -> None:
    """Broadcasts and presence are rights of their own."""
    member = Listener(hears=hears)
    entered(room, member)
    room.publish(Counted(b"p", Hears.PRESENCE), 1)
    room.publish(Counted(b"b"), 1)
    turns.next()
    assert member.written == expected


def test_deliveries_are_counted(room: Room, turns: Turns, metrics: Metrics) -> None:
    """One for each message and member that hears it."""
    entered(room, Listener(), Listener(), Listener(hears=Hears.PRESENCE))
    for name in (b"a", b"b"):
        room.publish(Counted(name), 1)
    turns.next()
    assert metrics.deliveries == 4


def test_a_turn_of_opaque_bytes_writes_nothing_to_vsn_1(room: Room, turns: Turns) -> None:
    """And what is published around them still arrives."""
    member = Listener(V1)
    entered(room, member)
    room.publish(UserBroadcast("e", b"\x00", is_json=False), 1)
    turns.next()
    assert member.written == []
    room.publish(UserBroadcast("e", b"\x00", is_json=False), 1)
    room.publish(Counted(b"a"), 1)
    turns.next()
    assert member.written == [b"a1"]


@pytest.mark.parametrize("budget", [1, 100])
def test_a_member_that_cannot_be_written_to_costs_nobody_else_anything(
    room: Room, metrics: Metrics, budget: int
) -> None:
    """Its failure is counted and reported; the others get each message once."""
    members = [Listener() for _ in range(4)]

    def broken(_: bytes) -> None:
        raise RuntimeError("the transport is closed")

    members[1].write = broken
    entered(room, *members)
    with capture_logs() as lines:
        for name in (b"a", b"b"):
            room.publish(Counted(name), 1)
            while room.waiting:
                room.send(budget)
    assert [each.written for each in members] == [[b"a2", b"b2"], [], [b"a2", b"b2"], [b"a2", b"b2"]]
    assert (metrics.handler_failures, [line["event"] for line in lines]) == (2, ["write failed"] * 2)


# Coming and going -------------------------------------------------------------------------------------------


def test_whoever_enters_hears_nothing_from_before(room: Room, turns: Turns) -> None:
    """Not even from the same turn; those who were there do."""
    there, comes = Listener(), Listener()
    entered(room, there)
    room.publish(Counted(b"a"), 1)
    room.enter(comes)
    room.publish(Counted(b"b"), 1)
    turns.next()
    assert (b"".join(there.written), comes.written) == (b"a2b2", [b"b2"])


def test_whoever_leaves_hears_everything_from_before(room: Room, turns: Turns) -> None:
    """And nothing from afterwards."""
    goes = Listener()
    entered(room, goes)
    room.publish(Counted(b"a"), 1)
    room.leave(goes)
    room.publish(Counted(b"b"), 1)
    turns.next()
    assert goes.written == [b"a2"]


def test_whoever_is_gone_is_written_nothing(room: Room, turns: Turns) -> None:
    """A room that everybody is lost from at once makes no last letter for each."""
    lost, stays = Listener(), Listener()
    entered(room, lost, stays)
    room.publish(Counted(b"a"), 1)
    room.leave(lost, gone=True)
    turns.next()
    assert (lost.written, stays.written) == ([], [b"a2"])


def test_leaving_twice_is_leaving_once(room: Room) -> None:
    """Nothing happens to a member that is not there."""
    member = Listener()
    entered(room, member)
    room.leave(member)
    room.leave(member)
    assert len(room) == 0


def test_whoever_is_written_to_directly_hears_everything_from_before(room: Room, turns: Turns) -> None:
    """It alone: for the others, the messages of the turn stay together."""
    asks, listens = Listener(), Listener()
    entered(room, asks, listens)
    room.publish(Counted(b"a"), 1)
    room.catch_up(asks)
    assert (asks.written, listens.written) == ([b"a2"], [])
    room.publish(Counted(b"b"), 1)
    turns.next()
    assert (asks.written, listens.written) == ([b"a2", b"b2"], [b"a2b2"])


def test_a_stranger_catches_up_with_nothing(room: Room, turns: Turns) -> None:
    """Before it entered, nothing is on its way to it."""
    entered(room, Listener())
    room.publish(Counted(b"a"), 1)
    stranger = Listener()
    room.catch_up(stranger)
    turns.next()
    assert stranger.written == []


# Large rooms ------------------------------------------------------------------------------------------------


def test_a_large_room_is_written_to_in_parts(room: Room) -> None:
    """No more members than the budget allows; the rest has the next turn."""
    members = [Listener() for _ in range(10)]
    entered(room, *members)
    room.publish(Counted(b"a"), 1)
    parts = []
    while room.waiting:
        room.send(4)
        parts.append(sum(len(each.written) for each in members))
    assert parts == [4, 8, 10]


def test_large_messages_cost_more(room: Room) -> None:
    """What takes time is to copy them."""
    members = [Listener() for _ in range(10)]
    entered(room, *members)
    room.publish(Counted(b"x" * 100_000), 100_000)
    room.send(14)
    assert sum(len(each.written) for each in members) == 2


def test_what_is_published_meanwhile_is_the_next_batch(room: Room) -> None:
    """It overtakes nothing, and is joined in the same way."""
    members = [Listener() for _ in range(4)]
    entered(room, *members)
    room.publish(Counted(b"a"), 1)
    room.send(2)
    for name in (b"b", b"c"):
        room.publish(Counted(name), 1)
    while room.waiting:
        room.send(2)
    assert all(each.written == [b"a2", b"b2c2"] for each in members)


def test_a_slow_room_waits_with_bounded_memory(room: Room) -> None:
    """With too much on its way everybody is written to, and nothing is lost."""
    members = [Listener() for _ in range(3)]
    entered(room, *members)
    sent = 0
    while not members[0].written or not members[2].written:
        room.publish(Counted(b"x" * MAX_BATCH_BYTES), MAX_BATCH_BYTES + 1)
        sent += 1
        assert sent <= MAX_WAITING_BYTES // MAX_BATCH_BYTES
    assert all(len(each.written) == sent for each in members)


class Model:
    """What every member must have heard, worked out member by member."""

    def __init__(self) -> None:
        self.due: dict[Listener, bytes] = {}
        self.here: set[Listener] = set()

    def publish(self, name: bytes, audience: Hears, sender: Listener | None) -> None:
        for member in self.here:
            if member.hears & audience and member is not sender:
                self.due[member] += name + member.serializer.vsn[:1].encode()


@given(st.data())
def test_every_member_hears_its_messages_once_and_in_order(data: st.DataObject) -> None:
    """Whoever comes, goes, sends and is written to directly, in rooms of every size and with every budget."""
    hub = Hub(Turns(), Metrics())
    room = hub.room(TOPIC, private=False)
    kinds = itertools.cycle([(V1, Hears(1)), (V2, Hears(1)), (V2, Hears(3)), (V2, Hears(1))])
    members = [Listener(*next(kinds)) for _ in range(data.draw(st.integers(1, 8)))]
    model = Model()
    model.due = dict.fromkeys(members, b"")
    numbers = itertools.count()
    for _ in range(data.draw(st.integers(1, 30))):
        member = data.draw(st.sampled_from(members))
        match data.draw(st.sampled_from(["enter", "leave", "publish", "publish", "reply", "send"])):
            case "enter" if member not in model.here:
                room.enter(member)
                model.here.add(member)
            case "leave":
                room.leave(member)
                model.here.discard(member)
                assert b"".join(member.written) == model.due[member]
            case "publish":
                sender = member if data.draw(st.booleans()) else None
                audience = data.draw(st.sampled_from([Hears.BROADCAST, Hears.PRESENCE]))
                name = b"%d." % next(numbers)
                room.publish(
                    Counted(name, audience, sender), data.draw(st.sampled_from([1, MAX_BATCH_BYTES]))
                )
                model.publish(name, audience, sender)
            case "reply" if member in model.here:
                room.catch_up(member)
                assert b"".join(member.written) == model.due[member]
            case "send":
                room.send(data.draw(st.integers(1, 6)))
    while room.waiting:
        room.send(3)
    assert {each: b"".join(each.written) for each in members} == model.due
