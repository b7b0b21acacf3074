"""What /proc tells."""

from __future__ import annotations

from backbeat.load.processes import cpu_seconds, listening_inodes, names

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:D431 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 777 1 0 100
   1: 0100007F:D431 0100007F:A2C4 01 00000000:00000000 00:00000000 00000000  1000        0 888 1 0 20 4
   2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 999 1 0 100
"""


def test_only_who_listens_on_the_port_is_found() -> None:
    """Not its connections, and not other ports."""
    assert listening_inodes(TABLE.splitlines(), 54321) == {"777"}


def test_nothing_is_known_of_nobody() -> None:
    """Nor of a process that is gone."""
    assert cpu_seconds([]) is None
    assert cpu_seconds([2**30]) is None
    assert names([2**30]) == []
