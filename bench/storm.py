"""A reconnect storm: thousands of sockets drop at once, come back within a second, and join again.

    python bench/storm.py [--connections 10000] [--rooms 1000] [--rounds 3]

Starts `backbeat serve`. Two other processes are its clients: one makes the storm, one watches with sockets of
its own that stay. It sends heartbeats and tells how long the slowest took to be answered, in the storm and,
as the opponent in the same run, in the calm before. Public channels need no database, so there is none.

A connect or a join that is refused or lost, or a count of users, channels or rooms that is not what it was,
ends the bench.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

import uvloop

from backbeat.load.file_limit import raise_file_limit
from backbeat.tokens.keys import ApiKeys
from backbeat.websocket.frames import Opcode, client_frame

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - publicly known
HOST, PORT = "127.0.0.1", 26_861
WATCHERS: Final = 100
BEAT: Final = 0.5
"""Seconds between the heartbeats of a watcher."""

RETURN: Final = 1.0
"""Seconds in which all come back."""

PATIENCE: Final = 60.0
CALM: Final = 2.0
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

HEAD = (
    f"GET /socket/websocket?vsn=2.0.0&apikey={ApiKeys.of(SECRET).anon} HTTP/1.1\r\nHost: {HOST}\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
).encode()
HEARTBEAT = client_frame(Opcode.TEXT, b'[null,"1","phoenix","heartbeat",{}]', b"mask")


def push_join(topic: str) -> bytes:
    """The frame that joins a topic."""
    return client_frame(
        Opcode.TEXT, json.dumps(["1", "1", topic, "phx_join", {"config": {}}]).encode(), b"mask"
    )


class Client(asyncio.Protocol):
    """A socket that joins a topic.

    Args:
        topic: which.
    """

    def __init__(self, topic: str) -> None:
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.beaten = 0.0
        """When the heartbeat was sent that is not answered yet; 0 for none."""
        self.latest = 0.0
        """Seconds that the slowest answer took."""
        self._topic = topic
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the socket."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(HEAD)

    def data_received(self, data: bytes) -> None:
        """Join when the socket is open; then, there are only answers to heartbeats."""
        if self.joined.done():
            self._answered()
        elif b'"status":"ok"' in data:
            self.joined.set_result(None)
        elif data.startswith(b"HTTP/1.1 101 ") and self._transport is not None:
            self._transport.write(push_join(self._topic))
        else:
            self.joined.set_exception(SystemExit(f"Refused: {data!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is refused, and nobody is dropped before it joined."""
        if not self.joined.done():
            self.joined.set_exception(SystemExit(f"Lost before it joined: {exc}"))

    def beat(self) -> None:
        """Send a heartbeat, unless one is on its way."""
        if not self.beaten and self._transport is not None:
            self.beaten = time.perf_counter()
            self._transport.write(HEARTBEAT)

    def _answered(self) -> None:
        self.latest = max(self.latest, time.perf_counter() - self.beaten)
        self.beaten = 0.0

    def reset(self) -> None:
        """Vanish: without the state that a close would leave in the kernel for a minute."""
        if self._transport is not None:
            kernel = self._transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()


async def arrive(topic: str, delay: float = 0.0) -> Client:
    """Connect after a while, and join."""
    await asyncio.sleep(delay)
    while True:
        try:
            _, client = await asyncio.get_running_loop().create_connection(lambda: Client(topic), HOST, PORT)
        except ConnectionError:
            # The server is not there yet, or its backlog is full.
            await asyncio.sleep(0.05)
        else:
            async with asyncio.timeout(PATIENCE):
                await client.joined
            return client


# Watching ---------------------------------------------------------------------------------------------------


