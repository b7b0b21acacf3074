"""Play cases at random until there were enough: `python -m tests.fuzz --cases 1000000`."""

from __future__ import annotations

import argparse
import sys
import time
from random import Random, SystemRandom

from tests.fuzz import frames, heads


def main() -> int:
    """Play, and stop at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="of each kind")
    parser.add_argument("--seed", type=int, help="random unless given")
    options = parser.parse_args()
    seed = SystemRandom().randrange(2**32) if options.seed is None else options.seed
    random = Random(seed)  # noqa: S311 - to be had again
    started = time.monotonic()
    for number in range(options.cases):
        for fuzzer in (frames, heads):
            if wrong := fuzzer.play(random):
                print(f"case {number} of seed {seed}: {wrong}")
                return 1
    print(f"{options.cases} wires and as many heads from seed {seed}, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
