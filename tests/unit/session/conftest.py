"""Sessions of made-up users, an auth service that answers when told to, and clocks that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.virtual_clock import VirtualClock

from backbeat.session.manager import SessionManager
from backbeat.session.session import Session
from backbeat.session.stores import MemoryStore, SessionStore
from backbeat.tokens.verifier import sign

SECRET = "a secret of at least thirty-two bytes"
LIFETIME = 3600


def make_session(number: int = 1, *, user: str = "ada", now: float, lifetime: int = LIFETIME) -> Session:
    """The session a user has after so many refreshes, its access token issued now."""
    issued = int(now)
    claims = {"sub": user, "role": "authenticated", "exp": issued + lifetime, "n": number}
    return Session(
        access_token=sign(claims, SECRET),
        refresh_token=f"refresh-{user}-{number}",
        expires_at=issued + lifetime,
        expires_in=lifetime,
        user={"id": user, "email": f"{user}@example.com"},
    )


class Service:
    """Stands in for an auth service: hands out new tokens, or fails as it is told to.

    Args:
        clock: the time at which tokens are issued.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.asked: list[str] = []
        self.fail_with: list[Exception] = []
        self.always_fail_with: Exception | None = None
        self.lifetime = LIFETIME
        self.open = asyncio.Event()
        self.open.set()

    async def refresh(self, refresh_token: str) -> Session:
        """Answer once the service is open."""
        self.asked.append(refresh_token)
        await self.open.wait()
        if self.fail_with:
            raise self.fail_with.pop(0)
        if self.always_fail_with is not None:
            raise self.always_fail_with
        _, user, number = refresh_token.split("-")
        return make_session(int(number) + 1, user=user, now=self.clock.wall(), lifetime=self.lifetime)


class Heard:
    """Somebody who listens, and remembers what was said.

    Args:
        manager: whom to listen to.
    """

    def __init__(self, manager: SessionManager) -> None:
        self.events: list[Any] = []
        manager.on_change(self.events.append)

    @property
    def kinds(self) -> list[str]:
        """What happened, by name, without the first."""
        return [event.kind.value for event in self.events[1:]]


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Down to the least."""
    caplog.set_level("DEBUG", logger="backbeat.session")


@pytest.fixture
def clock() -> VirtualClock:
    """Clocks that stand still until they are moved."""
    return VirtualClock()


@pytest.fixture
def flying() -> VirtualClock:
    """Clocks on which every sleep passes at once."""
    return VirtualClock(flies=True)


@pytest.fixture
def store() -> MemoryStore:
    """A store that several managers may share."""
    return MemoryStore()


@pytest.fixture
def service(clock: VirtualClock) -> Service:
    """An auth service that answers at once."""
    return Service(clock)


@pytest.fixture
def manager(manage: Callable[..., SessionManager], service: Service) -> SessionManager:
    """A manager of the store, not open yet."""
    return manage(service)


@pytest.fixture
async def manage(store: MemoryStore) -> AsyncIterator[Callable[..., SessionManager]]:
    """Make managers of the store; all are closed at the end."""
    managers: list[SessionManager] = []

    def make(service: Service, *, shared: SessionStore = store) -> SessionManager:
        managers.append(SessionManager(shared, refresher=service.refresh, clock=service.clock))
        return managers[-1]

    yield make
    for manager in managers:
        await manager.close()
