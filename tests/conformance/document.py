"""The tables of docs/conformance.md; nothing in them depends on how fast the machine is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.conformance.cases import DEFAULT_LIMIT, Case, Verdict
from tests.conformance.run import Result

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"

SECTIONS: Final = {
    1: "Framing",
    2: "Pings and pongs",
    3: "Reserved bits",
    4: "Opcodes",
    5: "Fragmentation",
    6: "UTF-8",
    7: "Closing",
    9: "Limits and performance",
    10: "Automatic fragmentation",
}

MARK: Final = "<!-- What follows is written by make conformance. -->\n"
HEAD: Final = "| Case | Sent | Has to come back | Verdict |\n|---|---|---|---|\n"


def page(results: Sequence[Result]) -> str:
    """Write the tables of the page anew, under the prose that stands there."""
    prose, mark, _ = PAGE.read_text().partition(MARK)
    assert mark, "the page has no place for its tables"
    parts = [prose, mark, "\n", *_totals(results)]
    for section, group in groupby(results, key=lambda result: result.case.section):
        parts.append(f"\n## {section}. {SECTIONS[section]}\n\n{HEAD}")
        parts += [_row(result.case, result.verdict) for result in group]
    return "".join(parts)


def _row(case: Case, verdict: Verdict) -> str:
    limit = "" if case.max_frame == DEFAULT_LIMIT else f", to a server that takes {case.max_frame >> 20} MiB"
    return f"| {case.number} | {case.sent}{limit} | {case.expected} | {verdict} |\n"


def _totals(results: Iterable[Result]) -> Iterable[str]:
    counts = Counter((result.case.section, result.verdict) for result in results)
    verdicts = [verdict for verdict in Verdict if verdict is not Verdict.FAILED or _of(counts, verdict)]
    yield f"| Section | {' | '.join(verdicts)} | Cases |\n|---|{'---|' * (len(verdicts) + 1)}\n"
    for section, name in SECTIONS.items():
        row = [counts[section, verdict] for verdict in verdicts]
        yield f"| {section}. {name} | {' | '.join(map(str, row))} | {sum(row)} |\n"
    row = [_of(counts, verdict) for verdict in verdicts]
    yield f"| All | {' | '.join(map(str, row))} | {sum(row)} |\n"


def _of(counts: Counter[tuple[int, Verdict]], verdict: Verdict) -> int:
    return sum(count for (_, each), count in counts.items() if each is verdict)
