"""The plainest server there can be, to compare with: it writes each broadcast to each member, no more.

    python -m backbeat.load.baseline

Prints its port, and serves until its input ends. The same language, event loop and framing as the server of
Backbeat, and nothing else: no keys, no JSON, no limits, no presence, no accounting, and one `write` for each
delivery.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable
from typing import Final, cast

import uvloop

from backbeat.load.file_limit import raise_file_limit
from backbeat.protocol.messages import PHOENIX
from backbeat.websocket.frames import Close, FrameParser, Text, text_frame
from backbeat.websocket.handshake import END_OF_HEAD, accept, parse_head

__all__ = ["Connection", "main"]

MAX_MESSAGE: Final = 1 << 20
_HEAD: Final = re.compile(rb'\[(null|"[^"]*"),("[^"]*"),"([^"]*)","([^"]*)",')


class Connection(asyncio.Protocol):
    """One client.

    Args:
        topics: the connections that have joined, by topic.

    Attributes:
        write: writes bytes.
    """

    def __init__(self, topics: dict[bytes, dict[Connection, None]]) -> None:
        self._topics = topics
        self._joined: list[bytes] = []
        self._parser: FrameParser | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write

    def data_received(self, data: bytes) -> None:
        """Answer the handshake, then frames."""
        if self._parser is None:
            head, end, data = data.partition(END_OF_HEAD)
            self.write(accept(parse_head(head + end)))
            self._parser = FrameParser(max_message=MAX_MESSAGE)
        for event in self._parser.feed(data):
            if isinstance(event, Text):
                self._message(event.payload)
            elif isinstance(event, Close):
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave."""
        del exc
        for topic in self._joined:
            self._topics[topic].pop(self, None)

    def publish(self, members: Iterable[Connection], frame: bytes) -> None:
        """Write a broadcast to every member."""
        for member in members:
            member.write(frame)

    def _message(self, text: bytes) -> None:
        match = _HEAD.match(text)
        if match is None:
            return
        join_ref, ref, topic, event = match.groups()
        if event == b"broadcast":
            self.publish(self._topics[topic], text_frame(text))
            return
        if topic != PHOENIX.encode():
            self._topics.setdefault(topic, {})[self] = None
            self._joined.append(topic)
        reply = b'[%b,%b,"%b","phx_reply",{"status":"ok","response":{}}]'
        self.write(text_frame(reply % (join_ref, ref, topic)))


async def serve() -> None:
    """Serve until nobody wants it any more."""
    loop = asyncio.get_running_loop()
    topics: dict[bytes, dict[Connection, None]] = {}
    server = await loop.create_server(lambda: Connection(topics), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ended), sys.stdin)
    await ended.read()


def main() -> None:
    """Run."""
    raise_file_limit()
    uvloop.run(serve())


if __name__ == "__main__":
    main()
