"""The thread that the loop of a blocking client runs on."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from tests.unit.sync.conftest import SOON, MakeClient, client_threads

from backbeat.errors import BackbeatError, ClientClosed, SyncCallInAsyncContext
from backbeat.sync import RealtimeClient

if TYPE_CHECKING:
    from backbeat.testing import MemoryServer


def test_it_starts_with_the_first_call_that_needs_it(client: RealtimeClient) -> None:
    """Making a client and a channel, listening and looking start nothing."""
    channel = client.channel("room")
    channel.on_broadcast("hi", print)
    channel.events()
    client.explain()
    assert (client_threads(), client.state, channel.state) == ([], "idle", "closed")
    client.connect()
    (name,) = client_threads()
    assert name.endswith(" I/O")


def test_it_does_not_hold_up_the_interpreter(client: RealtimeClient) -> None:
    """It is a daemon."""
    client.connect()
    assert all(each.daemon for each in threading.enumerate() if each.name in client_threads())


def test_close_ends_it_and_may_be_repeated(client: RealtimeClient) -> None:
    """Afterwards whoever wants something is told."""
    channel = client.channel("room").subscribe()
    client.close()
    client.close()
    assert (client_threads(), client.state, channel.state) == ([], "closed", "closed")
    with pytest.raises(ClientClosed):
        client.connect()
    with pytest.raises(ClientClosed):
        client.channel("other")


def test_a_client_that_did_nothing_can_be_closed(client: RealtimeClient) -> None:
    """And is closed then."""
    client.close()
    assert client.state == "closed"


async def test_a_call_that_would_stop_a_running_loop_is_refused(client: RealtimeClient) -> None:
    """The error is one of ours, and says what to use instead; making and listening are fine."""
    channel = client.channel("room")
    channel.on_broadcast("hi", print)
    with pytest.raises(
        SyncCallInAsyncContext, match=r"^Channel\.subscribe\(\) of the blocking client"
    ) as refused:
        channel.subscribe()
    assert isinstance(refused.value, BackbeatError)
    assert "asyncio.to_thread" in refused.value.hint
    assert client_threads() == []


async def test_a_running_loop_may_pass_the_call_to_a_thread(client: RealtimeClient) -> None:
    """As the error says."""
    await asyncio.to_thread(client.connect)
    assert client.is_connected
    with pytest.raises(SyncCallInAsyncContext, match=r"^EventStream\.__next__\(\) of the"):
        next(client.events())
    with pytest.raises(SyncCallInAsyncContext, match=r"^RealtimeClient\.close\(\) of the"):
        client.close()
    await asyncio.to_thread(client.close)


async def test_a_notebook_may_block_its_own_loop(
    client: RealtimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells run inside a loop that stands still during each of them anyway."""
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    client.connect()
    assert client.is_connected
    client.close()


def test_a_forgotten_client_is_ended_with_a_warning(server: MemoryServer) -> None:
    """One that nobody holds and nobody listens to stops, and says that it was not closed."""
    client = RealtimeClient("ws://memory", "key", transport=server)
    client.connect()
    (thread,) = [each for each in threading.enumerate() if each.name in client_threads()]
    clients = [client]
    del client
    with pytest.warns(ResourceWarning, match="unclosed RealtimeClient of ws://memory"):
        clients.clear()
    thread.join(SOON)
    assert server.connections == []


def test_a_client_that_has_listeners_is_not_forgotten(server: MemoryServer) -> None:
    """Its callbacks are called although the program holds nothing of it."""
    called = threading.Event()

    def listen() -> weakref.ref[RealtimeClient]:
        client = RealtimeClient("ws://memory", "key", transport=server)
        client.channel("room").subscribe().on_broadcast("hi", lambda _: called.set())
        return weakref.ref(client)

    reference = listen()
    gc.collect()
    client = reference()
    assert client is not None
    client.io.run(server.broadcast, "room", "hi", {})
    assert called.wait(SOON)
    client.close()


def test_a_loop_that_breaks_down_leaves_nobody_waiting(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """An async token function that ends the program ends the loop instead; who waits is told."""

    async def token() -> str:
        sys.exit("no")

    client = make_client(token=token)
    with pytest.raises(ClientClosed):
        client.channel("room").subscribe()
    assert "broke down" in caplog.text
