"""Heads of requests: what ours accepts, others read as the same request.

A proxy may read a head before we do. If it saw other headers in it than we see, one could be smuggled past
it. So what ours accepts has to be the same to `httptools`, which uvicorn reads it with, and to `h11`. What
ours refuses may be good enough for them: it asks for an upgrade, and they do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

import h11
import httptools
from tests.fuzz.mutate import mutate, shrink

from backbeat.websocket.handshake import HandshakeError, UpgradeRequest, parse_head

HEAD: Final = (
    b"GET /socket/websocket?vsn=2.0.0&apikey=a%20b HTTP/1.1\r\nHost: localhost:4000\r\nUpgrade: websocket\r\n"
    b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)
SEEDS: Final = tuple(
    HEAD + more + b"\r\n"
    for more in (
        b"",
        b"Origin: http://localhost\r\nSec-WebSocket-Protocol: a, b\r\n",
        b"X-Client-Info: a\r\nx-client-info: b\r\nX-Empty:\r\n",
        b"Content-Length: 0\r\nCookie: a=b; c=\xe9\r\n",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    )
)
WORDS: Final = (
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"\0",
        b":",
        b": ",
        b",",
        b"\x0b",
        b"\x7f",
        b"\x80",
        b"\xff",
    ),
    *(b"\r\n ", b"Host: b\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\nContent-Length: 5\r\n"),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"POST",
        b"http://h/",
        b"#",
        b"?",
        b"%",
        b"%ff",
    ),
    *(
        b"Connection: close\r\n",
        b"Upgrade: h2c\r\n",
        b"Upgrade: \r\n",
        b"Connection: \r\n",
        b"+",
        b"00",
        b"+0",
    ),
)


@dataclass
class Read:
    """What somebody read: the target, and the headers in their order."""

    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def joined(self) -> dict[str, str]:
        """The headers as ours keeps them."""
        headers: dict[str, str] = {}
        for name, value in self.headers:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return headers


class _Listener:
    """What `httptools` calls."""

    def __init__(self) -> None:
        self.read = Read()
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.read.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.read.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


def by_httptools(head: bytes) -> Read | None:
    """What uvicorn's parser reads; nothing if it refuses."""
    listener = _Listener()
    try:
        httptools.HttpRequestParser(listener).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    return listener.read if listener.complete else None


def by_h11(head: bytes) -> Read | None:
    """What h11 reads; nothing if it refuses."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(request, h11.Request):
        return None
    return Read(request.target, list(request.headers))


def difference(head: bytes) -> str | None:
    """Tell what is wrong with how ours reads a head."""
    head = head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        mine = parse_head(head)
    except HandshakeError:
        return None
    for read in (by_httptools, by_h11):
        other = read(head)
        if other is None:
            return f"{head!r}: accepted, and refused {read.__name__}"
        if other.joined != mine.headers or not _same_path(mine, other.target):
            return f"{head!r}: {mine.path!r} {mine.headers}, and {read.__name__} {other}"
    return None


def _same_path(mine: UpgradeRequest, target: bytes) -> bool:
    url = httptools.parse_url(target)
    return bool((url.path or b"/") == mine.path.encode("latin-1"))


def play(random: Random) -> str | None:
    """Play one case; return what was wrong with it."""
    head = mutate(random, SEEDS, WORDS)
    if difference(head) is None:
        return None
    return difference(shrink(head, lambda data: difference(data) is not None))
