"""The client's side of the opening handshake (RFC 6455, section 4.1): write the request, read the answer."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from backbeat.errors import ProtocolError
from backbeat.websocket.handshake import END_OF_HEAD, MAX_HEAD

__all__ = ["Answer", "new_key", "read_answer", "request"]

SWITCHING: Final = 101


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Attributes:
        status: the HTTP status.
        accept: the proof that it understood, if it gave one.
        rest: the bytes after the head: frames, or the beginning of a body.
        length: bytes of the body, as far as the server says.
    """

    status: int
    accept: str
    rest: bytes
    length: int = 0


def new_key() -> str:
    """A key for one handshake: base64 of sixteen bytes that nobody can guess."""
    return base64.b64encode(secrets.token_bytes(16)).decode()


def request(url: str, key: str) -> bytes:
    """Write the request that opens a WebSocket.

    Args:
        url: where, with all parameters.
        key: the key of this handshake.
    """
    parts = urlsplit(url)
    return (
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\n"
        f"Host: {parts.netloc}\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def read_answer(data: bytes) -> Answer | None:
    """Read the answer.

    Returns:
        The answer, or None while its head is not complete.

    Raises:
        ProtocolError: this is no HTTP.
    """
    head, end, rest = data.partition(END_OF_HEAD)
    status_line, *lines = head.decode("latin-1").split("\r\n")
    protocol, _, status = status_line.partition(" ")
    if not protocol.startswith("HTTP/1."[: len(protocol)]) or len(head) > MAX_HEAD:
        raise ProtocolError("The server does not answer in HTTP.")
    if not end:
        return None
    if not status[:3].isdecimal():
        raise ProtocolError("The server answers without an HTTP status.")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = fields.get("content-length", "")
    return Answer(
        int(status[:3]),
        fields.get("sec-websocket-accept", ""),
        rest,
        int(length) if length.isdecimal() else 0,
    )
