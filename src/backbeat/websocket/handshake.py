"""The server's side of the opening handshake (RFC 6455 section 4.2): read the request, write the response.

Nothing here decides who may connect: `parse_head` says what was asked for, the caller answers with `accept`
or `refuse`. Header names and values are checked in both directions, so no text, ours or a peer's, can add a
line.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_plus

from backbeat.errors import ProtocolError

END_OF_HEAD: Final = b"\r\n\r\n"
"""What a request head ends with; the bytes after it are frames."""

MAX_HEAD: Final = 32 * 1024
"""Bytes of a request head. nginx reads as much by default (four buffers of 8 KiB)."""

MAX_QUERY_FIELDS: Final = 100
"""Query parameters of a request. Clients send two, and whatever `params` their users add."""

_VERSION: Final = "13"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 section 5.5
# All lines at once, each with its end. A value and what ends it share no character, so nothing is read twice.
_FIELD_LINES: Final = re.compile(rf"(?:{_TOKEN.pattern}:{_FIELD_VALUE.pattern}\r\n)*")
_LINE_END: Final = "\r\n"
_TARGET: Final = re.compile(r"(?:(?i:https?)://[^/?#]+)?(?P<path>/[^?#]*)(?:\?(?P<query>[^#]*))?")
_BEARER: Final = "base64url.bearer.phx."
_URL_SAFE: Final = str.maketrans("-_", "+/")  # the clients write the other alphabet, whatever the name says
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")

_SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

Headers = Iterable[tuple[str, str]]


class HandshakeError(ProtocolError):
    """The request is no valid opening handshake.

    Args:
        status: The HTTP status to refuse it with.
        reason: What is wrong, for the client to read. Never contains what the client sent.
        headers: Headers the refusal must carry.
    """

    code = "HandshakeError"

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A valid opening handshake.

    Query and headers may hold keys and tokens, so a `repr` leaves them out.

    Attributes:
        path: The path as it was sent, still percent-encoded.
        query: The decoded query parameters. Of a repeated one the last value counts, as it does in Phoenix.
        headers: Values under lower-cased names. A repeated header has its values joined by `, ` (RFC 9110
            section 5.3). Bytes beyond ASCII were read as Latin-1.
    """

    path: str
    query: dict[str, str] = field(repr=False)
    headers: dict[str, str] = field(repr=False)

    @property
    def key(self) -> str:
        """The client's nonce, base64 of 16 bytes."""
        return self.headers["sec-websocket-key"]

    @property
    def version(self) -> int:
        """The version of the protocol, always 13."""
        return int(self.headers["sec-websocket-version"])

    @property
    def origin(self) -> str | None:
        """The origin of the page that connects; `None` when the client is not a browser."""
        return self.headers.get("origin")

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """What the client offers to speak, best first."""
        return tuple(_tokens(self.headers.get("sec-websocket-protocol", "")))

    @property
    def bearer(self) -> str | None:
        """The token that a client of Phoenix 1.8 offers as a subprotocol (its `authToken`), if it does.

        Browsers let a page set no other header of a handshake, and a query stands in the logs of proxies.
        """
        for offered in self.subprotocols:
            if offered.startswith(_BEARER):
                text = offered.removeprefix(_BEARER).translate(_URL_SAFE)
                try:
                    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode("ascii")
                except ValueError:
                    return None
        return None


def parse_head(head: bytes, *, limit: int = MAX_HEAD) -> UpgradeRequest:
    """Read the head of an upgrade request.

    Args:
        head: The request line and the headers, with or without the empty line that ends them.
        limit: Bytes it may have.

    Raises:
        HandshakeError: It breaks RFC 9112, or one of the requirements of RFC 6455 section 4.2.1.
    """
    if len(head) > limit:
        raise HandshakeError(431, f"A request head has at most {limit} bytes.")
    request_line, _, lines = head.removesuffix(END_OF_HEAD).decode("latin-1").partition(_LINE_END)
    path, query = _request_line(request_line)
    headers = _header_fields(lines)
    _require_upgrade(headers)
    return UpgradeRequest(path, query, headers)


def accept(request: UpgradeRequest, *, subprotocol: str | None = None, headers: Headers = ()) -> bytes:
    """Return the response that opens the WebSocket (RFC 6455 section 4.2.2).

    Args:
        request: What is accepted.
        subprotocol: One of those the client offered, or none.
        headers: More headers.

    Raises:
        ValueError: The client did not offer this subprotocol, or a header could not be written as it is.
    """
    if subprotocol is not None and subprotocol not in request.subprotocols:
        raise ValueError(f"the client did not offer the subprotocol {subprotocol!r}")
    chosen = [("Sec-WebSocket-Protocol", subprotocol)] if subprotocol is not None else []
    return b"%bSec-WebSocket-Accept: %b\r\n%b\r\n" % (
        _SWITCHING,
        proof(request.key).encode("ascii"),
        _lines([*chosen, *headers]),
    )


