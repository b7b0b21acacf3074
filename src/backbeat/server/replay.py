"""Stored messages on their way to somebody who has just joined (server specification, section 6.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from backbeat.errors import ProtocolError
from backbeat.protocol.codec import encode_user_broadcast, json_text
from backbeat.protocol.messages import Event
from backbeat.websocket.frames import binary_frame, text_frame

if TYPE_CHECKING:
    from backbeat.postgres.messages import StoredMessage
    from backbeat.protocol.codec import Serializer

__all__ = ["replay_frame"]

log = structlog.get_logger("backbeat.replay")


def replay_frame(message: StoredMessage, serializer: Serializer, topic: str, join_ref: str | None) -> bytes:
    """Write a stored message as a replay: marked as one, and for one channel.

    Args:
        message: the stored message.
        serializer: how the client writes.
        topic: the topic on the wire.
        join_ref: the join it belongs to.

    Returns:
        The frame; empty for a message that cannot be written for this client.
    """
    try:
        return _frame(message, serializer, topic, join_ref)
    except ProtocolError as error:
        log.warning("stored message not replayed", topic=topic, id=message.id, reason=error.message)
        return b""


def _frame(message: StoredMessage, serializer: Serializer, topic: str, join_ref: str | None) -> bytes:
    meta = {"replayed": True, "id": message.id}
    if message.payload is None:
        if not serializer.binary:
            return b""
        metadata = msgspec.json.encode(meta)
        data = encode_user_broadcast(
            topic, message.event, message.binary or b"", is_json=False, metadata=metadata
        )
        return binary_frame(data)
    payload = b'{"payload":%b,"event":%b,"type":"broadcast","meta":%b}' % (
        message.payload,
        json_text(message.event),
        msgspec.json.encode(meta),
    )
    return text_frame(serializer.encode(join_ref, None, topic, Event.BROADCAST, payload))
