"""A running server, seen from inside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from backbeat.server.app import create_app, realtime_routes, run_realtime
from backbeat.server.feed import Feed
from backbeat.server.http import HttpServer
from backbeat.server.limits import LimitSettings
from backbeat.server.listener import listen
from backbeat.server.realtime import Realtime
from backbeat.server.settings import Settings

__all__ = ["PATIENCE", "SECRET", "Server", "running", "settings", "until_empty"]

NO_LIMITS: Final = LimitSettings(
    max_concurrent_users=0,
    max_joins_per_second=0,
    max_events_per_second=0,
    max_presence_events_per_second=0,
    max_client_presence_events_per_window=0,
)

PATIENCE: Final = 30.0
"""Seconds in which everything that was sent has to arrive once nobody sends."""

LOOK: Final = 0.02
"""Seconds between looks at whether it is quiet."""


SECRET: Final = "a secret of at least thirty-two bytes"
"""What tokens are signed with."""

NOWHERE: Final = "postgresql://nobody@127.0.0.1:1/none"
"""Public channels need no database."""


def settings(**changed: Any) -> Settings:
    """The settings of a server without limits per second, and without a database unless one is given."""
    given: dict[str, Any] = {"database_url": NOWHERE, "jwt_secret": SECRET, "limits": NO_LIMITS} | changed
    return Settings(**given)


class Server:
    """A running server, seen from inside."""

    def __init__(self, realtime: Realtime, feed: Feed, url: str) -> None:
        self.realtime = realtime
        self.feed = feed
        self.url = url
        self._tasks = 0
        self._owned = 0

    def socket_url(self, vsn: str) -> str:
        """Where its socket is, with the anon key."""
        key = self.realtime.settings.keys.anon
        return f"{self.url.replace('http', 'ws', 1)}/socket/websocket?vsn={vsn}&apikey={key}"

    @property
    def waiting_bytes(self) -> int:
        """How much waits for clients to read it."""
        return sum(socket.waiting_bytes for socket in self.realtime._sockets)

    def settled(self) -> None:
        """Take the tasks that run now for those that always do."""
        self._tasks, self._owned = len(asyncio.all_tasks()), len(self.realtime._tasks)

    def left_over(self) -> list[str]:
        """What is still there, in words; empty when nobody is."""
        realtime = self.realtime
        counts = {
            "connections": realtime.metrics.connections,
            "sockets": len(realtime._sockets),
            "channels": realtime.metrics.channels,
            "rooms": len(realtime.hub),
            "users": realtime.limits.users,
            "subscribers": len(self.feed._changes.subscribers()),
            "bytes waiting": self.waiting_bytes,
            "tasks": len(asyncio.all_tasks()) - self._tasks,
            "tasks of the server": len(realtime._tasks) - self._owned,
        }
        return [f"{count} {name} left" for name, count in counts.items() if count]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Server]:
    """Run a server until the block ends; its database may come later, or never."""
    listeners = listen("127.0.0.1", 0, flag="--port")
    stop = asyncio.Event()
    async with run_realtime(settings) as (realtime, feed):
        http = HttpServer(create_app(realtime_routes(realtime, feed)), listeners, realtime=realtime)
        serving = asyncio.create_task(http.run_until(stop))
        try:
            yield Server(realtime, feed, f"http://127.0.0.1:{listeners[0].getsockname()[1]}")
        finally:
            stop.set()
            await serving


async def until_empty(problems: Callable[[], list[str]]) -> list[str]:
    """Wait until there is none; return those that stay."""
    ends = time.monotonic() + PATIENCE
    while (left := problems()) and time.monotonic() < ends:
        await asyncio.sleep(LOOK)
    return left
