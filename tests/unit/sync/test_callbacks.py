"""Where the callbacks of a blocking client run, and what they may do."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.unit.sync.conftest import SOON, MakeClient

from backbeat.client.events import BroadcastEvent, HandlerFailed
from backbeat.errors import ConfigurationError, TokenRefused
from backbeat.sync import Channel, RealtimeClient
from backbeat.testing import MemoryServer


class Recorder:
    """Remembers what its method was called with, and where."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()

    def __call__(self, event: BroadcastEvent) -> None:
        """Remember one call."""
        self.calls.put((event.payload["n"], threading.current_thread().name))

    def get(self) -> tuple[int, str]:
        """The next call, once it is made."""
        return self.calls.get(timeout=SOON)


@pytest.fixture
def recorder() -> Recorder:
    """A callback."""
    return Recorder()


def subscribed(client: RealtimeClient, callback: Callable[[Any], object]) -> Channel:
    """A channel whose broadcasts a callback receives."""
    channel = client.channel("room", receive_own=True, ack=True)
    channel.on_broadcast("n", callback)
    return channel.subscribe()


def tell(client: RealtimeClient, server: MemoryServer, *numbers: int) -> None:
    """Broadcast numbers."""
    for n in numbers:
        client.io.run(server.broadcast, "room", "n", {"n": n})


def test_they_run_in_order_on_one_thread(
    client: RealtimeClient, server: MemoryServer, recorder: Recorder
) -> None:
    """Which is the client's, and not the one of its connection."""
    subscribed(client, recorder)
    tell(client, server, *range(50))
    calls = [recorder.get() for _ in range(50)]
    assert [n for n, _ in calls] == list(range(50))
    (thread,) = {thread for _, thread in calls}
    assert thread.endswith(" callbacks")


def test_one_that_blocks_holds_up_no_heartbeat(client: RealtimeClient, server: MemoryServer) -> None:
    """The connection goes on answering while a callback waits for something."""
    running, release = threading.Event(), threading.Event()

    def wait(event: object) -> None:
        running.set()
        release.wait(SOON)

    subscribed(client, wait)
    tell(client, server, 1)
    assert running.wait(SOON)
    assert client.ping() >= 0
    release.set()


def test_one_may_call_anything(client: RealtimeClient, server: MemoryServer) -> None:
    """Sending, joining, listening, waiting and leaving in a callback wait for nothing that waits for it."""
    results: queue.SimpleQueue[object] = queue.SimpleQueue()

    def work(event: BroadcastEvent) -> None:
        channel.settled()
        results.put(channel.send("other", {}).acknowledged)
        with client.channel("more") as more:
            results.put(more.state)
        client.set_auth("header.claims.signature")
        channel.off(work)
        results.put(channel.unsubscribe())

    channel = subscribed(client, work)
    tell(client, server, 1)
    assert [results.get(timeout=SOON) for _ in range(3)] == [True, "joined", True]


def test_one_may_close_the_client(client: RealtimeClient, server: MemoryServer) -> None:
    """The thread of callbacks does not wait for itself."""
    subscribed(client, lambda _: client.close())
    tell(client, server, 1)
    client.run_forever()
    assert client.state == "closed"


