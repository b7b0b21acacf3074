"""The server, the database and the auth service of other tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.auth_service import AuthService, serving_auth
from tests.integration.server.conftest import SECRET, database, server, settings
from tests.integration.session.conftest import _cheap_hashes, _no_proxy

__all__ = ["_cheap_hashes", "_no_proxy", "database", "server", "settings"]


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[AuthService]:
    """An auth service whose tokens the realtime server believes."""
    async with serving_auth(database_url, secret=SECRET) as service:
        yield service
