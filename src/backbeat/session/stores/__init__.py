"""Where a session is kept: one page of contract, and three places that keep it."""

from backbeat.session.stores.file import FileStore
from backbeat.session.stores.keyring import KeyringStore
from backbeat.session.stores.memory import MemoryStore
from backbeat.session.stores.store import SessionStore

__all__ = ["FileStore", "KeyringStore", "MemoryStore", "SessionStore"]
