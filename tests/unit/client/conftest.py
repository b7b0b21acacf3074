"""A server in memory, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from backbeat.client import RealtimeClient
from backbeat.testing import MemoryServer

MakeClient = Callable[..., RealtimeClient]

KEY = "the anon key of the project"


@pytest.fixture
def server() -> MemoryServer:
    """A server in memory."""
    return MemoryServer()


@pytest.fixture
async def make_client(server: MemoryServer) -> AsyncIterator[MakeClient]:
    """Make clients of the server in memory; they are closed in the end."""
    clients: list[RealtimeClient] = []

    def make(**options: Any) -> RealtimeClient:
        client = RealtimeClient("ws://memory", KEY, transport=server, **{"backoff": (0.001,)} | options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()
