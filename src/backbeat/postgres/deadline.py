"""A deadline for a connection whose other end may have vanished without a word."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

__all__ = ["cut", "cut_after"]


@contextmanager
def cut_after(connection: psycopg.AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Cut a connection when the block takes too long: whoever waits for an answer meets its end instead.

    Cancelling would not do: psycopg then asks the other end to cancel, and waits for its answer.

    Args:
        connection: the connection the block waits for.
        seconds: how long the block may take.
    """
    timer = asyncio.get_running_loop().call_later(seconds, cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def cut(connection: psycopg.AsyncConnection[Any]) -> None:
    """End a connection as the network would: whoever reads from it finds its end."""
    if connection.closed:
        return
    # The descriptor stays with libpq, and whoever watches it is woken.
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as line, suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
