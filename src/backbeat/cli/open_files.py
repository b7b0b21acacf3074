"""As many connections as the process may have open files, and not one more.

When a process has none left, the event loop says nothing: libuv takes each connection and closes it at once,
with no word to the client and none to the operator, and the pool of Postgres and the log suffer too. So the
door refuses a connection while there is still a file to do it with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from backbeat.load.file_limit import raise_file_limit

if TYPE_CHECKING:
    from backbeat.server.settings import Settings

__all__ = ["within_open_files"]

log = structlog.get_logger("backbeat")

RESERVE: Final = 50
"""Files that are no connections of clients: libraries, listeners, the database, the log."""

REFUSED: Final = 0.1
"""The part of the rest for those that are refused: each holds its file until it had time to read why."""


def within_open_files(settings: Settings) -> Settings:
    """Let the process open as many files as it may have; return settings that ask for no more than that.

    Args:
        settings: what was asked for. When that is more, the log says so.
    """
    files = raise_file_limit()
    most = max(1, int((files - RESERVE) * (1 - REFUSED)))
    asked = settings.connections.max_connections
    users = settings.limits.max_concurrent_users
    if max(asked, users) > most:
        log.warning(
            "too few open files",
            open_files=files,
            connections=most,
            max_connections=asked,
            max_concurrent_users=users,
            hint="Raise the limit: ulimit -n, LimitNOFILE= of systemd, or --ulimit nofile= of Docker.",
        )
    if 0 < asked <= most:
        return settings
    return replace(settings, connections=replace(settings.connections, max_connections=most))
