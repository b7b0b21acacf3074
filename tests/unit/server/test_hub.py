"""Rooms: who hears what, in which order, and how often it is encoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from backbeat.errors import ProtocolError
from backbeat.protocol.codec import V1, V2
from backbeat.server.hub import MAX_BATCH_BYTES, Delivery, Hears, Hub, TextDelivery, UserBroadcast
from backbeat.server.metrics import Metrics
from backbeat.websocket.frames import binary_frame, text_frame

if TYPE_CHECKING:
    from backbeat.protocol.codec import Serializer
    from backbeat.server.hub import Room

TOPIC = "realtime:room"


class Listener:
    """A member that remembers what was written to it, write by write."""

    def __init__(self, serializer: Serializer = V2, hears: Hears = Hears.BROADCAST) -> None:
        self.serializer = serializer
        self.hears = hears
        self.written: list[bytes] = []
        self.write: Callable[[bytes], None] = self.written.append


class Counted(Delivery):
    """A delivery that counts how often it is encoded."""

    def __init__(
        self, name: bytes, audience: Hears = Hears.BROADCAST, sender: Listener | None = None
    ) -> None:
        super().__init__(audience, sender)
        self.name = name
        self.encoded: list[str] = []

    def _encode(self, serializer: Serializer, topic: str) -> bytes:
        assert topic == TOPIC
        self.encoded.append(serializer.vsn)
        return self.name + serializer.vsn[:1].encode()


class Turns:
    """Stands in for the event loop: runs what was asked for when told to."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], None]] = []

    def __call__(self, call: Callable[[], None]) -> None:
        self.asked.append(call)

    def next(self) -> None:
        """Begin the next turn."""
        asked, self.asked = self.asked, []
        for call in asked:
            call()


@pytest.fixture
def turns() -> Turns:
    """The turns of an event loop."""
    return Turns()


@pytest.fixture
def metrics() -> Metrics:
    """The counters."""
    return Metrics()


@pytest.fixture
def hub(turns: Turns, metrics: Metrics) -> Hub:
    """A hub without rooms."""
    return Hub(turns, metrics)


@pytest.fixture
def room(hub: Hub) -> Room:
    """A room without members."""
    return hub.room(TOPIC, private=False)


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


def test_a_batch_is_flushed_when_it_is_large(room: Room, turns: Turns) -> None:
    """Memory stays bounded within one turn; the order stays the same."""
    member = Listener()
    entered(room, member)
    room.publish(Counted(b"a"), MAX_BATCH_BYTES)
    assert member.written == []
    room.publish(Counted(b"b"), 1)
    assert member.written == [b"a2b2"]
    room.publish(Counted(b"c"), 1)
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


def test_leaving_twice_is_leaving_once(room: Room) -> None:
    """Nothing happens to a member that is not there."""
    member = Listener()
    entered(room, member)
    room.leave(member)
    room.leave(member)
    assert len(room) == 0


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
    entered(room, Listener(hears=Hears.NOTHING))
    hub.release(room, private=False)
    assert hub.find(TOPIC, private=False) is room


def test_an_old_room_does_not_take_the_new_one_with_it(hub: Hub, room: Room) -> None:
    """A late release of a forgotten room leaves its successor alone."""
    hub.release(room, private=False)
    successor = hub.room(TOPIC, private=False)
    hub.release(room, private=False)
    assert hub.find(TOPIC, private=False) is successor


# On the wire ------------------------------------------------------------------------------------------------


def test_an_event_is_text_to_both_versions() -> None:
    """Neither join ref nor ref: it belongs to no join."""
    delivery = TextDelivery("broadcast", b'{"n":1}')
    assert delivery.frame(V1, "t") == text_frame(
        b'{"topic":"t","event":"broadcast","payload":{"n":1},"ref":null}'
    )
    assert delivery.frame(V2, "t") == text_frame(b'[null,null,"t","broadcast",{"n":1}]')


def test_a_user_broadcast_is_binary_to_vsn_2_and_text_to_vsn_1() -> None:
    """Section 2.4."""
    delivery = UserBroadcast('a"b', b'{"n":1}', is_json=True, metadata=b'{"id":"7"}')
    assert delivery.frame(V2, "t") == binary_frame(b'\x04\x01\x03\x0a\x01ta"b{"id":"7"}{"n":1}')
    payload = b'{"event":"a\\"b","payload":{"n":1},"type":"broadcast","meta":{"id":"7"}}'
    assert delivery.frame(V1, "t") == text_frame(
        b'{"topic":"t","event":"broadcast","payload":' + payload + b',"ref":null}'
    )


def test_opaque_bytes_have_no_frame_for_vsn_1() -> None:
    """There is no way to write them."""
    assert UserBroadcast("e", b"\x00", is_json=False).frame(V1, "t") == b""


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


def test_a_topic_too_long_for_a_header_is_written_as_text() -> None:
    """Whoever joined it hears the broadcast all the same."""
    frame = UserBroadcast("e", b"1", is_json=True).frame(V2, "t" * 256)
    assert b'"broadcast",{"event":"e","payload":1,"type":"broadcast"}]' in frame


@pytest.mark.parametrize("too_long", [{"user_event": "ü" * 128}, {"metadata": b'{"x":"%b"}' % (b"y" * 250)}])
def test_what_fits_no_header_is_refused_at_its_sender(too_long: dict[str, object]) -> None:
    """The error comes while it is made, not while others are being served."""
    arguments: dict[str, object] = {"user_event": "e", "payload": b"1", "is_json": True} | too_long
    with pytest.raises(ProtocolError):
        UserBroadcast(**arguments)  # type: ignore[arg-type]
