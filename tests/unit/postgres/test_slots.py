"""Where a stream goes on in its slot."""

from __future__ import annotations

import pytest

from backbeat.postgres.slots import Position, fork_of, resume_at

HANDLED = Position("cluster", 1, 500)


@pytest.mark.parametrize(
    ("resume", "here", "confirmed", "fork", "expected"),
    [
        pytest.param(None, ("cluster", 1), 400, None, (("cluster", 1, 0), False), id="first"),
        pytest.param(HANDLED, ("cluster", 1), 400, None, (HANDLED, False), id="the same history"),
        pytest.param(HANDLED, ("cluster", 1), 501, None, (HANDLED, True), id="read by others"),
        pytest.param(HANDLED, ("cluster", 2), 400, 600, (("cluster", 2, 500), False), id="promoted"),
        pytest.param(
            HANDLED, ("cluster", 2), 501, 600, (("cluster", 2, 500), True), id="promoted, read by others"
        ),
        pytest.param(HANDLED, ("cluster", 2), 400, 450, (("cluster", 2, 450), True), id="promoted too early"),
        pytest.param(HANDLED, ("cluster", 2), 400, None, (("cluster", 2, 0), True), id="another history"),
        pytest.param(HANDLED, ("other", 1), 400, None, (("other", 1, 0), True), id="another cluster"),
        pytest.param(
            HANDLED, ("other", 2), 400, 600, (("other", 2, 0), True), id="another cluster, promoted"
        ),
    ],
)
def test_where_a_durable_slot_goes_on(
    resume: Position | None,
    here: tuple[str, int],
    confirmed: int,
    fork: int | None,
    expected: tuple[Position, bool],
) -> None:
    """A position counts as far as the histories are the same; what is missing or never happened is a gap."""
    assert resume_at(resume, Position(*here, 0), confirmed, fork) == expected


HISTORY = "1\t0/3000A68\tno recovery target specified\n\n2\t1A/C0000028\tbefore 2026-01-01 00:00:00+00\n"


@pytest.mark.parametrize(("timeline", "fork"), [(1, 0x3000A68), (2, 0x1AC0000028), (3, None)])
def test_where_a_timeline_was_left(timeline: int, fork: int | None) -> None:
    """Two numbers with a slash are one of 64 bits; a timeline that is not there was never left."""
    assert fork_of(HISTORY, timeline) == fork
