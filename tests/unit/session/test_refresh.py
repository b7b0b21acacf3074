"""New tokens for old ones (client specification, section 3.2: a test for each row)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.unit.session.conftest import LIFETIME, Heard, Service, make_session
from tests.virtual_clock import VirtualClock

from backbeat.errors import AuthRefused, AuthUnavailable, Retry, StoreError
from backbeat.session import policy
from backbeat.session.manager import SessionManager
from backbeat.session.policy import Deferred, Discarded, Refreshed, Rejected, Unchanged
from backbeat.session.session import OfflineSession, Session
from backbeat.session.stores import FileStore, MemoryStore

Manage = Callable[..., SessionManager]

NO_NETWORK = AuthUnavailable("no answer")
LIMIT = AuthUnavailable("too many", code="over_request_rate_limit", retry=Retry.SLOW)
SPENT = AuthRefused("Already Used", code="refresh_token_already_used")


def expiring(clock: VirtualClock, *, left: float) -> Session:
    """A session whose access token is good for so many seconds more."""
    return make_session(now=clock.wall() - LIFETIME + left)


async def settled_refresh(manager: SessionManager, clock: VirtualClock) -> policy.RefreshResult:
    """Refresh while time passes, in case it is tried again."""
    refreshing = asyncio.create_task(manager.refresh())
    await clock.advance(40)
    return await refreshing


@asynccontextmanager
async def under_way(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> AsyncIterator[asyncio.Task[policy.RefreshResult]]:
    """A refresh whose answer comes when the block ends."""
    service.open.clear()
    refreshing = asyncio.create_task(manager.refresh(force=True))
    await clock.settle()
    yield refreshing
    service.open.set()


# When -------------------------------------------------------------------------------------------------------


async def test_a_good_session_is_left_alone(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Nobody is asked."""
    session = await manager.save_session(expiring(clock, left=91))
    assert await manager.refresh() == Unchanged(session)
    assert service.asked == []


async def test_nobody_is_asked_when_nobody_is_signed_in(manage: Manage, service: Service) -> None:
    """There is nothing to refresh."""
    assert await manage(service).refresh(force=True) == Unchanged(None)
    assert service.asked == []


async def test_an_old_session_is_refreshed(manager: SessionManager, clock: VirtualClock) -> None:
    """And the new one is kept."""
    await manager.save_session(expiring(clock, left=90))
    result = await manager.refresh()
    assert isinstance(result, Refreshed)
    assert result.session.refresh_token == "refresh-ada-2"
    assert await manager.load_session() == result.session


async def test_a_server_that_refuses_the_token_is_a_reason(
    manager: SessionManager, clock: VirtualClock
) -> None:
    """`force` refreshes what looks good here."""
    await manager.save_session(make_session(now=clock.wall()))
    assert isinstance(await manager.refresh(force=True), Refreshed)


