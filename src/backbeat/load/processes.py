"""What the operating system knows about processes: whose a port is, and how much processor time they used.

Linux tells this in `/proc`; elsewhere nothing is known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["cpu_seconds", "listening_inodes", "names", "owners"]

_PROC: Final = Path("/proc")
_LISTEN: Final = "0A"
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")


def cpu_seconds(pids: Sequence[int]) -> float | None:
    """Seconds of processor time that processes have used so far, together; None if that is not known.

    Args:
        pids: the processes; without any, nothing is known.
    """
    ticks = 0
    try:
        for pid in pids:
            # The name, in parentheses, may hold anything; user and system time are the 14th and 15th field.
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    except OSError:
        return None
    return ticks / os.sysconf("SC_CLK_TCK") if pids else None


def names(pids: Iterable[int]) -> list[str]:
    """What processes are called, with their numbers, as far as it is known."""
    found = []
    for pid in pids:
        with suppress(OSError):
            found.append(f"{pid} ({(_PROC / str(pid) / 'comm').read_text().strip()})")
    return found


def owners(port: int) -> list[int]:
    """The processes that listen on a port, as far as they may be looked at."""
    wanted: set[str] = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            wanted |= listening_inodes((_PROC / "net" / name).read_text().splitlines(), port)
    return [pid for pid in _pids() if wanted & _sockets(pid)] if wanted else []


def listening_inodes(lines: Iterable[str], port: int) -> set[str]:
    """The inodes of sockets that listen on a port.

    Args:
        lines: those of `/proc/net/tcp` or `/proc/net/tcp6`.
        port: the port.
    """
    rows = (line.split() for line in lines)
    return {row[9] for row in rows if len(row) > 9 and row[3] == _LISTEN and row[1].endswith(f":{port:04X}")}


def _pids() -> list[int]:
    return sorted(int(path.name) for path in _PROC.iterdir() if path.name.isdecimal())


def _sockets(pid: int) -> set[str]:
    found: set[str] = set()
    # It may be somebody else's, or end meanwhile.
    with suppress(OSError):
        for path in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                if match := _SOCKET.fullmatch(str(path.readlink())):
                    found.add(match[1])
    return found
