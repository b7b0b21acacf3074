"""What the load client writes and reads."""

from __future__ import annotations

import msgspec
import pytest

from backbeat.load.wire import PAYLOAD_BYTES, broadcast, heartbeat, join, read
from backbeat.protocol.codec import V2, encode_user_broadcast
from backbeat.protocol.messages import Event, Message
from backbeat.websocket.frames import FrameParser, Ping, Text, binary_frame, ping_frame, text_frame

TOPIC = "realtime:bench"
RUN, EARLIER = b"0badcafe", b"deadbeef"


def sent(frame: bytes) -> Message:
    """What a server reads."""
    (event,) = FrameParser(max_message=10_000).feed(frame)
    assert isinstance(event, Text)
    message = V2.decode(event.payload)
    assert isinstance(message, Message)
    return message


def passed_on(frame: bytes) -> bytes:
    """The frame that members get of a broadcast."""
    message = sent(frame)
    return text_frame(V2.encode(None, None, message.topic, message.event, message.payload))


def test_a_broadcast_carries_200_bytes_of_json() -> None:
    """However many digits its number has."""
    for number in (0, 10**10 - 1):
        message = sent(broadcast(TOPIC, RUN, number, 10**18))
        assert (message.topic, message.event) == (TOPIC, Event.BROADCAST)
        payload = msgspec.json.decode(message.payload)["payload"]
        assert len(msgspec.json.encode(payload)) == PAYLOAD_BYTES


def test_a_join_says_whether_the_channel_is_private_and_who_asks() -> None:
    """Its members hear their own broadcasts."""
    public = msgspec.json.decode(sent(join(TOPIC)).payload)
    private = msgspec.json.decode(sent(join(TOPIC, private=True, token="a.b.c")).payload)
    assert public == {"config": {"private": False, "broadcast": {"self": True}}}
    assert private["config"]["private"]
    assert private["access_token"] == "a.b.c"


def test_a_heartbeat_has_its_ref() -> None:
    """It goes to the connection itself."""
    message = sent(heartbeat("7"))
    assert (message.topic, message.event, message.ref) == ("phoenix", Event.HEARTBEAT, "7")


def digest_of(*frames: bytes) -> tuple[list[int], list[int], bool]:
    """The numbers in what a client reads, when they were due, and whether they follow each other."""
    digest = read(FrameParser(max_message=10_000, masked=False).feed(b"".join(frames)), RUN)
    assert digest.others == []
    return digest.numbers, digest.dues, digest.solid


def test_broadcasts_are_counted_with_their_numbers_and_times() -> None:
    """Several in a piece."""
    frames = [passed_on(broadcast(TOPIC, RUN, number, 5000 + number)) for number in (3, 4, 5)]
    assert digest_of(*frames) == ([3, 4, 5], [5003, 5004, 5005], True)


def test_a_broadcast_may_come_in_binary() -> None:
    """As some servers pass it on."""
    payload = msgspec.json.decode(sent(broadcast(TOPIC, RUN, 9, 1)).payload, type=dict[str, msgspec.Raw])
    frame = encode_user_broadcast(TOPIC, "beat", bytes(payload["payload"]), is_json=True)
    assert digest_of(binary_frame(frame)) == ([9], [1], True)


def test_broadcasts_of_another_run_do_not_count() -> None:
    """Late ones, or those of somebody else."""
    assert digest_of(passed_on(broadcast(TOPIC, EARLIER, 3, 1))) == ([], [], True)


@pytest.mark.parametrize("numbers", [[1, 3], [1, 1], [2, 1]])
def test_what_is_missing_repeated_or_out_of_order_is_seen(numbers: list[int]) -> None:
    """The digest is not solid then."""
    frames = [passed_on(broadcast(TOPIC, RUN, number, 1)) for number in numbers]
    assert digest_of(*frames)[::2] == (numbers, False)


def test_replies_and_pings_are_handed_on() -> None:
    """They are no broadcasts."""
    reply = V2.encode("1", "1", TOPIC, Event.REPLY, b'{"status":"ok"}')
    events = FrameParser(max_message=1000, masked=False).feed(text_frame(reply) + ping_frame(b"x"))
    said, ping = read(events, RUN).others
    assert isinstance(said, Message)
    assert (said.event, ping) == (Event.REPLY, Ping(b"x"))