def test_one_that_fails_is_reported_and_the_next_is_called(
    client: RealtimeClient, server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises, even the end of the program."""
    failures = client.events(HandlerFailed, timeout=SOON)

    def fail(event: BroadcastEvent) -> None:
        if event.payload["n"] == 1:
            raise ValueError("one")
        sys.exit("two")

    subscribed(client, fail)
    tell(client, server, 1, 2)
    assert [type(next(failures).error).__name__ for _ in range(2)] == ["ValueError", "ClientError"]
    assert "fail of channel 'room' raised" in caplog.text


def test_a_bound_method_can_be_taken_off(client: RealtimeClient, server: MemoryServer) -> None:
    """Although each mention of it is another object."""
    calls: list[object] = []
    channel = subscribed(client, calls.append)
    channel.off(calls.append)
    tell(client, server, 1)
    channel.settled()
    assert calls == []


def test_a_coroutine_function_is_refused(client: RealtimeClient) -> None:
    """Nobody would await it."""

    async def handler(event: object) -> None: ...

    with pytest.raises(ConfigurationError, match="plain function"):
        client.channel("room").on_broadcast("n", handler)


def test_a_decorator_registers(client: RealtimeClient, server: MemoryServer, recorder: Recorder) -> None:
    """And gives the function back."""
    channel = client.channel("room")

    @channel.on_broadcast("n")
    def handler(event: BroadcastEvent) -> None:
        recorder(event)

    channel.subscribe()
    tell(client, server, 7)
    assert recorder.get()[0] == 7


def test_poll_runs_what_waits_where_it_is_called(
    make_client: MakeClient, server: MemoryServer, recorder: Recorder
) -> None:
    """All of it, in order, and nothing before."""
    client = make_client(dispatch="inline")
    subscribed(client, recorder)
    assert client.poll() == 0
    tell(client, server, 1, 2, 3)
    assert client.poll(SOON) == 3
    assert [recorder.get() for _ in range(3)] == [(n, threading.current_thread().name) for n in (1, 2, 3)]


def test_poll_passes_ctrl_c_on(make_client: MakeClient, server: MemoryServer) -> None:
    """The callback it interrupts is over; the next one is called by the next `poll`."""
    client = make_client(dispatch="inline")
    called: list[int] = []

    def interrupted(event: BroadcastEvent) -> None:
        called.append(event.payload["n"])
        if event.payload["n"] == 1:
            raise KeyboardInterrupt

    subscribed(client, interrupted)
    tell(client, server, 1, 2)
    with pytest.raises(KeyboardInterrupt):
        client.poll(SOON)
    assert client.poll(SOON) == 1
    assert called == [1, 2]


def test_poll_is_refused_where_a_thread_calls(client: RealtimeClient) -> None:
    """Whoever calls it there would wait for nothing."""
    with pytest.raises(ConfigurationError, match="dispatch"):
        client.poll()


def test_run_forever_runs_callbacks_until_the_client_is_closed(
    make_client: MakeClient, server: MemoryServer
) -> None:
    """In the thread that calls it."""
    client = make_client(dispatch="inline")
    threads: list[str] = []

    def last(event: BroadcastEvent) -> None:
        threads.append(threading.current_thread().name)
        if event.payload["n"] == 2:
            client.close()

    subscribed(client, last)
    tell(client, server, 1, 2)
    client.run_forever()
    assert threads == [threading.current_thread().name] * 2


@pytest.mark.parametrize("dispatch", ["thread", "inline"])
def test_run_forever_raises_when_the_connection_failed_for_good(
    make_client: MakeClient, server: MemoryServer, dispatch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for events that cannot come."""
    monkeypatch.setattr("backbeat.sync.client.LOOK_AFTER", 0.01)
    client = make_client(dispatch=dispatch, backoff=(0.01,))
    client.connect()
    server.refuse_upgrades(401, "Invalid API key")
    client.io.run(server.cut)
    with pytest.raises(TokenRefused, match="Invalid API key"):
        client.run_forever()


def test_an_executor_runs_them_in_order(
    make_client: MakeClient, server: MemoryServer, recorder: Recorder
) -> None:
    """Even if it has several threads."""
    with ThreadPoolExecutor(4, thread_name_prefix="mine") as executor:
        client = make_client(dispatch=executor)
        subscribed(client, recorder)
        tell(client, server, *range(20))
        calls = [recorder.get() for _ in range(20)]
        client.close()
    assert [n for n, _ in calls] == list(range(20))
    assert all(thread.startswith("mine") for _, thread in calls)


def test_an_executor_that_ended_is_reported(
    make_client: MakeClient, server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that cannot be called is a failure of its own, and not of the connection."""
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    client = make_client(dispatch=executor)
    failures = client.events(HandlerFailed, timeout=SOON)
    subscribed(client, print)
    tell(client, server, 1)
    assert "shutdown" in str(next(failures).error)
    assert client.ping() >= 0


def test_there_is_no_other_way_to_dispatch(make_client: MakeClient) -> None:
    """A word that means nothing is refused."""
    with pytest.raises(ConfigurationError, match="dispatch"):
        make_client(dispatch="loop")
