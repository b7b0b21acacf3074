"""Authenticated realtime for Postgres: a server that speaks the Supabase Realtime protocol, and a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backbeat.version import VERSION

if TYPE_CHECKING:
    from backbeat.client import Broadcast, Change, F, Presence, RealtimeClient
    from backbeat.session import AuthContext, FileStore, SessionManager

__all__ = [
    "AuthContext",
    "Broadcast",
    "Change",
    "F",
    "FileStore",
    "Presence",
    "RealtimeClient",
    "SessionManager",
    "__version__",
]

__version__ = VERSION


def __getattr__(name: str) -> Any:
    # The server needs nothing of the client, and does not wait for it to be imported.
    if name in __all__:
        from backbeat import client, session  # noqa: PLC0415

        return getattr(session, name, None) or getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
