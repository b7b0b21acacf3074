"""A server in memory, and a blocking client of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from backbeat.sync import RealtimeClient
from backbeat.testing import MemoryServer

MakeClient: TypeAlias = Callable[..., RealtimeClient]

SOON = 10.0


@pytest.fixture
def server() -> MemoryServer:
    """A server in memory; it belongs to the I/O thread of the client."""
    return MemoryServer()


@pytest.fixture
def make_client(server: MemoryServer) -> Iterator[MakeClient]:
    """Make clients of the server; they are closed in the end, and leave no thread."""
    clients: list[RealtimeClient] = []

    def make(**options: Any) -> RealtimeClient:
        client = RealtimeClient("ws://memory", "key", transport=server, **options)
        clients.append(client)
        return client

    yield make
    while clients:
        clients.pop().close()
    assert client_threads() == []


@pytest.fixture
def client(make_client: MakeClient) -> RealtimeClient:
    """A client of the server."""
    return make_client()


def client_threads() -> list[str]:
    """The names of the threads that clients have started."""
    return sorted(each.name for each in threading.enumerate() if each.name.startswith("backbeat-"))
