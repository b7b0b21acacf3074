"""How many files this process may have open; each connection is one."""

from __future__ import annotations

import resource
from typing import Final

__all__ = ["raise_file_limit"]

MAX_FILES: Final = 1 << 17
"""Files asked for where there is no limit: macOS refuses to be asked for more than it has."""


def raise_file_limit() -> int:
    """Allow this process as many open files as it may have; return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else hard
    while soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            wanted //= 2
        else:
            return wanted
    return soft if soft != resource.RLIM_INFINITY else MAX_FILES
