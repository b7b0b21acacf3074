"""The server and the database of the server's own tests."""

from tests.integration.server.conftest import database, server, settings

__all__ = ["database", "server", "settings"]
