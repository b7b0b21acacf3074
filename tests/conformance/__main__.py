"""Runs every case and writes docs/conformance.md: `python -m tests.conformance`."""

from __future__ import annotations

import logging
import sys
import time

import structlog
import uvloop
from tests.conformance.cases import Verdict
from tests.conformance.document import PAGE, page
from tests.conformance.run import run


def main() -> int:
    """Run, write, and tell what failed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started = time.monotonic()
    results = uvloop.run(run())
    PAGE.write_text(page(results))
    for result in results:
        if result.verdict is not Verdict.OK:
            print(f"{result.case.number:8} {result.verdict}: {result.note}")
    print(f"{len(results)} cases, {time.monotonic() - started:.0f} s, {PAGE}")
    return any(result.verdict is Verdict.FAILED for result in results)


if __name__ == "__main__":
    sys.exit(main())
