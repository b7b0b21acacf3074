"""Whatever happens, in whatever order: programs that share a store agree, and nobody is lost by chance."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.session.conftest import LIFETIME, Service, make_session
from tests.virtual_clock import VirtualClock

from backbeat.errors import AuthRefused, AuthUnavailable, Retry
from backbeat.session.manager import SessionManager
from backbeat.session.policy import COOLDOWN
from backbeat.session.session import AuthChange, Session
from backbeat.session.stores import MemoryStore

GONE = AuthRefused("Already Used", code="refresh_token_already_used")
LIMIT = AuthUnavailable("too many", code="over_request_rate_limit", retry=Retry.SLOW)

STEPS = st.one_of(
    st.tuples(st.just("sign in"), st.sampled_from(["ada", "mike"])),
    st.tuples(st.just("sign out"), st.none()),
    st.tuples(st.just("refresh"), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([1, 45, LIFETIME - 100, LIFETIME, 3 * LIFETIME])),
    st.tuples(st.just("network"), st.booleans()),
    st.tuples(st.just("break"), st.binary(max_size=8)),
    st.tuples(st.just("start again"), st.none()),
)


class StrictService(Service):
    """Takes each refresh token once, and forgives nothing."""

    async def refresh(self, refresh_token: str) -> Session:
        """Refuse what was spent before."""
        spent = set(self.asked)
        if self.always_fail_with is None:
            if refresh_token in spent:
                raise GONE
            return await super().refresh(refresh_token)
        raise self.always_fail_with


class Life:
    """Two programs, and what each was told."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.service = StrictService(self.clock)
        self.store = MemoryStore()
        self.back_at = 0.0
        self.logins = 0
        self.programs: list[SessionManager] = []
        self.told: list[list[Any]] = []

    async def start(self) -> None:
        """Start a program."""
        program = SessionManager(self.store, refresher=self.service.refresh, clock=self.clock)
        told: list[Any] = []
        self.programs.append(program)
        self.told.append(told)
        program.on_change(told.append)
        await program.open()

    async def step(self, number: int, what: str, how: Any) -> None:
        """Do something in one of the programs."""
        program = self.programs[number]
        match what:
            case "sign in":
                self.logins += 1000
                await program.save_session(make_session(self.logins, user=how, now=self.clock.wall()))
            case "sign out":
                await program.clear()
            case "refresh":
                await program.refresh(force=how)
            case "pass":
                await self.clock.advance(how)
            case "network":
                self.service.always_fail_with = None if how else LIMIT
                self.back_at = self.clock.monotonic()
            case "break":
                await self.store.set(how)
                await self.clock.advance(1)
            case "start again":
                await program.close()
                del self.programs[number], self.told[number]
                await self.start()
        await self.clock.advance(1)

    async def check(self) -> None:
        """All know what is stored, and were told how it came about."""
        content = await self.store.get()
        stored = None if content is None else Session.read(content)
        for program, told in zip(self.programs, self.told, strict=True):
            assert program.session == stored
            assert told[0].kind is AuthChange.INITIAL_SESSION
            states = [event for event in told if event.kind in STATES]
            assert states[-1].session == stored
            for before, after in pairwise(states):
                # One sign-out for each session that was lost.
                assert after.kind is not AuthChange.SIGNED_OUT or before.session is not None
            try:
                token = await program.token()
            except AuthUnavailable:
                # What failed is not tried again at once, though the network is back.
                waited = self.clock.monotonic() - self.back_at
                assert self.service.always_fail_with is not None or waited < COOLDOWN
            else:
                current = program.session
                assert token == (current and current.access_token)
                assert current is None or current.expires_at > self.clock.wall()


STATES = {
    AuthChange.INITIAL_SESSION,
    AuthChange.SIGNED_IN,
    AuthChange.TOKEN_REFRESHED,
    AuthChange.USER_UPDATED,
    AuthChange.SIGNED_OUT,
}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 1), STEPS), max_size=15))
def test_programs_that_share_a_store_agree(steps: list[tuple[int, tuple[str, Any]]]) -> None:
    """And no refresh token is ever spent twice: a service that forgives nothing never refuses one."""

    async def live() -> None:
        life = Life()
        await life.start()
        await life.start()
        signed_in = False
        for number, (what, how) in steps:
            await life.step(number, what, how)
            await life.check()
            signed_in = {"sign in": True, "sign out": False}.get(what, signed_in)
            if what != "break":
                assert (life.programs[0].session is not None) is signed_in
        for program in life.programs:
            await program.close()
        assert len(life.service.asked) == len(set(life.service.asked))

    asyncio.run(live())
