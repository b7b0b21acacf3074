"""Bodies of requests and answers, with a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

__all__ = ["collect"]


async def collect(chunks: AsyncIterable[bytes], *, most: int, too_large: Exception) -> bytes:
    """Put a body together; of one that is too large the rest is not read.

    Args:
        chunks: what arrives.
        most: how many bytes it may have.
        too_large: raised when there are more.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > most:
            raise too_large
    return bytes(body)
