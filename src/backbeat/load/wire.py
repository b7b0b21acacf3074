"""What the load client writes, and what it reads in the bytes that come back.

Every broadcast carries a mark: the run it belongs to, its number, and when it was due. The mark is found
wherever a server puts it, whether it sends text or binary broadcasts, and however it writes JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from backbeat.errors import ProtocolError
from backbeat.protocol.codec import V2
from backbeat.protocol.messages import PHOENIX, Event, Message
from backbeat.websocket.frames import Binary, Opcode, Text, client_frame
from backbeat.websocket.frames import Event as FrameEvent

__all__ = ["JOIN_REF", "PAYLOAD_BYTES", "Digest", "broadcast", "heartbeat", "join", "read"]

JOIN_REF: Final = "1"
PAYLOAD_BYTES: Final = 200
"""Bytes of the JSON that one broadcast carries."""

_MARK: Final = re.compile(rb"~([0-9a-f]{8})\.([0-9]{10})\.([0-9]{20})~")
_MASK: Final = b"\x5a\xc3\x17\x9e"
"""Masks hide from proxies what scripts in a browser send (RFC 6455, section 10.3); there is none here."""


def join(topic: str, *, private: bool = False, token: str = "") -> bytes:
    """The frame that joins a channel which hears its own broadcasts.

    Args:
        topic: the whole topic.
        private: whether policies decide.
        token: a user's token; without one, the API key counts.
    """
    config = b'{"config":{"private":%b,"broadcast":{"self":true}}' % (b"true" if private else b"false")
    access = b',"access_token":"%b"' % token.encode() if token else b""
    return _text(JOIN_REF, JOIN_REF, topic, Event.JOIN, config + access + b"}")


def broadcast(topic: str, run: bytes, number: int, due: int) -> bytes:
    """The frame that sends one broadcast.

    Args:
        topic: the whole topic.
        run: eight hexadecimal digits.
        number: which message of its topic it is, from 0.
        due: when it should be sent, in nanoseconds of the monotonic clock.
    """
    payload = b'{"mark":"~%b.%010d.%020d~","text":"' % (run, number, due)
    payload = payload.ljust(PAYLOAD_BYTES - 2, b".") + b'"}'
    envelope = b'{"type":"broadcast","event":"beat","payload":%b}' % payload
    return _text(JOIN_REF, str(number), topic, Event.BROADCAST, envelope)


def heartbeat(ref: str) -> bytes:
    """The frame of a heartbeat."""
    return _text(None, ref, PHOENIX, Event.HEARTBEAT, b"{}")


def _text(join_ref: str | None, ref: str, topic: str, event: str, payload: bytes) -> bytes:
    return client_frame(Opcode.TEXT, V2.encode_push(join_ref, ref, topic, event, payload), _MASK)


class Digest:
    """What some bytes from the server say.

    Members of a topic get the same bytes, so one digest serves them all.

    Attributes:
        numbers: the messages of this run, in the order they came.
        first: the first of them.
        after: the one after the last.
        solid: whether none is missing, repeated or out of order in between.
        dues: when they were due.
        others: messages and frames that are no broadcasts of any run.
    """

    __slots__ = ("after", "dues", "first", "numbers", "others", "solid")

    def __init__(self, numbers: list[int], dues: list[int], others: list[Message | FrameEvent]) -> None:
        self.numbers = numbers
        self.dues = dues
        self.others = others
        self.first = numbers[0] if numbers else 0
        self.after = numbers[-1] + 1 if numbers else 0
        self.solid = numbers == list(range(self.first, self.after))


def read(events: Iterable[FrameEvent], run: bytes) -> Digest:
    """Find out what frames say.

    Args:
        events: what the frame parser made of the bytes.
        run: the run whose messages count; those of others are left out.
    """
    numbers: list[int] = []
    dues: list[int] = []
    others: list[Message | FrameEvent] = []
    for event in events:
        if not isinstance(event, Text | Binary):
            others.append(event)
        elif mark := _MARK.search(event.payload):
            if mark[1] == run:
                numbers.append(int(mark[2]))
                dues.append(int(mark[3]))
        elif isinstance(event, Text):
            try:
                others.append(V2.decode(event.payload))
            except ProtocolError:
                others.append(event)
    return Digest(numbers, dues, others)
