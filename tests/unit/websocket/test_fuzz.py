"""A few thousand of the cases that `make fuzz-frames` plays by the million, other ones in every run."""

from __future__ import annotations

from collections.abc import Callable
from random import Random, SystemRandom

import pytest
from tests.fuzz import frames, heads
from tests.fuzz.mutate import shrink

CASES = 3000


@pytest.mark.parametrize("play", [frames.play, heads.play], ids=["frames", "heads"])
def test_nothing_is_read_otherwise(play: Callable[[Random], str | None]) -> None:
    """Frames mean the same to `websockets`, and heads that are accepted to `httptools` and `h11`."""
    seed = SystemRandom().randrange(2**32)
    random = Random(seed)  # noqa: S311 - to be had again
    for number in range(CASES):
        wrong = play(random)
        assert wrong is None, f"case {number} of seed {seed}: {wrong}"


@pytest.mark.parametrize(
    ("line", "accepted"),
    [(b"X-No-Colon", False), (b"X: 1\r\nX: 2", True), (b"X : 1", False), (b"X: a\xff", True)],
)
def test_the_second_readers_judge(line: bytes, accepted: bool) -> None:
    """They refuse what a fuzzer has to find, and read what is right."""
    head = heads.HEAD + line + b"\r\n\r\n"
    assert (heads.by_httptools(head) is not None) is accepted
    assert (heads.by_h11(head) is not None) is accepted


def test_what_failed_is_made_smaller() -> None:
    """Only what it takes to fail is left."""
    assert shrink(b"abcXdefYghi", lambda data: b"X" in data and b"Y" in data) == b"XY"
