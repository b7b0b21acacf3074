"""A cancellation that a library lost on the way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["unless_cancelled"]

T = TypeVar("T")


async def unless_cancelled(work: Awaitable[T]) -> T:
    """Await something, and go no further when the task was cancelled meanwhile.

    Before Python 3.12 `asyncio.wait_for`, which the pool of psycopg waits with, drops a cancellation that
    comes in the same turn as what it waits for. A channel that ended would then be let into its room, for
    ever.

    Args:
        work: what to await.

    Raises:
        CancelledError: the task was cancelled, whatever came of the work.
    """
    try:
        return await work
    finally:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
