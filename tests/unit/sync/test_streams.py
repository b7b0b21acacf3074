"""Events as a blocking iterator."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.unit.sync.conftest import SOON

from backbeat.client.events import BroadcastEvent
from backbeat.errors import ClientError
from backbeat.sync import Broadcast, Channel, EventStream, RealtimeClient
from backbeat.testing import MemoryServer


@pytest.fixture
def channel(client: RealtimeClient) -> Channel:
    """A channel that is subscribed."""
    return client.channel("room").subscribe()


def tell(channel: Channel, server: MemoryServer, *numbers: int) -> None:
    """Broadcast numbers."""
    for n in numbers:
        channel.client.io.run(server.broadcast, "room", "n", {"n": n})
    channel.client.ping()  # whatever was sent before its answer has arrived


def test_it_waits_for_each_event_as_long_as_it_was_told(channel: Channel, server: MemoryServer) -> None:
    """Then `TimeoutError` is raised, and the stream goes on."""
    stream = channel.broadcasts("n", timeout=0.01)
    with pytest.raises(TimeoutError):
        next(stream)
    tell(channel, server, 1)
    assert next(stream).payload == {"n": 1}
    with pytest.raises(TimeoutError):
        stream.next(0.01)


def test_it_ends_when_the_channel_is_left(channel: Channel, server: MemoryServer) -> None:
    """After what it holds."""
    stream = channel.broadcasts("n")
    tell(channel, server, 1, 2)
    channel.unsubscribe()
    assert [event.payload["n"] for event in stream] == [1, 2]


def test_what_it_holds_outlives_the_client(channel: Channel, server: MemoryServer) -> None:
    """Closing the client loses no event that has arrived."""
    stream = channel.broadcasts("n")
    tell(channel, server, 1, 2)
    channel.client.close()
    assert [event.payload["n"] for event in stream] == [1, 2]


@pytest.mark.parametrize(("overflow", "kept"), [("drop_oldest", [2, 3]), ("drop_newest", [1, 2])])
def test_it_drops_what_it_was_told_to_drop(
    channel: Channel, server: MemoryServer, overflow: str, kept: list[int]
) -> None:
    """And counts that."""
    stream = channel.events(Broadcast("n"), maxsize=2, overflow=overflow)
    tell(channel, server, 1, 2, 3)
    assert (len(stream), stream.dropped) == (2, 1)
    channel.unsubscribe()
    assert [event.payload["n"] for event in stream] == kept


def test_it_raises_if_nothing_may_be_missing(channel: Channel, server: MemoryServer) -> None:
    """After what it holds."""
    stream = channel.broadcasts("n", maxsize=1)
    strict = channel.events(Broadcast("n"), maxsize=1, overflow="raise")
    tell(channel, server, 1, 2)
    assert next(strict).payload == {"n": 1}
    with pytest.raises(ClientError, match="queue"):
        next(strict)
    assert next(stream).payload == {"n": 2}


def test_closing_it_ends_its_queue(channel: Channel, server: MemoryServer) -> None:
    """Whoever iterates comes to the end, and nothing is kept any more."""
    stream = channel.broadcasts("n")
    with ThreadPoolExecutor(1) as pool, stream:
        tell(channel, server, 1)
        first = next(stream)
        rest = pool.submit(list, stream)
        stream.close()
        assert (first.payload["n"], rest.result(SOON)) == (1, [])
    tell(channel, server, 2)
    assert channel.waiting == 0


def test_a_loop_that_is_left_ends_the_queue_too(channel: Channel, server: MemoryServer) -> None:
    """Nobody holds the stream after `break`, as with a generator."""
    stream = channel.broadcasts("n")
    tell(channel, server, 1)
    for _ in stream:
        break
    del stream
    gc.collect()
    tell(channel, server, 2)
    assert channel.waiting == 0


def test_it_keeps_its_client(server: MemoryServer) -> None:
    """A program may hold nothing but the stream, and receives what comes."""

    def listen() -> EventStream[BroadcastEvent]:
        client = RealtimeClient("ws://memory", "key", transport=server)
        return client.channel("room", receive_own=True).subscribe().broadcasts("n", timeout=SOON)

    stream = listen()
    gc.collect()
    client = stream._owner
    assert isinstance(client, RealtimeClient)
    client.channel("room", receive_own=True).send("n", {"n": 1})
    assert next(stream).payload == {"n": 1}
    client.close()


def test_each_event_goes_to_one_of_several_threads(channel: Channel, server: MemoryServer) -> None:
    """None twice, and none nowhere."""
    stream = channel.broadcasts("n")
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(list, stream) for _ in range(4)]
        tell(channel, server, *range(100))
        while len(stream):
            channel.client.ping()
        channel.unsubscribe()
        numbers = sorted(event.payload["n"] for each in results for event in each.result(SOON))
    assert numbers == list(range(100))


def test_events_of_the_client_are_iterated_too(client: RealtimeClient) -> None:
    """Its connection, its tokens, and those of all channels."""
    with client.events(timeout=SOON) as events:
        client.connect()
        states = [next(events).state for _ in range(2)]
    assert states == ["connecting", "open"]
