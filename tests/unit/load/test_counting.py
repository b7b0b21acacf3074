"""Receipts, windows and histograms: every message once, so many in flight, and how long they took."""

from __future__ import annotations

import pytest

from backbeat.load.histogram import Histogram
from backbeat.load.receipts import Receipts
from backbeat.load.window import Window
from backbeat.load.wire import Digest


def took(*pieces: list[int]) -> Receipts:
    """The receipts of a member that read these pieces."""
    receipts = Receipts()
    for numbers in pieces:
        receipts.take(Digest(numbers, [0] * len(numbers), []))
    return receipts


def test_everything_once_is_all_right() -> None:
    """In pieces of any size."""
    receipts = took([0, 1, 2], [3], [4, 5])
    assert (receipts.missing(6), receipts.repeated) == (0, 0)


def test_a_message_that_did_not_come_is_missing() -> None:
    """In the middle or at the end."""
    receipts = took([0, 1], [3])
    assert receipts.missing(6) == 3


def test_a_message_that_came_late_is_not_missing() -> None:
    """Servers with several nodes may change the order."""
    receipts = took([0, 2], [1])
    assert (receipts.missing(3), receipts.repeated) == (0, 0)


@pytest.mark.parametrize("pieces", [([0, 1], [1]), ([0, 0, 1],), ([0, 1], [0, 1, 2]), ([0, 2], [1], [1])])
def test_a_message_that_comes_again_is_repeated(pieces: tuple[list[int], ...]) -> None:
    """And is no new one."""
    receipts = Receipts()
    new = sum(receipts.take(Digest(numbers, [0] * len(numbers), [])) for numbers in pieces)
    assert new == len({number for numbers in pieces for number in numbers})
    assert receipts.repeated == sum(map(len, pieces)) - new


def test_one_message_in_flight_waits_for_every_member() -> None:
    """The next goes out when the last member has it."""
    window = Window(1, [3])
    assert window.take() == 1
    assert window.next_look(0) == 3
    assert window.take() == 0
    window.arrived(0, 1)
    assert window.take() == 1
    assert window.next_look(0) == 6


def test_a_larger_window_is_refilled_by_halves() -> None:
    """Messages go out a few at a time."""
    window = Window(8, [10])
    assert window.take() == 8
    window.arrived(0, 3)
    assert window.take() == 0
    window.arrived(0, 4)
    assert window.take() == 4
    assert window.sent == 12


def test_a_window_over_processes_waits_for_the_slowest() -> None:
    """What arrived is what arrived everywhere."""
    window = Window(2, [5, 7])
    assert window.take() == 2
    window.arrived(0, 2)
    assert window.take() == 0
    window.arrived(1, 1)
    assert window.take() == 1


def test_percentiles_are_exact_for_short_times() -> None:
    """In milliseconds, of nanoseconds."""
    histogram = Histogram()
    for microseconds in range(1, 101):
        histogram.add(microseconds * 1000)
    assert (histogram.percentile(0.5), histogram.percentile(0.99)) == (0.050, 0.099)


@pytest.mark.parametrize("milliseconds", [0.2, 3.3, 47.0, 900.0, 60_000.0])
def test_percentiles_are_close_for_long_times(milliseconds: float) -> None:
    """Within two percent."""
    histogram = Histogram()
    histogram.add(int(milliseconds * 1e6))
    assert histogram.percentile(0.5) == pytest.approx(milliseconds, rel=0.02)


def test_histograms_of_processes_add_up() -> None:
    """Counts of one are added to another."""
    first, second = Histogram(), Histogram()
    first.add(10_000)
    second.add(30_000)
    second.add(30_000)
    first.update(second.counts)
    assert (len(first), first.percentile(0.5)) == (3, 0.030)


def test_a_histogram_of_nothing_has_no_percentile() -> None:
    """There is no such number."""
    with pytest.raises(ValueError, match="nothing was counted"):
        Histogram().percentile(0.5)
