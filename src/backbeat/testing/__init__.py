"""A realtime server in memory, for tests of programs that use the client.

::

    server = MemoryServer()
    async with RealtimeClient("ws://memory", "key", transport=server) as client:
        async with client.channel("room") as channel:
            server.broadcast("room", "hello", {"n": 1})

It speaks the real protocol, text and binary, and answers like a server that has no secrets: tokens are taken
as they are, every row is everybody's. And it fails on request: it refuses, stays silent, cuts connections,
and says things that are not true.
"""

from backbeat.testing.connection import MemoryChannel, MemoryConnection
from backbeat.testing.server import MemoryServer, Received

__all__ = ["MemoryChannel", "MemoryConnection", "MemoryServer", "Received"]
