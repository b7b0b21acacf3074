"""A process of the load client: reads orders, one line each, and answers them one after the other.

    python -m backbeat.load.worker [--tell FD] [--hear FD …]

With several processes, all but the first tell through a pipe how many messages their members have got; the
first one, which sends, hears them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
import uvloop

from backbeat.load.crowd import Crowd
from backbeat.load.file_limit import raise_file_limit
from backbeat.load.orders import Answer, Close, Open, Order, Run, Settle

__all__ = ["main"]

MAX_LINE: Final = 1 << 22
_COUNT: Final = struct.Struct(">8sQ")
"""A run, and how many of its messages have arrived."""


class Worker:
    """Carries orders out.

    Args:
        tell: where to tell how many messages have arrived, if another process sends.
    """

    def __init__(self, tell: int | None = None) -> None:
        self._tell = tell
        self._crowds: dict[str, Crowd] = {}
        self._active: Crowd | None = None

    async def obey(self, order: Order) -> Answer:
        """Carry out one order."""
        match order:
            case Open():
                self._crowds[order.side] = Crowd(self._told)
                return await self._crowds[order.side].open(order)
            case Run():
                self._active = self._crowds[order.side]
                return await self._active.measure(order)
            case Settle():
                return await self._crowds[order.side].settle(order)
            case Close():
                return await self._crowds.pop(order.side).close()

    def hear(self, process: int, pipe: int) -> None:
        """Read what another process tells."""
        data = os.read(pipe, 4096 * _COUNT.size)
        if data and self._active is not None:
            self._active.peer(process, *_COUNT.unpack(data[-_COUNT.size :]))

    def _told(self, run: bytes, messages: int) -> None:
        if self._tell is not None:
            os.write(self._tell, _COUNT.pack(run, messages))


async def work(tell: int | None, hear: list[int]) -> None:
    """Carry out orders until there are no more."""
    loop = asyncio.get_running_loop()
    worker = Worker(tell)
    for process, pipe in enumerate(hear, 1):
        loop.add_reader(pipe, worker.hear, process, pipe)
    orders = asyncio.StreamReader(limit=MAX_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    decode: Callable[[bytes], Order] = partial(msgspec.json.decode, type=Order)
    while line := await orders.readline():
        answer = await worker.obey(decode(line))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tell", type=int)
    parser.add_argument("--hear", type=int, nargs="*", default=[])
    options = parser.parse_args()
    raise_file_limit()
    # Whoever gave the orders may be gone.
    with suppress(BrokenPipeError):
        uvloop.run(work(options.tell, options.hear))


if __name__ == "__main__":
    main()
