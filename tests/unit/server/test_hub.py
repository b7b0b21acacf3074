"""The rooms of a server, and whose turn it is."""

from __future__ import annotations

from structlog.testing import capture_logs
from tests.unit.server.listeners import TOPIC, Counted, Listener, Turns

from backbeat.server.delivery import Delivery, Hears
from backbeat.server.hub import ROOM_BUDGET, TURN_BUDGET, Hub
from backbeat.server.metrics import Metrics
from backbeat.server.room import Room


class Large(Delivery):
    """The same to everybody, in whichever room."""

    def __init__(self) -> None:
        super().__init__(Hears.BROADCAST)

    def _encode(self, *_: object) -> bytes:
        return b"large"


class Broken(Large):
    """Cannot be encoded."""

    def _encode(self, *_: object) -> bytes:
        raise ValueError("a mistake of ours")


def test_a_room_is_found_under_its_topic_and_namespace(hub: Hub) -> None:
    """Public and private rooms of one name are two."""
    public, private = hub.room(TOPIC, private=False), hub.room(TOPIC, private=True)
    assert public is not private
    assert hub.find(TOPIC, private=True) is private


def test_an_empty_room_is_forgotten(hub: Hub, room: Room) -> None:
    """Rooms exist while somebody is in them."""
    hub.release(room, private=False)
    assert (len(hub), hub.find(TOPIC, private=False)) == (0, None)


def test_a_room_with_a_member_is_kept(hub: Hub, room: Room) -> None:
    """Also one that hears nothing."""
    room.enter(Listener(hears=Hears.NOTHING))
    hub.release(room, private=False)
    assert hub.find(TOPIC, private=False) is room


def test_an_old_room_does_not_take_the_new_one_with_it(hub: Hub, room: Room) -> None:
    """A late release of a forgotten room leaves its successor alone."""
    hub.release(room, private=False)
    successor = hub.room(TOPIC, private=False)
    hub.release(room, private=False)
    assert hub.find(TOPIC, private=False) is successor


# Turns ------------------------------------------------------------------------------------------------------


def test_a_flood_in_one_room_delays_another_by_less_than_a_turn(hub: Hub, turns: Turns) -> None:
    """Rooms take turns, however large one of them is."""
    large, small = hub.room("realtime:large", private=False), hub.room(TOPIC, private=False)
    members = [Listener() for _ in range(5 * TURN_BUDGET)]
    for member in members:
        large.enter(member)
    listener = Listener()
    small.enter(listener)
    large.publish(Large(), 1)
    small.publish(Counted(b"a"), 1)
    turns.next()
    assert listener.written == [b"a2"]
    assert sum(len(each.written) for each in members) <= TURN_BUDGET


def test_a_turn_ends_when_its_budget_is_spent(hub: Hub, turns: Turns) -> None:
    """Then the event loop reads, and the next turn goes on where this one ended."""
    rooms = [hub.room(f"realtime:{number}", private=False) for number in range(6)]
    listeners = [[Listener() for _ in range(ROOM_BUDGET)] for _ in rooms]
    for room, members in zip(rooms, listeners, strict=True):
        for member in members:
            room.enter(member)
        room.publish(Large(), 1)
    written = []
    while turns.asked:
        turns.next()
        written.append(sum(len(each.written) for members in listeners for each in members))
    assert written == [TURN_BUDGET, 6 * ROOM_BUDGET]


def test_a_room_that_fails_takes_no_other_with_it(hub: Hub, turns: Turns, metrics: Metrics) -> None:
    """It loses what it was about to send; that is counted and reported, and its next message is sent."""
    broken, sound = hub.room("realtime:broken", private=False), hub.room(TOPIC, private=False)
    listeners = Listener(), Listener()
    broken.enter(listeners[0])
    sound.enter(listeners[1])
    with capture_logs() as lines:
        broken.publish(Broken(), 1)
        sound.publish(Counted(b"a"), 1)
        turns.next()
    assert [line["event"] for line in lines] == ["fan-out failed"]
    assert metrics.handler_failures == 1
    broken.publish(Large(), 1)
    turns.next()
    assert ([each.written for each in listeners], turns.asked) == ([[b"large"], [b"a2"]], [])
