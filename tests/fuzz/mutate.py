"""Changes bytes at random, and makes what failed smaller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

MOST: Final = 5
"""Changes to one input."""


def mutate(random: Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Join some of the seeds, and change the whole a few times, or not at all.

    Args:
        random: where chance comes from.
        seeds: what is worth changing.
        words: what is worth putting somewhere.
    """
    data = b"".join(random.choices(seeds, k=random.choice((1, 1, 2, 3))))
    for _ in range(random.randrange(MOST + 1)):
        start = random.randrange(len(data) + 1)
        end = min(len(data), start + random.choice((0, 1, 1, 2, 4, 16, 64)))
        piece = data[start:end]
        match random.randrange(6):
            case 0:
                piece = b""
            case 1:
                piece = piece * 2
            case 2:
                piece = random.choice(words)
            case 3:
                piece = random.choice(words) + piece
            case 4 if piece:
                piece = bytes((piece[0] ^ 1 << random.randrange(8),)) + piece[1:]
            case _:
                piece = random.randbytes(random.choice((1, 2, 8)))
        data = data[:start] + piece + data[end:]
    return data


def shrink(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Leave bytes out as long as it still fails."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            smaller = data[:at] + data[at + size :]
            if fails(smaller):
                data = smaller
            else:
                at += size
        size //= 2
    return data
