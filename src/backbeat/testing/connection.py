"""One connection of a server in memory: what comes in is answered at once. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from backbeat.errors import ProtocolError
from backbeat.protocol.codec import V1, encode_user_broadcast, serializer
from backbeat.protocol.join import JoinRequest
from backbeat.protocol.messages import PHOENIX, TOPIC_PREFIX, BinaryBroadcast, Event, Incoming

if TYPE_CHECKING:
    from backbeat.testing.server import MemoryServer

__all__ = ["MemoryChannel", "MemoryConnection"]


@dataclass(slots=True)
class MemoryChannel:
    """A topic that a connection has joined.

    Attributes:
        topic: the topic, without the prefix.
        join_ref: names the join.
        request: what the join asked for.
        token: the token of the join, or the newest one that was pushed; None for none.
        tracked: what it tracks, and under which `phx_ref`.
    """

    topic: str
    join_ref: str | None
    request: JoinRequest
    token: str | None = field(repr=False)
    tracked: dict[str, Any] | None = None


class MemoryConnection:
    """A client's connection to a server in memory.

    Args:
        server: the server.
        number: which one of the server's connections.
        vsn: the protocol version of the client.
        write: takes each frame for the client: text, or bytes.
        hang_up: called with the close code and the reason when the server ends the connection.

    Attributes:
        channels: what the client has joined, by topic.
    """

    def __init__(
        self,
        server: MemoryServer,
        number: int,
        vsn: str | None,
        *,
        write: Callable[[str | bytes], None],
        hang_up: Callable[[int, str], None],
    ) -> None:
        self.number = number
        self.channels: dict[str, MemoryChannel] = {}
        self._server = server
        self._serializer = serializer(vsn) or V1
        self._write = write
        self._hang_up = hang_up

    def __repr__(self) -> str:
        return f"<MemoryConnection {self.number} {sorted(self.channels)}>"

    # From the client ----------------------------------------------------------------------------------------

    def receive(self, frame: str | bytes) -> None:
        """Take a frame from the client; what is no message is counted, as servers do."""
        try:
            message: Incoming = (
                self._serializer.decode(frame.encode())
                if isinstance(frame, str)
                else self._serializer.decode_binary(frame)
            )
        except ProtocolError:
            self._server.bad_frames += 1
            return
        if not self._server.note(self, message):
            self.handle(message)

    def handle(self, message: Incoming) -> None:
        """Answer a message, and do what it says."""
        if message.topic == PHOENIX:
            self.reply(message)
        elif message.event == Event.JOIN:
            self._join(message)
        elif (channel := self.channels.get(message.topic.removeprefix(TOPIC_PREFIX))) is not None:
            self._for_channel(channel, message)
        elif message.event == Event.LEAVE:
            self.reply(message)
        else:
            self.reply(message, status="error", response={"reason": "unmatched topic"})

    def _join(self, message: Incoming) -> None:
        topic = message.topic.removeprefix(TOPIC_PREFIX)
        reason = self._server.refusal_of(topic)
        if reason is not None:
            self.reply(message, status="error", response={"reason": reason})
            return
        request = JoinRequest.parse(message.payload)
        replaced = self.channels.get(topic)
        channel = MemoryChannel(topic, message.join_ref or message.ref, request, request.access_token)
        self.channels[topic] = channel
        changes = [
            {**entry, "id": number} for entry, number in zip(request.changes, request.change_ids, strict=True)
        ]
        self.reply(message, response={"postgres_changes": changes})
        if replaced is not None:
            self.send(topic, Event.CLOSE, {}, join_ref=replaced.join_ref, ref=replaced.join_ref)
        if request.presence:
            state = self._server.presence_state(channel)
            self.send(topic, Event.PRESENCE_STATE, state, join_ref=channel.join_ref)
        self._server.replay(self, channel)
        if changes and self._server.streams:
            self.system(topic, "Subscribed to PostgreSQL", extension=Event.POSTGRES_CHANGES)

    def _for_channel(self, channel: MemoryChannel, message: Incoming) -> None:
        if message.event == Event.LEAVE:
            self.reply(message)
            self.send(channel.topic, Event.CLOSE, {}, join_ref=channel.join_ref, ref=channel.join_ref)
            self.drop(channel)
        elif isinstance(message, BinaryBroadcast):
            self._server.publish(self, channel, message.user_event, message.payload, is_json=message.is_json)
            self._acknowledge(channel, message)
        elif message.event == Event.BROADCAST:
            sent = msgspec.json.decode(message.payload)
            payload = msgspec.json.encode(sent.get("payload", {}))
            self._server.publish(self, channel, str(sent.get("event")), payload, is_json=True)
            self._acknowledge(channel, message)
        elif message.event == Event.PRESENCE:
            self._presence(channel, msgspec.json.decode(message.payload))
            self.reply(message)
        elif message.event == Event.ACCESS_TOKEN:
            channel.token = msgspec.json.decode(message.payload).get("access_token")

    def _acknowledge(self, channel: MemoryChannel, message: Incoming) -> None:
        if channel.request.ack:
            self.reply(message)

    def _presence(self, channel: MemoryChannel, call: dict[str, Any]) -> None:
        tracked = call.get("payload", {}) if call.get("event") == "track" else None
        self._server.track(channel, tracked)

    # To the client ------------------------------------------------------------------------------------------

    def raw(self, frame: str | bytes) -> None:
        """Send any frame, however wrong."""
        self._write(frame)

    def reply(self, message: Incoming, *, status: str = "ok", response: object = None) -> None:
        """Answer a message."""
        channel = self.channels.get(message.topic.removeprefix(TOPIC_PREFIX))
        payload = msgspec.json.encode({"status": status, "response": response or {}})
        join_ref = message.join_ref if channel is None else channel.join_ref
        self._text(join_ref, message.ref, message.topic, Event.REPLY, payload)

    def send(
        self,
        topic: str,
        event: str,
        payload: object,
        *,
        join_ref: str | None = None,
        ref: str | None = None,
    ) -> None:
        """Send a message on a topic.

        Args:
            topic: the topic, without the prefix.
            event: the event.
            payload: what is encoded as JSON.
            join_ref: the join it belongs to; None for what everybody gets.
            ref: what it answers.
        """
        self._text(join_ref, ref, TOPIC_PREFIX + topic, event, msgspec.json.encode(payload))

    def broadcast(self, topic: str, event: str, payload: bytes, *, is_json: bool, meta: object) -> None:
        """Send a broadcast as servers do: binary to those who can read it."""
        if self._serializer.binary:
            metadata = msgspec.json.encode(meta) if meta else b""
            frame = encode_user_broadcast(
                TOPIC_PREFIX + topic, event, payload, is_json=is_json, metadata=metadata
            )
            self._write(frame)
        elif is_json:
            message = {"type": "broadcast", "event": event, "payload": msgspec.Raw(payload)}
            self.send(topic, Event.BROADCAST, message | ({"meta": meta} if meta else {}))

    def system(
        self, topic: str, message: str, *, extension: str = "system", status: str = "ok", **more: object
    ) -> None:
        """Say something about a channel."""
        channel = self.channels.get(topic)
        payload = {"channel": topic, "extension": extension, "message": message, "status": status, **more}
        self.send(topic, Event.SYSTEM, payload, join_ref=None if channel is None else channel.join_ref)

    def shut_down(self, topic: str, message: str) -> None:
        """End a channel, and say why."""
        channel = self.channels[topic]
        self.system(topic, message, status="error")
        self.send(topic, Event.CLOSE, {}, join_ref=channel.join_ref, ref=channel.join_ref)
        self.drop(channel)

    def crash(self, topic: str) -> None:
        """End a channel as if its process had failed."""
        channel = self.channels[topic]
        payload = {"reason": "channel_crash"}
        self.send(topic, Event.ERROR, payload, join_ref=channel.join_ref, ref=channel.join_ref)
        self.drop(channel)

    def drop(self, channel: MemoryChannel) -> None:
        """Forget a channel."""
        if self.channels.get(channel.topic) is channel:
            del self.channels[channel.topic]
            self._server.track(channel, None)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection."""
        if self._server.forget(self):
            for channel in list(self.channels.values()):
                self.drop(channel)
            self._hang_up(code, reason)

    def _text(self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: bytes) -> None:
        self._write(self._serializer.encode(join_ref, ref, topic, event, payload).decode())