def proof(key: str) -> str:
    """Return what shows that a handshake was understood: the answer to its key (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def refuse(
    status: int,
    body: bytes = b"",
    content_type: str = "text/plain; charset=utf-8",
    headers: Headers = (),
) -> bytes:
    """Return a whole HTTP response that refuses the upgrade; the connection is closed after it.

    Args:
        status: A status of 400 or more.
        body: What the client may read; browsers hide it from pages.
        content_type: Of the body.
        headers: More headers.

    Raises:
        ValueError: The status is unknown or refuses nothing, or a header could not be written as it is.
    """
    if status < HTTPStatus.BAD_REQUEST:
        raise ValueError(f"status {status} refuses nothing")
    fields = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Connection", "close")]
    return _head(HTTPStatus(status), [*fields, *headers]) + body


def _request_line(line: str) -> tuple[str, dict[str, str]]:
    """Return path and query of the target, which may be absolute (RFC 9112 section 3.2.2)."""
    method, _, rest = line.partition(" ")
    target, _, version = rest.partition(" ")
    if method != "GET":
        raise HandshakeError(400, "A WebSocket is opened with GET.")
    if version != "HTTP/1.1":
        raise HandshakeError(400, "A WebSocket is opened with HTTP/1.1.")
    parts = _TARGET.fullmatch(target) if _VISIBLE.fullmatch(target) else None
    if parts is None:
        raise HandshakeError(400, "The request target is not valid.")
    try:
        return parts["path"], _query(parts["query"] or "")
    except ValueError:  # bytes that are not UTF-8, or too many fields; the cause would quote the query
        raise HandshakeError(400, "The query of the request is not valid.") from None


def _query(text: str) -> dict[str, str]:
    """Read a query as a form is written (URL standard, section 5.1); the last value of a name counts.

    Raises:
        ValueError: It has too many fields, or bytes that are not UTF-8.
    """
    if text.count("&") >= MAX_QUERY_FIELDS:
        raise ValueError("too many fields")
    plain = "%" not in text and "+" not in text
    query: dict[str, str] = {}
    for pair in filter(None, text.split("&")):
        name, _, value = pair.partition("=")
        if plain:
            query[name] = value
        else:
            query[unquote_plus(name, errors="strict")] = unquote_plus(value, errors="strict")
    return query


def _header_fields(lines: str) -> dict[str, str]:
    # Proxies read folded lines, lines without a colon, bare CR or LF and a space before the colon in
    # different ways (RFC 9112 sections 2.2, 5.1 and 5.2), so one of them could be made to see other
    # headers than we do.
    if lines and not _FIELD_LINES.fullmatch(lines + _LINE_END):
        raise HandshakeError(400, "A header of the request is not valid.")
    headers: dict[str, str] = {}
    for line in lines.split(_LINE_END) if lines else ():
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name == "host":
            raise HandshakeError(400, "The request has more than one Host header.")
        else:
            headers[name] = f"{headers[name]}, {value}"
    return headers


def _require_upgrade(headers: dict[str, str]) -> None:
    """Check the headers that make a request an opening handshake, in the order of RFC 6455 section 4.2.1."""
    if not headers.get("host"):
        raise HandshakeError(400, "The Host header is missing.")
    # What follows the head is read as frames. A body would be taken for them, or they for a body by a proxy.
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise HandshakeError(400, "An upgrade request has no body.")
    if "websocket" not in _tokens(headers.get("upgrade", "").lower()):
        raise HandshakeError(400, "The Upgrade header does not name websocket.")
    if "upgrade" not in _tokens(headers.get("connection", "").lower()):
        raise HandshakeError(400, "The Connection header does not name upgrade.")
    # The version comes before the key: another version may well have another key (section 4.4).
    if headers.get("sec-websocket-version") != _VERSION:
        reason = f"The Sec-WebSocket-Version must be {_VERSION}."
        # A 426 has to name the protocol to upgrade to (RFC 9110 section 15.5.22).
        upgrade = (("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", _VERSION))
        raise HandshakeError(426, reason, upgrade)
    if not _is_nonce(headers.get("sec-websocket-key", "")):
        raise HandshakeError(400, "The Sec-WebSocket-Key is not base64 of 16 bytes.")


def _is_nonce(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        return False


def _tokens(value: str) -> list[str]:
    """Split a comma-separated list; empty elements do not count (RFC 9110 section 5.6.1)."""
    return [token for part in value.split(",") if (token := part.strip(" \t"))]


def _head(status: HTTPStatus, headers: Headers) -> bytes:
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") + _lines(headers) + b"\r\n"


def _lines(headers: Headers) -> bytes:
    lines = []
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            # The value is left out of the text: it may be a token.
            raise ValueError(f"the header {name!r} cannot be written as it is")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1")
