"""Every case has the verdict that docs/conformance.md says it has."""

from __future__ import annotations

import pytest
import uvloop
from tests.conformance.cases import Case
from tests.conformance.document import PAGE, page
from tests.conformance.run import CASES, Result, run

# They are run by whichever test is first.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """What became of every case: they are run together, for a third of the time is waiting."""
    return {result.case.number: result for result in uvloop.run(run())}


@pytest.fixture(scope="module")
def documented() -> dict[str, str]:
    """The verdicts on the page."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines()]
    return {row[0]: row[-1] for row in rows if row[0][:1].isdigit() and len(row) == 4}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_case(case: Case, results: dict[str, Result], documented: dict[str, str]) -> None:
    """The server treats what a client may send as the page says."""
    result = results[case.number]
    assert result.verdict == documented[case.number], result.note


def test_the_page_is_the_current_one(results: dict[str, Result]) -> None:
    """`make conformance` has been run since the cases or their verdicts changed."""
    assert PAGE.read_text() == page(list(results.values()))