async def watch() -> None:
    """Send heartbeats, and write the time of the slowest whenever a line is read, until there is none."""
    loop = asyncio.get_running_loop()
    watchers = [await arrive(f"realtime:watch-{number}") for number in range(WATCHERS)]
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)

    async def beat(watcher: Client, number: int) -> None:
        await asyncio.sleep(BEAT * number / WATCHERS)
        while True:
            watcher.beat()
            await asyncio.sleep(BEAT)

    beating = [asyncio.create_task(beat(watcher, number)) for number, watcher in enumerate(watchers)]
    print("watching", flush=True)
    while await lines.readline():
        now = time.perf_counter()
        waiting = [now - watcher.beaten for watcher in watchers if watcher.beaten]
        print(max([watcher.latest for watcher in watchers] + waiting), flush=True)
        for watcher in watchers:
            watcher.latest = 0.0
    for task in beating:
        task.cancel()


@contextmanager
def watching() -> Iterator[subprocess.Popen[str]]:
    """Run the watchers."""
    command = [sys.executable, __file__, "--watch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        cast("IO[str]", process.stdin).close()


async def slowest(process: subprocess.Popen[str]) -> float:
    """Seconds that the slowest heartbeat since the last look took to be answered."""
    cast("IO[str]", process.stdin).write("\n")
    cast("IO[str]", process.stdin).flush()
    return float(await asyncio.to_thread(cast("IO[str]", process.stdout).readline))


# The storm --------------------------------------------------------------------------------------------------


@contextmanager
def server() -> Iterator[None]:
    """Run the installed command, without the limits that would be in the way."""
    flags = {
        "port": PORT,
        "jwt-secret": SECRET,
        "database-url": "postgresql://nobody@127.0.0.1:1/none",
        "max-concurrent-users": 0,
        "max-joins-per-second": 0,
    }
    command = [str(Path(sys.executable).parent / "backbeat"), "serve"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        yield
        process.terminate()


async def counts() -> dict[str, int]:
    """Who the server says is there."""
    reader, writer = await asyncio.open_connection(HOST, PORT)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    names = "backbeat_users", "backbeat_channels", "backbeat_rooms"
    return {
        name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE) if name in names
    }


async def counted(before: dict[str, int]) -> None:
    """Wait until the server counts as many as it did."""
    ends = time.monotonic() + PATIENCE
    while (now := await counts()) != before:
        if time.monotonic() > ends:
            raise SystemExit(f"There were {before}, and now there are {now}.")
        await asyncio.sleep(0.05)


async def storm(options: argparse.Namespace, watchers: subprocess.Popen[str]) -> None:
    """Let them come, drop and come back, and print how that was."""
    await asyncio.to_thread(cast("IO[str]", watchers.stdout).readline)
    topics = [f"realtime:room-{number % options.rooms}" for number in range(options.connections)]
    pace = RETURN / options.connections
    crowd = await asyncio.gather(*(arrive(topic, pace * n) for n, topic in enumerate(topics)))
    before = await counts()
    if before["backbeat_users"] != options.connections + WATCHERS:
        raise SystemExit(f"Not everybody is there: {before}")
    for _ in range(options.rounds):
        await slowest(watchers)
        await asyncio.sleep(CALM)
        calm = await slowest(watchers)
        for client in crowd:
            client.reset()
        started = time.perf_counter()
        crowd = await asyncio.gather(*(arrive(topic, pace * n) for n, topic in enumerate(topics)))
        took = time.perf_counter() - started
        in_storm = await slowest(watchers)
        await counted(before)
        print(
            f"{len(crowd)} sockets back after {took:5.2f} s, {len(crowd) / took:6.0f} joins/s"
            f"   slowest heartbeat {in_storm * 1000:6.1f} ms, in the calm {calm * 1000:6.1f} ms"
            f"   ratio {in_storm / calm:5.1f}   {before['backbeat_users']} users, as before",
            flush=True,
        )


def main() -> None:
    """Run the server, the watchers and the storm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rooms", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        uvloop.run(watch())
        return
    # The server inherits it.
    if (files := raise_file_limit()) < options.connections + WATCHERS + 100:
        raise SystemExit(f"A process may have {files} open files, which is too few; see ulimit -n.")
    with server(), watching() as watchers:
        uvloop.run(storm(options, watchers))


if __name__ == "__main__":
    main()
