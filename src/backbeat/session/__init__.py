"""Sessions: signed in over HTTP, kept in a store, refreshed before they end, and restored.

`AuthContext` is what most programs need; `SessionManager` is for those who sign in elsewhere.
`docs/sessions.md` has the concepts.

`session`, `policy` and `gotrue` decide, without I/O: what a session is, when it is refreshed, what a failed
refresh means, and what an auth service says. `stores` keep bytes. `kept` is the one place that reads and
writes them, and tells what happened. `rotation` asks for new tokens. `manager` and `context` are what a user
holds.
"""

from backbeat.session.clock import Clock
from backbeat.session.context import AuthContext
from backbeat.session.gotrue import SignOutScope
from backbeat.session.listeners import AuthEvent
from backbeat.session.manager import SessionManager
from backbeat.session.policy import Deferred, Discarded, Refreshed, RefreshResult, Rejected, Unchanged
from backbeat.session.rotation import Refresher
from backbeat.session.session import AuthChange, OfflineSession, Session
from backbeat.session.stores import FileStore, KeyringStore, MemoryStore, SessionStore

__all__ = [
    "AuthChange",
    "AuthContext",
    "AuthEvent",
    "Clock",
    "Deferred",
    "Discarded",
    "FileStore",
    "KeyringStore",
    "MemoryStore",
    "OfflineSession",
    "RefreshResult",
    "Refreshed",
    "Refresher",
    "Rejected",
    "Session",
    "SessionManager",
    "SessionStore",
    "SignOutScope",
    "Unchanged",
]
