"""Rooms, and the fan-out.

A message is encoded once for each serializer, not once for each member. What is published in a room during
one turn of the event loop is collected, joined once, and the same bytes object is written to every member:
one `send` a member and turn, however many messages there were. Nothing is awaited on the way, and nobody
waits for a slow reader: its transport reports it, and its socket drops it.

Order: a room is flushed before a member enters or leaves it, and before anything is written to a member
directly. So a joiner never sees what was sent before it came, and a reply never overtakes a broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntFlag
from typing import TYPE_CHECKING, Protocol

from backbeat.errors import ProtocolError
from backbeat.protocol.codec import V2, encode_user_broadcast, json_text
from backbeat.protocol.messages import Event
from backbeat.server.presence import PresenceTable
from backbeat.websocket.frames import binary_frame, text_frame

if TYPE_CHECKING:
    from backbeat.protocol.codec import Serializer
    from backbeat.server.metrics import Metrics

__all__ = ["Delivery", "Hears", "Hub", "Member", "Room", "TextDelivery", "UserBroadcast"]

MAX_BATCH_BYTES = 262_144
"""A room that collected this much in one turn is flushed at once, so that memory stays bounded."""


class Hears(IntFlag):
    """What a member is allowed to receive in a room; also, what kind a delivery is."""

    NOTHING = 0
    BROADCAST = 1
    PRESENCE = 2


class Member(Hashable, Protocol):
    """A joined channel, as far as the hub is concerned."""

    serializer: Serializer
    hears: Hears
    write: Callable[[bytes], None]
    """Writes whole frames to the socket at once; never blocks, never raises."""


class Delivery:
    """Something on its way to the members of a room; subclasses know how it is written.

    Args:
        audience: which members it is for.
        sender: the member that must not receive it, if any.
        stored_as: the id of the stored message it comes from, if it comes from one.
    """

    __slots__ = ("_frames", "audience", "sender", "stored_as")

    def __init__(self, audience: Hears, sender: Member | None = None, stored_as: str | None = None) -> None:
        self.audience = audience
        self.sender = sender
        self.stored_as = stored_as
        self._frames: dict[str, bytes] = {}

    def frame(self, serializer: Serializer, topic: str) -> bytes:
        """The WebSocket frame for one serializer, encoded at most once; empty when it has none."""
        frame = self._frames.get(serializer.vsn)
        if frame is None:
            frame = self._frames[serializer.vsn] = self._encode(serializer, topic)
        return frame

    def _encode(self, serializer: Serializer, topic: str) -> bytes:
        raise NotImplementedError


class TextDelivery(Delivery):
    """An event with a JSON payload: a text broadcast or a presence diff.

    Args:
        event: the event on the wire.
        payload: JSON text of an object.
        audience: which members it is for.
        sender: the member that must not receive it, if any.
    """

    __slots__ = ("_event", "_payload")

    def __init__(
        self, event: str, payload: bytes, *, audience: Hears = Hears.BROADCAST, sender: Member | None = None
    ) -> None:
        super().__init__(audience, sender)
        self._event = event
        self._payload = payload

    def _encode(self, serializer: Serializer, topic: str) -> bytes:
        return text_frame(serializer.encode(None, None, topic, self._event, self._payload))


class UserBroadcast(Delivery):
    """A broadcast whose payload is opaque: binary to vsn 2; to vsn 1 as text, if it is JSON (section 2.4).

    Args:
        user_event: the event the application chose.
        payload: JSON text, or any bytes.
        is_json: which of the two.
        metadata: JSON text of an object, or nothing.
        sender: the member that must not receive it, if any.
        stored_as: the id of the stored message it comes from, if it comes from one.

    Raises:
        ProtocolError: event or metadata does not fit a binary header. Raised here, at the sender, and not
            while others are being served.
    """

    __slots__ = ("_is_json", "_metadata", "_payload", "_user_event")

    def __init__(
        self,
        user_event: str,
        payload: bytes,
        *,
        is_json: bool,
        metadata: bytes = b"",
        sender: Member | None = None,
        stored_as: str | None = None,
    ) -> None:
        super().__init__(Hears.BROADCAST, sender, stored_as)
        encode_user_broadcast("", user_event, b"", is_json=is_json, metadata=metadata)
        self._user_event = user_event
        self._payload = payload
        self._is_json = is_json
        self._metadata = metadata

    def _encode(self, serializer: Serializer, topic: str) -> bytes:
        try:
            if serializer.binary:
                frame = encode_user_broadcast(
                    topic, self._user_event, self._payload, is_json=self._is_json, metadata=self._metadata
                )
                return binary_frame(frame)
        except ProtocolError:
            # A topic too long for a binary header: whoever joined it reads the same broadcast as text.
            serializer = V2
        if not self._is_json:
            return b""
        meta = b',"meta":' + self._metadata if self._metadata else b""
        payload = b'{"event":%b,"payload":%b,"type":"broadcast"%b}' % (
            json_text(self._user_event),
            self._payload,
            meta,
        )
        return text_frame(serializer.encode(None, None, topic, Event.BROADCAST, payload))


class Room:
    """One topic, public or private: its members and what is on its way to them.

    Args:
        topic: the topic on the wire, prefix included.
        soon: calls a function in the next turn of the event loop.
        metrics: counts deliveries.
    """

    __slots__ = (
        "_groups",
        "_metrics",
        "_pending",
        "_pending_bytes",
        "_replayed",
        "_soon",
        "_taps",
        "presence",
        "topic",
    )

    def __init__(self, topic: str, soon: Callable[[Callable[[], None]], object], metrics: Metrics) -> None:
        self.topic = topic
        self.presence: PresenceTable[Member] = PresenceTable()
        self._soon = soon
        self._metrics = metrics
        self._groups: dict[tuple[Serializer, Hears], dict[Member, Callable[[bytes], None]]] = {}
        self._pending: list[Delivery] = []
        self._pending_bytes = 0
        self._taps: list[list[Delivery]] = []
        self._replayed: dict[Member, frozenset[str]] = {}

    def __repr__(self) -> str:
        return f"<Room {self.topic!r} members={len(self)} pending={len(self._pending)}>"

    def __len__(self) -> int:
        return sum(len(members) for members in self._groups.values())

    @property
    def empty(self) -> bool:
        """Whether nobody is here, and nobody is about to enter."""
        return not self._groups and not self._taps

    @contextmanager
    def tap(self) -> Iterator[list[Delivery]]:
        """Collect the stored messages that pass while somebody who is about to enter reads older ones.

        Without it, a message stored after those were read, and delivered before the reader is a member, would
        reach everybody but the reader.
        """
        passing: list[Delivery] = []
        self._taps.append(passing)
        try:
            yield passing
        finally:
            # By identity: two taps that collected the same are equal.
            self._taps = [tap for tap in self._taps if tap is not passing]

    def already_heard(self, member: Member, ids: frozenset[str]) -> None:
        """Leave stored messages out for a member that got them as a replay.

        Args:
            member: who got them.
            ids: which ones; none ends it.
        """
        if ids:
            self._replayed[member] = ids
        else:
            self._replayed.pop(member, None)

    def enter(self, member: Member) -> None:
        """Let a member hear what its `hears` allows, from now on."""
        self.flush()
        self._groups.setdefault((member.serializer, member.hears), {})[member] = member.write

    def leave(self, member: Member) -> None:
        """Remove a member; before its rights change, too."""
        self.flush()
        group = member.serializer, member.hears
        self._replayed.pop(member, None)
        members = self._groups.get(group)
        if members is not None:
            members.pop(member, None)
            if not members:
                del self._groups[group]

    def publish(self, delivery: Delivery, size: int) -> None:
        """Send something to everyone concerned at the end of this turn of the event loop.

        Args:
            delivery: what to send.
            size: about how many bytes it is, to bound what is collected.
        """
        if not self._pending:
            self._soon(self.flush)
        self._pending.append(delivery)
        if delivery.stored_as is not None:
            for tap in self._taps:
                tap.append(delivery)
        if delivery.audience & Hears.BROADCAST:
            self._metrics.broadcasts += 1
            self._metrics.payload_sizes.observe(size)
        self._pending_bytes += size
        if self._pending_bytes > MAX_BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was collected, now."""
        if not self._pending:
            return
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        # Whoever must not get all of it: senders, and those who have had some of it as a replay.
        special = {delivery.sender for delivery in pending if delivery.sender is not None}.union(
            self._replayed
        )
        for (serializer, hears), members in self._groups.items():
            audible = [
                delivery
                for delivery in pending
                if delivery.audience & hears and delivery.frame(serializer, self.topic)
            ]
            if not audible:
                continue
            data = self._joined(audible, serializer)
            apart = {member for member in special if member in members}
            if apart:
                for member, write in members.items():
                    if member not in apart:
                        write(data)
            else:
                for write in members.values():
                    write(data)
            self._count(len(members) - len(apart), len(audible), len(data))
            for member in apart:
                if own := self._for(member, audible):
                    data = self._joined(own, serializer)
                    members[member](data)
                    self._count(1, len(own), len(data))

    def _count(self, members: int, frames: int, size: int) -> None:
        self._metrics.deliveries += members * frames
        self._metrics.bytes_out += members * size

    def _for(self, member: Member, deliveries: Sequence[Delivery]) -> list[Delivery]:
        heard = self._replayed.get(member, frozenset())
        return [each for each in deliveries if each.sender is not member and each.stored_as not in heard]

    def _joined(self, deliveries: Sequence[Delivery], serializer: Serializer) -> bytes:
        if len(deliveries) == 1:
            return deliveries[0].frame(serializer, self.topic)
        return b"".join([delivery.frame(serializer, self.topic) for delivery in deliveries])


class Hub:
    """The rooms of one server.

    Public and private rooms of the same name are different rooms (section 6.1).

    Args:
        soon: calls a function in the next turn of the event loop.
        metrics: counts deliveries.
    """

    def __init__(self, soon: Callable[[Callable[[], None]], object], metrics: Metrics) -> None:
        self._soon = soon
        self._metrics = metrics
        self._rooms: dict[tuple[str, bool], Room] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def room(self, topic: str, *, private: bool) -> Room:
        """The room of a topic, made when it does not exist."""
        room = self._rooms.get((topic, private))
        if room is None:
            room = self._rooms[topic, private] = Room(topic, self._soon, self._metrics)
        return room

    def find(self, topic: str, *, private: bool) -> Room | None:
        """The room of a topic, if anybody is there."""
        return self._rooms.get((topic, private))

    def release(self, room: Room, *, private: bool) -> None:
        """Forget a room that became empty."""
        if room.empty and self._rooms.get((room.topic, private)) is room:
            del self._rooms[room.topic, private]
