"""The processes of a run: those that make the load, and the baseline."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Final, Self

import msgspec

from backbeat.errors import StartError
from backbeat.load.orders import Answer, Order

__all__ = ["Crew", "Helper"]

MAX_LINE: Final = 1 << 22
PATIENCE: Final = 5.0
"""Seconds a process has to end when its input does."""


class Helper:
    """A process of our own, which ends when its input does: also when this one is killed.

    Args:
        module: what it runs.
        arguments: its arguments.
        pipes: file descriptors it is given.
    """

    def __init__(self, module: str, *arguments: str, pipes: Sequence[int] = ()) -> None:
        self._module = module
        self._arguments = arguments
        self._pipes = pipes
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        # Ctrl-C on a terminal goes to all of a group; these end when they are told to.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            self._module,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=self._pipes,
            start_new_session=True,
            limit=MAX_LINE,
        )
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        if kind is not None and process.returncode is None:
            # What it was told to do may take a while, and nobody waits for it any more.
            process.kill()
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    async def read(self) -> bytes:
        """Read a line.

        Raises:
            StartError: there is none: the process ended.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            code = await self._process.wait()
            raise StartError(
                f"A process of the benchmark ({self._module}) ended with code {code}.",
                hint="What it said about it stands above.",
            )
        return line

    def write(self, line: bytes) -> None:
        """Write a line."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")


class Crew:
    """The processes that make the load.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._workers: list[Helper] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        pipes = [os.pipe() for _ in range(self.size - 1)]
        hear = [read for read, _ in pipes]
        try:
            listed = [str(fd) for fd in hear]
            first = Helper("backbeat.load.worker", *(["--hear", *listed] if hear else []), pipes=hear)
            others = [Helper("backbeat.load.worker", "--tell", str(tell), pipes=[tell]) for _, tell in pipes]
            for worker in (first, *others):
                self._workers.append(await self._stack.enter_async_context(worker))
        except BaseException:
            await self._stack.aclose()
            raise
        finally:
            for pair in pipes:
                for fd in pair:
                    with suppress(OSError):
                        os.close(fd)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def ask(self, orders: Mapping[int, Order]) -> list[Answer]:
        """Give each process an order, and wait for all answers.

        Args:
            orders: what each is to do, by its number.

        Raises:
            StartError: one of them ended.
        """
        for number, order in orders.items():
            self._workers[number].write(msgspec.json.encode(order))
        lines = [await self._workers[number].read() for number in orders]
        return [msgspec.json.decode(line, type=Answer) for line in lines]