async def test_the_background_is_ahead_of_the_end(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Two minutes before the end, without anybody asking; and again an hour later."""
    await manager.save_session(make_session(now=clock.wall()))
    await manager.open()
    await clock.advance(LIFETIME - 121)
    assert service.asked == []
    await clock.advance(2)
    assert service.asked == ["refresh-ada-1"]
    await clock.advance(LIFETIME - 119)
    assert service.asked == ["refresh-ada-1", "refresh-ada-2"]


async def test_the_background_waits_for_somebody_to_sign_in(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """It notices a session that comes later, and one that goes."""
    await manager.open()
    await clock.advance(100)
    await manager.save_session(make_session(now=clock.wall()))
    await clock.advance(LIFETIME - 119)
    assert len(service.asked) == 1
    await manager.clear()
    await clock.advance(2 * LIFETIME)
    assert len(service.asked) == 1


async def test_auto_refresh_can_be_stopped_and_started(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Either one twice makes no difference."""
    await manager.save_session(make_session(now=clock.wall()))
    await manager.open()
    await manager.stop_auto_refresh()
    await manager.stop_auto_refresh()
    await clock.advance(LIFETIME)
    assert service.asked == []
    manager.start_auto_refresh()
    manager.start_auto_refresh()
    await clock.settle()
    assert service.asked == ["refresh-ada-1"]


async def test_after_sleep_the_token_is_new(manager: SessionManager, clock: VirtualClock) -> None:
    """The laptop was closed for a night: whoever asks first waits for a new token."""
    await manager.save_session(make_session(now=clock.wall()))
    await manager.open()
    await clock.suspend(8 * LIFETIME)
    assert await manager.token() == make_session(2, now=clock.wall()).access_token


async def test_a_service_that_hands_out_old_tokens_is_not_asked_all_the_time(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Its clock is wrong, or its tokens live no time at all: once a second is enough."""
    service.lifetime = 0
    await manager.save_session(expiring(clock, left=10))
    await manager.open()
    before = len(service.asked)
    await clock.advance(10)
    assert len(service.asked) - before <= 11


# Once -------------------------------------------------------------------------------------------------------


async def test_a_hundred_callers_make_one_request(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """All of them get the token it brings."""
    await manager.save_session(expiring(clock, left=1))
    service.open.clear()
    asking = [asyncio.create_task(manager.token()) for _ in range(100)]
    await clock.settle()
    service.open.set()
    assert set(await asyncio.gather(*asking)) == {make_session(2, now=clock.wall()).access_token}
    assert len(service.asked) == 1


async def test_whoever_stops_waiting_stops_nobody_else(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """The request goes on, even for nobody: its refresh token is spent."""
    await manager.save_session(expiring(clock, left=1))
    service.open.clear()
    impatient, patient = (asyncio.create_task(manager.refresh()) for _ in range(2))
    await clock.settle()
    impatient.cancel()
    await clock.settle()
    service.open.set()
    assert isinstance(await patient, Refreshed)
    assert impatient.cancelled()


async def test_a_refresh_for_somebody_else_is_no_answer(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Mike signed in while Ada's session was being refreshed: his refresh is a request of its own."""
    await manager.save_session(expiring(clock, left=1))
    async with under_way(manager, service, clock) as hers:
        await manager.save_session(make_session(user="mike", now=clock.wall()))
        his = asyncio.create_task(manager.refresh(force=True))
        await clock.settle()
    assert isinstance(await hers, Discarded)
    assert isinstance(await his, Refreshed)
    assert service.asked == ["refresh-ada-1", "refresh-mike-1"]


async def test_managers_that_share_a_store_make_one_request(
    manage: Manage, service: Service, clock: VirtualClock
) -> None:
    """The second finds what the first has kept."""
    first, second = manage(service), manage(service)
    await first.save_session(expiring(clock, left=1))
    results = await asyncio.gather(first.refresh(force=True), second.refresh(force=True))
    assert {type(result) for result in results} == {Refreshed, Unchanged}
    assert len({result.session for result in results}) == 1
    assert len(service.asked) == 1


# No answer --------------------------------------------------------------------------------------------------


async def test_an_outage_is_tried_eight_times(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """In half a minute; then the session is kept, however old it is."""
    session = await manager.save_session(expiring(clock, left=-100))
    service.always_fail_with = NO_NETWORK
    assert await settled_refresh(manager, clock) == Deferred(session, NO_NETWORK)
    assert len(service.asked) == 8
    assert await manager.load_session() == session


async def test_an_outage_that_ends_is_forgotten(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """The third attempt brings new tokens."""
    await manager.save_session(expiring(clock, left=1))
    service.fail_with = [NO_NETWORK, NO_NETWORK]
    assert isinstance(await settled_refresh(manager, clock), Refreshed)
    assert len(service.asked) == 3


async def test_a_limit_is_not_tried_again_at_once(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """That would only make it last longer; and it ends no session."""
    session = await manager.save_session(expiring(clock, left=-100))
    service.always_fail_with = LIMIT
    assert await settled_refresh(manager, clock) == Deferred(session, LIMIT)
    assert len(service.asked) == 1


async def test_who_signs_out_is_not_refreshed_any_more(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Not between two attempts either."""
    await manager.save_session(expiring(clock, left=1))
    service.always_fail_with = NO_NETWORK
    refreshing = asyncio.create_task(manager.refresh())
    await clock.advance(1)
    asked = len(service.asked)
    await manager.clear()
    await clock.advance(40)
    assert (await refreshing).session is None
    assert len(service.asked) - asked <= 1


async def test_the_background_goes_on_without_a_network(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """1, 2, 5, 10, 30, 30 … s between its refreshes, until one works."""
    await manager.save_session(expiring(clock, left=1))
    service.always_fail_with = LIMIT
    await manager.open()
    times: list[float] = []
    asked, started = len(service.asked), clock.monotonic()
    for _ in range(90):
        await clock.advance(1)
        if len(service.asked) > asked:
            asked = len(service.asked)
            times.append(round(clock.monotonic() - started))
    assert [later - before for before, later in pairwise(times)] == [2, 5, 10, 30, 30]
    service.always_fail_with = None
    await clock.advance(30)
    assert await manager.token()


async def test_a_refresher_that_fails_ends_no_session(
    manager: SessionManager, service: Service, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its mistake is reported with a traceback, and the session kept."""
    await manager.save_session(expiring(clock, left=-1))
    service.always_fail_with = KeyError("refresh_token")
    caplog.clear()
    result = await manager.refresh()
    assert isinstance(result, Deferred)
    assert result.error.code == "refresher_failed"
    assert isinstance(result.error.__cause__, KeyError)
    assert any("the refresher failed" in record.message and record.exc_info for record in caplog.records)


async def test_without_a_refresher_a_session_lasts_as_long_as_its_token(
    store: MemoryStore, clock: VirtualClock
) -> None:
    """And whoever asks is told what is missing."""
    async with SessionManager(store, clock=clock) as manager:
        session = await manager.save_session(expiring(clock, left=10))
        assert await manager.token() == session.access_token
        await clock.advance(11)
        with pytest.raises(AuthUnavailable, match=r"no_refresher.*Give the SessionManager"):
            await manager.token()


# Cool-down --------------------------------------------------------------------------------------------------


async def test_fifty_calls_after_a_failure_make_no_request(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Within a minute they are told how the last one failed."""
    session = await manager.save_session(expiring(clock, left=80))
    service.always_fail_with = LIMIT
    results = [await manager.refresh() for _ in range(50)]
    assert results == [Deferred(session, LIMIT)] * 50
    assert len(service.asked) == 1


async def test_a_minute_after_a_failure_it_is_tried_again(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Or at once, if somebody insists."""
    await manager.save_session(expiring(clock, left=80))
    service.fail_with = [LIMIT, LIMIT]
    await manager.refresh()
    await manager.refresh(force=True)
    await clock.advance(60)
    assert isinstance(await manager.refresh(), Refreshed)


async def test_another_session_has_not_failed(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Nor has the same one, once it was removed and came back."""
    session = expiring(clock, left=80)
    await manager.save_session(session)
    service.fail_with = [LIMIT]
    await manager.refresh()
    await manager.clear()
    await manager.save_session(session)
    assert isinstance(await manager.refresh(), Refreshed)


# Refused ----------------------------------------------------------------------------------------------------


async def test_a_refused_session_is_kept_while_its_access_token_is_good(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Whoever asks gets that one."""
    session = await manager.save_session(expiring(clock, left=60))
    service.always_fail_with = SPENT
    assert await manager.refresh() == Rejected(session, SPENT)
    assert await manager.token() == session.access_token


async def test_a_refused_session_is_removed_when_its_access_token_has_ended(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """SIGNED_OUT once, with the reason; nobody is signed in any more."""
    await manager.save_session(expiring(clock, left=-1))
    heard = Heard(manager)
    await clock.settle()
    service.always_fail_with = SPENT
    assert await manager.refresh() == Rejected(None, SPENT)
    assert await manager.token() is None
    await clock.settle()
    assert heard.kinds == ["REFRESH_FAILED", "SIGNED_OUT"]
    assert heard.events[-1].error is SPENT
    assert await manager.load_session() is None


async def test_a_refusal_counts_when_the_access_token_ends(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Refused within the minute before: nobody has to be asked again to know that it is over."""
    await manager.save_session(expiring(clock, left=30))
    service.always_fail_with = SPENT
    await manager.refresh()
    await clock.advance(31)
    assert await manager.token() is None
    assert len(service.asked) == 1


async def test_the_background_ends_a_refused_session_in_time(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """It tries two minutes ahead, and again at the end; nothing in between."""
    await manager.save_session(make_session(now=clock.wall()))
    await manager.open()
    heard = Heard(manager)
    service.always_fail_with = SPENT
    await clock.advance(LIFETIME - 1)
    assert heard.kinds == ["REFRESH_FAILED"]
    await clock.advance(2)
    assert heard.kinds == ["REFRESH_FAILED", "REFRESH_FAILED", "SIGNED_OUT"]
    assert len(service.asked) == 2


async def test_a_failure_finds_what_another_has_committed(
    manager: SessionManager, service: Service, store: MemoryStore, clock: VirtualClock
) -> None:
    """A client that does not know our lock was faster: its session is the one that counts."""
    await manager.save_session(expiring(clock, left=-1))
    service.always_fail_with = SPENT
    async with under_way(manager, service, clock) as refreshing:
        theirs = make_session(2, now=clock.wall())
        await store.set(theirs.write())
    assert await refreshing == Unchanged(theirs)


# The commit guard -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meanwhile",
    [None, make_session(1, user="mike", now=1_700_000_000), make_session(7, now=1_700_000_000)],
    ids=["signed out", "somebody else", "refreshed elsewhere"],
)
async def test_new_tokens_of_a_session_that_is_gone_are_thrown_away(
    manager: SessionManager,
    service: Service,
    store: MemoryStore,
    clock: VirtualClock,
    meanwhile: Session | None,
) -> None:
    """Nobody is signed in again by an answer that came late."""
    await manager.save_session(expiring(clock, left=1))
    async with under_way(manager, service, clock) as refreshing:
        await (store.delete() if meanwhile is None else store.set(meanwhile.write()))
    assert await refreshing == Discarded(meanwhile)
    assert await manager.load_session() == meanwhile


async def test_new_tokens_do_not_undo_what_became_of_the_user(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """The user was changed while the request was under way: both count."""
    await manager.save_session(expiring(clock, left=1))
    async with under_way(manager, service, clock) as refreshing:
        await manager.save_user({"id": "ada", "email": "countess@example.com"})
    result = await refreshing
    assert isinstance(result, Refreshed)
    assert result.session.user["email"] == "countess@example.com"
    assert result.session.refresh_token == "refresh-ada-2"


async def test_new_tokens_that_cannot_be_written_are_not_lost(
    manage: Manage, service: Service, clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old refresh token is spent. They are written as soon as possible, without another request."""
    store = FileStore(tmp_path / "session.json")
    manager = manage(service, shared=store)
    session = await manager.save_session(expiring(clock, left=1))

    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_replace", full)
        result = await manager.refresh()
    assert isinstance(result, Deferred)
    assert isinstance(result.error, StoreError)
    assert result.session == session
    assert isinstance(await manager.refresh(), Refreshed)
    assert service.asked == ["refresh-ada-1"]


# What whoever asks gets -------------------------------------------------------------------------------------


async def test_the_token_is_good_for_a_minute(manager: SessionManager, clock: VirtualClock) -> None:
    """Restored or fresh: at any moment of an hour and a half."""
    await manager.save_session(make_session(now=clock.wall()))
    for _ in range(90):
        await clock.advance(60)
        token = await manager.token()
        session = await manager.load_session()
        assert session is not None
        assert token == session.access_token
        assert session.expires_at - clock.wall() >= 60


async def test_without_a_network_the_token_is_used_to_its_end(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Then there is none, and an error says why: that nobody is signed in would be wrong."""
    session = await manager.save_session(expiring(clock, left=50))
    service.always_fail_with = LIMIT
    assert await manager.token() == session.access_token
    await clock.advance(50)
    with pytest.raises(AuthUnavailable, match="over_request_rate_limit") as caught:
        await manager.token()
    assert caught.value.__cause__ is LIMIT
    assert await manager.load_session() == session


async def test_without_a_network_there_is_who_it_was(
    manager: SessionManager, service: Service, clock: VirtualClock
) -> None:
    """Online while the token is good, offline after it, nothing once it was refused."""
    session = await manager.save_session(expiring(clock, left=50))
    service.always_fail_with = LIMIT
    assert await manager.get_available_session() == session
    await clock.advance(50)
    offline = await manager.get_available_session()
    assert offline == OfflineSession("ada", session.expires_at, False, session.user)
    service.always_fail_with = SPENT
    await manager.refresh(force=True)
    assert await manager.get_available_session() is None


async def test_an_available_session_is_refreshed_first(manager: SessionManager, clock: VirtualClock) -> None:
    """Inside the margin."""
    await manager.save_session(expiring(clock, left=50))
    session = await manager.get_available_session()
    assert isinstance(session, Session)
    assert session.refresh_token == "refresh-ada-2"


# Starting ---------------------------------------------------------------------------------------------------


async def test_a_program_starts_without_a_network_after_one_attempt(
    manager: SessionManager, service: Service, store: MemoryStore, clock: VirtualClock
) -> None:
    """It does not wait for half a minute first."""
    session = expiring(clock, left=-1)
    await store.set(session.write())
    service.always_fail_with = NO_NETWORK
    await manager.open()
    assert len(service.asked) == 1
    assert manager.session == session


async def test_a_session_that_ended_is_refreshed_before_the_program_starts(
    manager: SessionManager, store: MemoryStore, clock: VirtualClock
) -> None:
    """The first token anybody sees is the new one."""
    await store.set(expiring(clock, left=-1).write())
    await manager.open()
    assert manager.session is not None
    assert manager.session.refresh_token == "refresh-ada-2"


async def test_a_session_that_was_ended_elsewhere_is_gone_when_the_program_starts(
    manager: SessionManager, service: Service, store: MemoryStore, clock: VirtualClock
) -> None:
    """Refused: nobody is signed in."""
    await store.set(expiring(clock, left=-1).write())
    service.always_fail_with = SPENT
    await manager.open()
    assert manager.session is None
    assert await store.get() is None


async def test_an_answer_that_says_little_is_completed(store: MemoryStore, clock: VirtualClock) -> None:
    """Other issuers say how long and not until when, and nothing of the user."""

    async def refresher(_: str) -> dict[str, object]:
        fields = replace(make_session(2, now=clock.wall())).fields()
        del fields["expires_at"], fields["user"]
        return fields

    manager = SessionManager(store, refresher=refresher, clock=clock)
    await manager.save_session(expiring(clock, left=1))
    result = await manager.refresh()
    assert result.session is not None
    assert result.session.expires_at == clock.wall() + LIFETIME
    assert result.session.user["email"] == "ada@example.com"
    await manager.close()
