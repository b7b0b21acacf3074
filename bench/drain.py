"""How long a server takes to say goodbye: from SIGTERM until the last of 1,000 sockets is closed.

    python bench/drain.py [--sockets 1000] [--rounds 3]

Starts `backbeat serve`, opens the sockets, joins a channel with each, and stops the server. The opponent, in
turns in the same run, is the `ws` package of Node, which closes as many sockets with the same code and has no
channels to tell; where Node or `ws` is missing it is our own server with one socket. Public channels need no
database, so there is none.

The clients are the same for both, and answer each close frame. A close that is not 1012 ends the comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import websockets
from websockets.exceptions import ConnectionClosedError

from backbeat.tokens.keys import ApiKeys

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - publicly known
PORT, NODE_PORT = 26_841, 26_842
NOBODY = "postgresql://nobody@127.0.0.1:1/none"
MODULES: Final = Path(__file__).parents[1] / "tests" / "interop" / "node_modules"
SERVICE_RESTART = 1012
AT_ONCE = 50
"""How many sockets are being opened at the same time."""

OURS = f"ws://127.0.0.1:{PORT}/socket/websocket?vsn=2.0.0&apikey={ApiKeys.of(SECRET).anon}"
THEIRS = f"ws://127.0.0.1:{NODE_PORT}/"
JOIN = json.dumps(["1", "1", "realtime:room", "phx_join", {"config": {}}])

NODE_SERVER = f"""
const {{ WebSocketServer }} = require({json.dumps(str(MODULES / "ws"))});
const server = new WebSocketServer({{ port: {NODE_PORT}, host: "127.0.0.1" }});
server.on("connection", (socket) => socket.on("message", (data) => socket.send(data)));
process.on("SIGTERM", () => {{
  server.close(() => process.exit());
  for (const socket of server.clients) socket.close({SERVICE_RESTART});
}});
"""
"""Like ours it answers what it is sent, so that a client knows when it is being served."""


@contextmanager
def running(command: Sequence[object]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, which is expected to have ended by itself when the block ends."""
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
    try:
        yield process
        process.wait(20)
    finally:
        process.kill()
        process.wait()


async def connect(url: str, turn: asyncio.Semaphore) -> websockets.ClientConnection:
    """Open a socket and wait for an answer; tried again until the server is there."""
    async with turn:
        while True:
            try:
                socket = await websockets.connect(url, compression=None, ping_interval=None)
                break
            except OSError:
                await asyncio.sleep(0.02)
        await socket.send(JOIN)
        await socket.recv()
        return socket


async def read_to_the_end(socket: websockets.ClientConnection) -> None:
    """Take what comes until the server closes."""
    with suppress(ConnectionClosedError):
        async for _ in socket:
            pass
    await socket.wait_closed()
    if socket.close_code != SERVICE_RESTART:
        raise SystemExit(f"A socket was closed with {socket.close_code}.")


async def drain(url: str, sockets: int, process: subprocess.Popen[bytes]) -> float:
    """Open sockets, stop the server, and wait for every close.

    Returns:
        Seconds from the signal to the last close.
    """
    turn = asyncio.Semaphore(AT_ONCE)
    clients = await asyncio.gather(*(connect(url, turn) for _ in range(sockets)))
    reading = [asyncio.create_task(read_to_the_end(client)) for client in clients]
    await asyncio.sleep(0)
    started = time.perf_counter()
    process.terminate()
    await asyncio.gather(*reading)
    return time.perf_counter() - started


def ours(sockets: int) -> float:
    """Measure our server, without the limits that would be in the way."""
    command: list[object] = [Path(sys.executable).parent / "backbeat", "serve", "--port", PORT]
    command += ["--jwt-secret", SECRET, "--database-url", NOBODY]
    command += ["--max-concurrent-users", 0, "--max-joins-per-second", 0]
    with running(command) as process:
        return asyncio.run(drain(OURS, sockets, process))


def theirs(node: str, sockets: int) -> float:
    """Measure Node with `ws`."""
    with running([node, "-e", NODE_SERVER]) as process:
        return asyncio.run(drain(THEIRS, sockets, process))


def main() -> None:
    """Compare, and print both times and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    node = shutil.which("node")
    with_node = node if node is not None and (MODULES / "ws").is_dir() else None
    opponent = f"node ws, {options.sockets} sockets" if with_node else "ours, 1 socket"
    measured: list[tuple[float, float]] = []
    for _ in range(options.rounds):
        own = ours(options.sockets)
        measured.append((own, theirs(with_node, options.sockets) if with_node else ours(1)))
    own_times, other_times = zip(*measured, strict=True)
    ratios = sorted(own / other for own, other in measured)
    print(
        f"ours, {options.sockets} sockets {statistics.median(own_times) * 1000:6.0f} ms"
        f"   {opponent} {statistics.median(other_times) * 1000:6.0f} ms"
        f"   ratio {statistics.median(ratios):4.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


if __name__ == "__main__":
    main()
