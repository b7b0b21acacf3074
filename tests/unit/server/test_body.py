"""Bodies with a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backbeat.server.body import collect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Chunks:
    """A body that arrives in pieces, and how many of them were read."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.read += 1
            yield piece


async def test_a_body_may_be_as_large_as_the_limit() -> None:
    """All of it is returned, in order."""
    assert await collect(Chunks(b"ab", b"", b"c"), most=3, too_large=ValueError()) == b"abc"


async def test_the_rest_of_a_body_that_is_too_large_is_not_read() -> None:
    """One byte too many ends it."""
    chunks = Chunks(b"ab", b"cd", b"ef")
    with pytest.raises(ValueError, match="too large"):
        await collect(chunks, most=3, too_large=ValueError("too large"))
    assert chunks.read == 2
