"""Frames: whatever arrives, and however it is cut, both parsers hear the same."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.fuzz.mutate import mutate, shrink
from tests.unit.websocket.second_opinion import agree, turned
from tests.unit.websocket.test_frames_differential import WIRES

LIMITS: Final = (0, 1, 4, 100, 200, 70_000)
WORDS: Final = tuple(
    bytes.fromhex(word)
    for word in (
        *("00", "01", "7d", "7e", "7f", "80", "81", "82", "88", "89", "8a", "c1", "fe", "ff", "8180", "0080"),
        *("fe007d", "fe007e", "feffff", "ff0000000000010000", "ff8000000000000000", "ff0000000000000001"),
        *("03e8", "03ed", "0bb8", "eda080", "f0908080", "c3"),
    )
)
SEEDS: Final = {"server": tuple(WIRES.values()), "client": tuple(turned(wire) for wire in WIRES.values())}


def play(random: Random) -> str | None:
    """Play one case; return what was wrong with it."""
    by = random.choice(tuple(SEEDS))
    limit = random.choice(LIMITS)
    wire = mutate(random, SEEDS[by], WORDS)
    if random.random() < 0.2:
        cuts = list(range(len(wire)))
    else:
        cuts = [random.randrange(len(wire) + 1) for _ in range(random.randrange(8))]

    def difference(data: bytes) -> str | None:
        try:
            agree(data, cuts, max_message=limit, by=by)
        except AssertionError as error:
            return f"{error}, limit {limit}"
        return None

    if difference(wire) is None:
        return None
    return difference(shrink(wire, lambda data: difference(data) is not None))
