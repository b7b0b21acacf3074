"""A connection that has sent nothing yet: its first bytes decide what it becomes.

Nearly all of them are the whole head of an upgrade, for that is how clients send it, and become a socket at
once, without a parser for all of HTTP in between. Everything else goes through the door: other requests,
heads in pieces, and what a trusted proxy passes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from backbeat.websocket.handshake import END_OF_HEAD

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from backbeat.protocol.reasons import Reason
    from backbeat.server.realtime import Realtime
    from backbeat.server.socket import Socket

__all__ = ["Arrival", "Arrivals"]

UPGRADE: Final = b"\r\nupgrade: websocket\r\n"
CONNECTION: Final = (b"\r\nconnection: upgrade\r\n", b"\r\nconnection: keep-alive, upgrade\r\n")
"""What stands in the head of an upgrade as clients write it, in lower case. Whoever writes it otherwise is
served all the same, by the door."""


class Arrivals:
    """Those who have sent nothing yet. They all have the same time, so one timer minds the oldest.

    Args:
        realtime: the server.
        server_state: uvicorn's connections, for a graceful end.
        make_door: makes what speaks HTTP; gets the place of the connection, and since when it is awaited.
        make_socket: makes a socket; gets the place.
    """

    def __init__(
        self,
        realtime: Realtime,
        *,
        server_state: ServerState,
        make_door: Callable[..., Any],
        make_socket: Callable[..., Socket],
    ) -> None:
        self.realtime = realtime
        self.make_door = make_door
        self.make_socket = make_socket
        self._connections = cast("set[object]", server_state.connections)
        self._limits = realtime.settings.connections
        self._since: dict[Arrival, float] = {}
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Arrivals {len(self._since)}>"

    def add(self, arrival: Arrival) -> None:
        """Await the first bytes of a connection."""
        self._connections.add(arrival)
        self._since[arrival] = self.realtime.loop.time()
        if self._alarm is None:
            self._alarm = self.realtime.loop.call_later(self._limits.handshake_timeout, self._look)

    def remove(self, arrival: Arrival) -> float:
        """Await them no longer; return since when they were awaited."""
        self._connections.discard(arrival)
        return self._since.pop(arrival, self.realtime.loop.time())

    def upgrades(self, data: bytes) -> bool:
        """Tell whether first bytes are the whole head of an upgrade, and nothing is unusual about it.

        Args:
            data: the first bytes; frames may follow the head.
        """
        end = data.find(END_OF_HEAD)
        if not 0 < end < self._limits.max_head_bytes // 2 or not data.startswith(b"GET "):
            return False
        head = data[: end + 2].lower()
        return (
            UPGRADE in head
            and any(each in head for each in CONNECTION)
            and head.count(b"\r\n") <= 1 + self._limits.max_headers
        )

    def _look(self) -> None:
        """Send those to the door who are late: it tells them."""
        self._alarm = None
        now = self.realtime.loop.time()
        for arrival, since in list(self._since.items()):
            left = since + self._limits.handshake_timeout - now
            if left > 0:
                self._alarm = self.realtime.loop.call_later(left, self._look)
                return
            arrival.open_door()


class Arrival(asyncio.Protocol):
    """One connection, from its acceptance to its first bytes.

    Args:
        arrivals: those who have sent nothing yet.
        place: the place that was taken for it, or the reason why there is none; None if nobody has asked.
    """

    __slots__ = ("_arrivals", "_place", "_transport")

    def __init__(self, arrivals: Arrivals, place: str | Reason | None = None) -> None:
        self._arrivals = arrivals
        self._place = place
        self._transport: asyncio.Transport | None = None

    @property
    def made(self) -> bool:
        """Whether there is a connection, or was: it gives the place back."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place; without one, and behind a proxy, the door knows what to do."""
        self._transport = cast("asyncio.Transport", transport)
        if self._place is None:
            peer = transport.get_extra_info("peername")
            self._place = self._arrivals.realtime.entrance.enter(str(peer[0]) if peer else "")
        self._arrivals.add(self)
        if not isinstance(self._place, str) or not self._place:
            self.open_door()

    def data_received(self, data: bytes) -> None:
        """Become a socket, or whatever the door makes of it."""
        if not self._arrivals.upgrades(data):
            self.open_door().data_received(data)
            return
        assert self._transport is not None
        assert isinstance(self._place, str)
        self._arrivals.remove(self)
        socket = self._arrivals.make_socket(place=self._place)
        socket.connection_made(self._transport)
        self._transport.set_protocol(socket)
        socket.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        del exc
        self._arrivals.remove(self)
        if isinstance(self._place, str):
            self._arrivals.realtime.entrance.leave(self._place)

    def open_door(self) -> Any:
        """Let HTTP be spoken, from now on."""
        assert self._transport is not None
        since = self._arrivals.remove(self)
        door = self._arrivals.make_door(place=self._place, since=since)
        self._transport.set_protocol(door)
        door.connection_made(self._transport)
        return door

    def shutdown(self) -> None:
        """The server stops. Called by uvicorn."""
        if self._transport is not None:
            self._transport.close()
