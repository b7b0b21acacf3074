"""A server in memory: its connections, what it is told to do wrong, and what it saw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from backbeat.errors import UpgradeRefused
from backbeat.protocol.messages import TOPIC_PREFIX, BinaryBroadcast, Event, Incoming
from backbeat.protocol.presence import encode_diff
from backbeat.testing.connection import MemoryChannel, MemoryConnection
from backbeat.testing.socket import MemorySocket, never

__all__ = ["MemoryServer", "Received"]


@dataclass(frozen=True, slots=True)
class Received:
    """A message that a client sent.

    Attributes:
        connection: the number of the connection it came over.
        message: the message.
    """

    connection: int
    message: Incoming

    @property
    def topic(self) -> str:
        """The topic, without the prefix."""
        return self.message.topic.removeprefix(TOPIC_PREFIX)

    @property
    def event(self) -> str:
        """The event."""
        return self.message.event

    @property
    def payload(self) -> Any:
        """The decoded payload, or its bytes."""
        if isinstance(self.message, BinaryBroadcast) and not self.message.is_json:
            return self.message.payload
        return msgspec.json.decode(self.message.payload)


class MemoryServer:
    """A realtime server in memory; give it to a client as `transport`.

    What it does wrong is set with `refuse_upgrades`, `hang_upgrades`, `refuse_join`, `ignore` and `hold`, and
    done with `cut`, `close`, `raw`, and the methods of its `connections`.

    Attributes:
        connections: those that are open, the newest last.
        received: every message of every client, in order.
        opened: how many connections there have been.
        bad_frames: how many frames were no messages.
        streams: whether change subscriptions are confirmed.
        stored: the stored messages of private channels, by topic: events, payloads and ids, which are
            replayed to those who ask.
        server_time: the clock it tells at the upgrade, in seconds since the epoch, if any.
    """

    def __init__(self) -> None:
        self.connections: list[MemoryConnection] = []
        self.received: list[Received] = []
        self.opened = 0
        self.bad_frames = 0
        self.streams = True
        self.stored: dict[str, list[tuple[str, Any, str]]] = {}
        self.server_time: float | None = None
        self._upgrades: list[tuple[int, bytes, float | None]] = []
        self._hanging = False
        self._unreachable = False
        self._refusals: dict[str, tuple[str, float]] = {}
        self._ignored: dict[str, float] = {}
        self._holding: set[str] = set()
        self._held: list[tuple[MemoryConnection, Incoming]] = []
        self._presence_refs = 0

    # Opening ------------------------------------------------------------------------------------------------

    async def open(self, url: str, headers: Mapping[str, str]) -> MemorySocket:
        """Open a connection, as `backbeat.client.transport.Transport` wants it.

        Raises:
            UpgradeRefused: it was told to refuse.
            OSError: it was told not to be reached.
        """
        del headers
        if self._hanging:
            await never()
        self.admit()
        socket = MemorySocket(server_time=self.server_time)
        vsn = parse_qs(urlsplit(url).query).get("vsn", [None])[0]
        socket.connection = self.connect(vsn, write=socket.write, hang_up=socket.hang_up)
        return socket

    def admit(self) -> None:
        """Refuse an upgrade if that was asked for.

        Raises:
            UpgradeRefused: it was told to refuse.
            OSError: it was told not to be reached.
        """
        if self._unreachable:
            raise ConnectionRefusedError("the server in memory is unreachable")
        if self._upgrades:
            status, body, retry_after = self._upgrades.pop(0)
            raise UpgradeRefused(status, body, retry_after)

    def connect(self, vsn: str | None, *, write: Any, hang_up: Any) -> MemoryConnection:
        """Take a connection without any event loop.

        Args:
            vsn: the protocol version of the client.
            write: takes each frame for the client.
            hang_up: called with a code and a reason when the server ends the connection.
        """
        self.opened += 1
        connection = MemoryConnection(self, self.opened, vsn, write=write, hang_up=hang_up)
        self.connections.append(connection)
        return connection

    def forget(self, connection: MemoryConnection) -> bool:
        """Let go of a connection; tell whether it was open."""
        if connection not in self.connections:
            return False
        self.connections.remove(connection)
        return True

    # Doing wrong --------------------------------------------------------------------------------------------

    def refuse_upgrades(
        self, status: int, error: str = "", *, times: int = 1, retry_after: float | None = None
    ) -> None:
        """Answer the next upgrades with an HTTP status, and `{"error": …}`."""
        body = msgspec.json.encode({"error": error}) if error else b""
        self._upgrades += [(status, body, retry_after)] * times

    def hang_upgrades(self, hang: bool = True) -> None:
        """Take connections and say nothing."""
        self._hanging = hang

    def unreachable(self, unreachable: bool = True) -> None:
        """Take no connections at all."""
        self._unreachable = unreachable

    def refuse_join(self, topic: str, reason: str, *, times: float = math.inf) -> None:
        """Refuse joins of a topic.

        Args:
            topic: the topic, without the prefix.
            reason: the text on the wire, like `Unauthorized: …`.
            times: how many joins; 0 for no more.
        """
        self._refusals[topic] = reason, times

    def ignore(self, event: str, *, times: float = math.inf) -> None:
        """Neither answer nor obey messages of an event: `heartbeat`, `phx_join`, `phx_leave` and so on.

        Args:
            event: the event.
            times: how many messages; 0 for no more.
        """
        self._ignored[event] = times

    def hold(self, event: str) -> None:
        """Keep messages of an event, neither answered nor obeyed, until `release`."""
        self._holding.add(event)

    def release(self) -> None:
        """Handle the messages that were kept, in order; those of connections that are gone are lost."""
        self._holding.clear()
        held, self._held = self._held, []
        for connection, message in held:
            if connection in self.connections:
                connection.handle(message)

    def cut(self) -> None:
        """Break every connection, without a goodbye."""
        self.close(1006)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End every connection."""
        for connection in list(self.connections):
            connection.close(code, reason)

    def raw(self, frame: str | bytes) -> None:
        """Send any frame to everybody, however wrong."""
        for connection in list(self.connections):
            connection.raw(frame)

    def note(self, connection: MemoryConnection, message: Incoming) -> bool:
        """Remember a message; tell whether it is not to be handled now."""
        self.received.append(Received(connection.number, message))
        if message.event in self._holding:
            self._held.append((connection, message))
            return True
        times = self._ignored.get(message.event, 0)
        self._ignored[message.event] = times - 1
        return times > 0

    def refusal_of(self, topic: str) -> str | None:
        """Why a topic is refused, if it is."""
        reason, times = self._refusals.get(topic, ("", 0))
        if times <= 0:
            return None
        self._refusals[topic] = reason, times - 1
        return reason

    # Looking ------------------------------------------------------------------------------------------------

    def of(self, event: str, topic: str | None = None) -> list[Received]:
        """The messages of an event, in order.

        Args:
            event: the event.
            topic: only on this topic.
        """
        return [each for each in self.received if each.event == event and topic in (None, each.topic)]

    def joins(self, topic: str | None = None) -> list[Any]:
        """The payloads of all joins, in order."""
        return [each.payload for each in self.of(Event.JOIN, topic)]

    def channels(self, topic: str) -> list[tuple[MemoryConnection, MemoryChannel]]:
        """Who has joined a topic."""
        return [
            (connection, connection.channels[topic])
            for connection in self.connections
            if topic in connection.channels
        ]

    # Telling ------------------------------------------------------------------------------------------------

    def broadcast(
        self,
        topic: str,
        event: str,
        payload: Any,
        *,
        private: bool = False,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a broadcast to everybody in a channel.

        Args:
            topic: the topic, without the prefix.
            event: the event.
            payload: what is encoded as JSON, or bytes.
            private: whether it is for the private channel of that topic.
            meta: what is said about it: `id`, `replayed`.
        """
        is_json = not isinstance(payload, bytes)
        content = msgspec.json.encode(payload) if is_json else payload
        for connection, channel in self.channels(topic):
            if channel.request.private == private:
                connection.broadcast(topic, event, content, is_json=is_json, meta=meta)

    def change(
        self,
        table: str,
        kind: str,
        record: Mapping[str, Any] | None = None,
        *,
        old: Mapping[str, Any] | None = None,
        schema: str = "public",
        columns: Mapping[str, str] | None = None,
        errors: list[str] | None = None,
        at: str = "2026-01-01T00:00:00.000Z",
    ) -> None:
        """Tell everybody who subscribed to a table that a row changed; filters are not looked at.

        Args:
            table: the table.
            kind: `INSERT`, `UPDATE` or `DELETE`.
            record: the new row.
            old: the old row.
            schema: the schema of the table.
            columns: the types of the columns, by their names.
            errors: why something is missing.
            at: when it was committed.
        """
        data: dict[str, Any] = {
            "schema": schema,
            "table": table,
            "type": kind,
            "commit_timestamp": at,
            "columns": [{"name": name, "type": kind} for name, kind in (columns or {}).items()],
            "errors": errors,
        }
        data |= {} if record is None else {"record": record}
        data |= {} if old is None else {"old_record": old}
        for connection in self.connections:
            for channel in connection.channels.values():
                request = channel.request
                ids = [
                    number
                    for number, entry in zip(request.change_ids, request.changes, strict=True)
                    if _concerns(entry, kind, schema, table)
                ]
                if ids:
                    connection.send(channel.topic, Event.POSTGRES_CHANGES, {"ids": ids, "data": data})

    # What connections need ----------------------------------------------------------------------------------

    def publish(
        self, sender: MemoryConnection, origin: MemoryChannel, event: str, payload: bytes, *, is_json: bool
    ) -> None:
        """Pass a client's broadcast on."""
        for connection, channel in self.channels(origin.topic):
            own = connection is sender and not channel.request.self_broadcast
            if channel.request.private == origin.request.private and not own:
                connection.broadcast(origin.topic, event, payload, is_json=is_json, meta=None)

    def replay(self, connection: MemoryConnection, channel: MemoryChannel) -> None:
        """Send the stored messages a join asked for; all of them, whatever time it asked for."""
        replay = channel.request.replay
        if replay is None:
            return
        for event, payload, number in self.stored.get(channel.topic, [])[-replay.limit :]:
            message = {"event": event, "payload": payload, "type": "broadcast"}
            message["meta"] = {"id": number, "replayed": True}
            connection.send(channel.topic, Event.BROADCAST, message, join_ref=channel.join_ref)

    def track(self, channel: MemoryChannel, payload: Mapping[str, Any] | None) -> None:
        """Change what a channel tracks, and tell the others."""
        before, after = channel.tracked, None
        if payload is not None:
            self._presence_refs += 1
            after = {**payload, "phx_ref": f"ref-{self._presence_refs}"}
            if before is not None:
                after["phx_ref_prev"] = before["phx_ref"]
        channel.tracked = after
        if before is None and after is None:
            return
        key = presence_key(channel)
        diff = encode_diff({key: [after]} if after else {}, {key: [before]} if before else {})
        for connection, other in self.channels(channel.topic):
            if other.request.private == channel.request.private:
                connection.send(channel.topic, Event.PRESENCE_DIFF, msgspec.Raw(diff))

    def presence_state(self, channel: MemoryChannel) -> dict[str, Any]:
        """Who is present, for somebody who joins."""
        state: dict[str, Any] = {}
        for _, other in self.channels(channel.topic):
            if other.tracked is not None and other.request.private == channel.request.private:
                state.setdefault(presence_key(other), {"metas": []})["metas"].append(other.tracked)
        return state


def presence_key(channel: MemoryChannel) -> str:
    """The key a channel tracks under."""
    return channel.request.presence_key or f"key-{id(channel):x}"


def _concerns(entry: Mapping[str, Any], kind: str, schema: str, table: str) -> bool:
    return all(
        wanted in ("*", actual)
        for wanted, actual in (
            (str(entry.get("event", "*")).upper(), kind),
            (entry.get("schema", "public"), schema),
            (entry.get("table", "*"), table),
        )
    )
