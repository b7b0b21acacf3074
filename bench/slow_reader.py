"""What a client that does not read costs the others: their throughput with it, and without.

    python bench/slow_reader.py [--readers 10] [--messages 20000] [--rounds 5]

Starts `backbeat serve`. Some clients join a room and read; one of them sends, as fast as it gets its own
messages back. In every second round one more joins and never reads. Rounds with and without it take turns on
the same server, so that what else the machine does falls on both. Public channels need no database, so there
is none.

Also printed: what the kernel held for the one that did not read before the server had to, and how much larger
the server was at the end than after the first round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import psutil
import uvloop

from backbeat.tokens.keys import ApiKeys
from backbeat.websocket.frames import Opcode, client_frame

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - publicly known
HOST, PORT = "127.0.0.1", 26_851
SMALL_WINDOW = 16_384
"""Bytes of receive buffer of the client that does not read: what the kernel holds is to be on our side."""

AHEAD = 200
"""Messages that the sender is ahead of what it has back."""

PADDING = 1000
"""Bytes of a message beside its frame."""

HEAD = (
    f"GET /socket/websocket?vsn=2.0.0&apikey={ApiKeys.of(SECRET).anon} HTTP/1.1\r\nHost: {HOST}\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
).encode()
SWITCHED = b"HTTP/1.1 101 "
ECHO = {"config": {"broadcast": {"self": True}}}
JOIN = client_frame(Opcode.TEXT, json.dumps(["1", "1", "realtime:room", "phx_join", ECHO]).encode(), b"mask")
MESSAGE = json.dumps(
    [
        "1",
        "2",
        "realtime:room",
        "broadcast",
        {"type": "broadcast", "event": "e", "payload": {"p": "x" * PADDING}},
    ]
)
PUSH = client_frame(Opcode.TEXT, MESSAGE.encode(), b"mask")
MARK = b'"broadcast",{'
"""Stands once in every message."""


class Reader(asyncio.Protocol):
    """A client that counts messages."""

    def __init__(self, messages: int) -> None:
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = 0
        self._rest = b""
        self._to_send = 0
        self._messages = messages
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the socket and join."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(HEAD)

    def data_received(self, data: bytes) -> None:
        """Count what came, and send as much again."""
        if not self.joined.done():
            if data.startswith(SWITCHED) and self._transport is not None:
                self._transport.write(JOIN)
            if b"phx_reply" in data:
                self.joined.set_result(None)
            return
        data = self._rest + data
        count = data.count(MARK)
        # The end of what was counted is not counted again.
        self._rest = data[data.rfind(MARK) + len(MARK) :][-len(MARK) :] if count else data[-len(MARK) :]
        self.received += count
        self._push(count)
        if self.received == self._messages:
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The bench ends with a server that drops those who read."""
        for each in (self.joined, self.done):
            if not each.done():
                each.set_exception(SystemExit(f"A reader was dropped: {exc}."))

    def send(self) -> None:
        """Send all messages, a few ahead of what comes back."""
        self._to_send = self._messages
        self._push(AHEAD)

    def _push(self, count: int) -> None:
        if (count := min(count, self._to_send)) and self._transport is not None:
            self._to_send -= count
            self._transport.write(PUSH * count)

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()


@contextmanager
def server() -> Iterator[subprocess.Popen[bytes]]:
    """Run the installed command, without the limits that would be in the way."""
    command: list[object] = [Path(sys.executable).parent / "backbeat", "serve", "--port", PORT]
    command += ["--jwt-secret", SECRET, "--database-url", "postgresql://nobody@127.0.0.1:1/none"]
    for limit in ("concurrent-users", "joins-per-second", "events-per-second"):
        command += [f"--max-{limit}", 0]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


async def metric(name: str) -> float:
    """One of the server's metrics."""
    reader, writer = await asyncio.open_connection(HOST, PORT)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    found = re.search(rb"^%b (\S+)$" % name.encode(), await reader.read(), re.MULTILINE)
    writer.close()
    if found is None:
        raise SystemExit(f"The server has no metric {name}.")
    return float(found[1])


async def available() -> None:
    """Wait until the server is there."""
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, PORT)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


async def stopped() -> socket.socket:
    """A client that joined and never reads again."""
    loop = asyncio.get_running_loop()
    idler = socket.socket()
    idler.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
    idler.setblocking(False)
    await loop.sock_connect(idler, (HOST, PORT))
    for question, expected in ((HEAD, SWITCHED), (JOIN, b"phx_reply")):
        await loop.sock_sendall(idler, question)
        while expected not in await loop.sock_recv(idler, 4096):
            pass
    return idler


def held_by_kernel(idler: socket.socket) -> int:
    """Bytes that the server wrote to a client and that nobody has read."""
    there, here = f":{PORT:04X}", f":{idler.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if local.endswith(there) and remote.endswith(here):
            return int(queues.partition(":")[0], 16)
    return 0


async def measure(readers: int, messages: int, *, with_idler: bool, look: bool = False) -> tuple[float, int]:
    """Send through a room.

    Args:
        readers: how many read.
        messages: how many are sent.
        with_idler: whether there is one more that does not.
        look: whether to look at what the kernel holds for it, which takes time.

    Returns:
        Messages a second that each reader got, and the most that the kernel was seen to hold.
    """
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Reader(messages), HOST, PORT))[1] for _ in range(readers)
    ]
    await asyncio.gather(*(client.joined for client in clients))
    idler = await stopped() if with_idler else None
    held = 0
    started = time.perf_counter()
    clients[0].send()
    everybody = asyncio.gather(*(client.done for client in clients))
    while look and idler is not None and not everybody.done():
        await asyncio.wait({everybody}, timeout=0.02)
        held = max(held, held_by_kernel(idler))
    await everybody
    rate = messages / (time.perf_counter() - started)
    for client in clients:
        client.close()
    if idler is not None:
        idler.close()
    return rate, held


async def compare(options: argparse.Namespace, process: subprocess.Popen[bytes]) -> None:
    """Measure both in turns, and print the ratio."""
    await available()
    with_idler: list[float] = []
    without: list[float] = []
    sizes: list[int] = []
    # The first round finds cold caches.
    _, held = await measure(options.readers, options.messages, with_idler=True, look=True)
    for _ in range(options.rounds):
        with_idler.append((await measure(options.readers, options.messages, with_idler=True))[0])
        without.append((await measure(options.readers, options.messages, with_idler=False))[0])
        sizes.append(psutil.Process(process.pid).memory_info().rss)
    dropped = await metric("backbeat_slow_readers_total")
    ratios = sorted(with_ / without_ for with_, without_ in zip(with_idler, without, strict=True))
    one, other = statistics.median(with_idler), statistics.median(without)
    print(
        f"{options.readers} readers, with one more that does not read {one:7.0f} messages/s"
        f"   without {other:7.0f}   ratio {statistics.median(ratios):4.2f}"
        f" (from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    print(
        f"dropped {dropped:.0f} of {options.rounds + 1}; the kernel held up to {held / 1024:.0f} KiB for"
        f" one; the server grew by {(sizes[-1] - sizes[0]) / 1024:.0f} KiB"
    )


def main() -> None:
    """Start the server and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readers", type=int, default=10)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with server() as process:
        uvloop.run(compare(options, process))


if __name__ == "__main__":
    main()
