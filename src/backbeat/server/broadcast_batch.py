"""A batch of broadcasts as it comes over HTTP: all of it is read and checked before any of it is sent.

Server specification, section 6.4.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from backbeat.protocol import reasons
from backbeat.protocol.codec import json_text
from backbeat.protocol.messages import Event
from backbeat.server.delivery import TextDelivery
from backbeat.server.endpoint import Invalid, refuse_field

if TYPE_CHECKING:
    from backbeat.protocol.reasons import Reason

__all__ = ["PER_TURN", "BatchMessage", "check_json", "in_turns", "read_batch"]

T = TypeVar("T")

PER_TURN: Final = 500
"""Messages of a batch that are looked at in one turn of the event loop: there may be a hundred thousand."""

_raw = msgspec.json.Decoder(msgspec.Raw)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_entries = msgspec.json.Decoder(list[msgspec.Raw] | None)
_text = msgspec.json.Decoder(str | None)
_flag = msgspec.json.Decoder(bool | None)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """One message of a batch; its payload is JSON text of an object."""

    topic: str
    event: str
    payload: bytes
    private: bool
    id: str | None

    def delivery(self) -> TextDelivery:
        """The broadcast as members receive it."""
        meta = b',"meta":{"id":%b}' % msgspec.json.encode(self.id) if self.id is not None else b""
        return TextDelivery(
            Event.BROADCAST,
            b'{"event":%b,"payload":%b,"type":"broadcast"%b}' % (json_text(self.event), self.payload, meta),
        )


def check_json(body: bytes) -> None:
    """Check that a body is JSON text, all of it: what is spliced through is not looked at again.

    Raises:
        BadRequest: it is not.
    """
    try:
        body.isascii() or body.decode()
        _raw.decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise reasons.HTTP_MALFORMED_JSON.refusal() from error


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Go through what may be much, and let others have their turns."""
    for number, item in enumerate(items, 1):
        yield item
        if number % PER_TURN == 0:
            await asyncio.sleep(0)


async def read_batch(body: bytes, max_payload: int) -> list[BatchMessage]:
    """Read a batch.

    Args:
        body: the request body.
        max_payload: the largest payload, in bytes.

    Raises:
        BadRequest: the body is not JSON.
        Invalid: it is not a batch, or a message in it is not one.
    """
    body = body or b"{}"
    check_json(body)
    fields = _object_fields(body)
    problems: dict[str, Reason] = {}
    entries = _read(fields, "messages", _entries, problems)
    if problems:
        refuse_field(reasons.HTTP_FIELD_INVALID, "messages")
    if not entries:
        refuse_field(reasons.HTTP_FIELD_BLANK, "messages")
    read = [_message(bytes(entry), max_payload) async for entry in in_turns(entries)]
    wrong = [{} if isinstance(each, BatchMessage) else each for each in read]
    if any(wrong):
        first = next(reason for each in wrong for reason in each.values())
        texts = [{name: [reason.text] for name, reason in each.items()} for each in wrong]
        raise Invalid(first, {"messages": texts})
    return [each for each in read if isinstance(each, BatchMessage)]


def _message(entry: bytes, max_payload: int) -> BatchMessage | dict[str, Reason]:
    """Read one message of a batch, or say what is wrong with which of its fields."""
    problems: dict[str, Reason] = {}
    fields = _object_fields(entry)
    topic = _read(fields, "topic", _text, problems, required=True)
    event = _read(fields, "event", _text, problems, required=True)
    payload = _read(fields, "payload", _object, problems, required=True)
    private = _read(fields, "private", _flag, problems)
    name = _read(fields, "id", _text, problems)
    text = bytes(fields["payload"]) if payload is not None else b""
    if len(text) > max_payload:
        problems["payload"] = reasons.HTTP_PAYLOAD_TOO_LARGE
    if problems or topic is None or event is None:
        return problems
    return BatchMessage(topic, event, text, private=bool(private), id=name)


def _object_fields(text: bytes) -> Mapping[str, msgspec.Raw]:
    """The fields of an object; what is no object has none."""
    try:
        return _fields.decode(text)
    except msgspec.ValidationError:
        return {}


def _read(
    fields: Mapping[str, msgspec.Raw],
    name: str,
    decoder: msgspec.json.Decoder[T],
    problems: dict[str, Reason],
    *,
    required: bool = False,
) -> T | None:
    """Read one field, or note what is wrong with it.

    Args:
        fields: the fields of the object.
        name: the field.
        decoder: reads it; None where it is null.
        problems: where the problem is noted.
        required: whether it may be missing, null or blank.
    """
    try:
        value = decoder.decode(fields.get(name, b"null"))
    except msgspec.ValidationError:
        problems[name] = reasons.HTTP_FIELD_INVALID
        return None
    if required and (value is None or (isinstance(value, str) and not value.strip())):
        problems[name] = reasons.HTTP_FIELD_BLANK
    return value
