"""What is kept and restored, who is told, and what is left at the end (client specification, 3.3 and 3.7)."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.session.conftest import LIFETIME, Heard, Service, make_session
from tests.virtual_clock import VirtualClock

from backbeat.errors import AuthRefused, AuthUnavailable, NotSignedIn, Retry, StoreError
from backbeat.session.manager import SessionManager
from backbeat.session.session import AuthChange, OfflineSession, Session
from backbeat.session.stores import FileStore, MemoryStore

Manage = Callable[..., SessionManager]
NOW = 1_700_000_000.0


@pytest.fixture
def ada(clock: VirtualClock) -> Session:
    """A session of Ada's, good for an hour."""
    return make_session(now=clock.wall())


# Names ------------------------------------------------------------------------------------------------------


def test_a_method_that_does_not_exist_names_those_that_do() -> None:
    """`get_session` is what everybody tries first."""
    manager = SessionManager()
    with pytest.raises(AttributeError) as caught:
        manager.get_session()  # type: ignore[attr-defined] # that mypy says so is half of the test
    for name in ("load_session", "load_offline_session", "get_available_session", "save_session"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("load_sesion", "load_session"), ("clear_session", "save_session"), ("tokens", "token")],
)
def test_a_misspelled_name_names_the_right_one(wrong: str, right: str) -> None:
    """Or the nearest."""
    with pytest.raises(AttributeError, match=f"no '{wrong}'.*{right}"):
        getattr(SessionManager(), wrong)


# Saving and loading -----------------------------------------------------------------------------------------


async def test_nothing_is_loaded_from_nothing(manager: SessionManager) -> None:
    """None in every way of asking."""
    assert await manager.load_session() is None
    assert await manager.load_offline_session() is None
    assert await manager.get_available_session() is None
    assert await manager.token() is None


async def test_what_was_saved_is_loaded_by_the_next_program(
    manage: Manage, service: Service, ada: Session
) -> None:
    """All of it."""
    await manage(service).save_session(ada)
    assert await manage(service).load_session() == ada


async def test_a_session_that_is_no_session_is_not_saved(manager: SessionManager, ada: Session) -> None:
    """Its shape is wrong: a TypeError at once, and what was kept is still kept."""
    await manager.save_session(ada)
    with pytest.raises(TypeError, match="access_token"):
        await manager.save_session({"accessToken": "x"})
    assert await manager.load_session() == ada


async def test_the_offline_session_is_the_last_identity(
    manager: SessionManager, service: Service, ada: Session, clock: VirtualClock
) -> None:
    """Usable while the access token is good; nobody is asked."""
    await manager.save_session(ada)
    assert await manager.load_offline_session() == OfflineSession("ada", ada.expires_at, True, ada.user)
    await clock.advance(LIFETIME)
    assert await manager.load_offline_session() == OfflineSession("ada", ada.expires_at, False, ada.user)
    assert service.asked == []


async def test_what_is_cleared_is_gone(manage: Manage, service: Service, ada: Session) -> None:
    """For the next program, too; twice is no mistake."""
    manager = manage(service)
    await manager.save_session(ada)
    await manager.clear()
    await manager.clear()
    assert await manage(service).load_session() is None


async def test_the_user_of_another_session_is_not_mixed_in(manager: SessionManager, ada: Session) -> None:
    """Somebody else signed in while the user was being changed."""
    await manager.save_session(ada)
    with pytest.raises(NotSignedIn):
        await manager.save_user({"id": "mike"})
    assert await manager.load_session() == ada


# What cannot be read ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary()
    | st.sampled_from([make_session(now=NOW).write()]).flatmap(
        lambda whole: st.integers(0, len(whole)).map(lambda end: whole[:end])
    )
    | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(
        lambda value: json.dumps({"access_token": value}).encode()
    )
)
def test_any_file_is_a_session_or_is_set_aside(content: bytes) -> None:
    """Random, cut short, or foreign: nothing is raised, nothing lost, and the next session can be saved."""

    async def restore(path: Path) -> None:
        async with SessionManager(FileStore(path), clock=VirtualClock(flies=True)) as manager:
            session = await manager.load_session()
            if session is None:
                (aside,) = path.parent.glob("session.json.unreadable-*")
                assert aside.read_bytes() == content
                session = await manager.save_session(make_session(now=NOW))
            assert await manager.load_session() == session

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.json"
        path.write_bytes(content)
        asyncio.run(restore(path))


async def test_what_was_set_aside_is_reported(
    store: MemoryStore, flying: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log and as an event, with the place and without what is in it."""
    manager = SessionManager(store, clock=flying)
    await manager.load_session()
    heard = Heard(manager)
    await flying.settle()
    await store.set(b'{"access_token": "secret"}')
    caplog.clear()
    assert await manager.load_session() is None
    await flying.settle()
    (event,) = heard.events[1:]
    assert event.kind is AuthChange.SET_ASIDE
    assert isinstance(event.error, StoreError)
    assert "set aside: memory" in event.error.hint
    assert ["set aside: memory" in line for line in caplog.messages] == [True]
    assert "secret" not in f"{caplog.text}{event}{event.error}"
    await manager.close()


@pytest.mark.parametrize("written", [0, 40])
async def test_a_file_that_is_being_written_is_read_when_it_is_whole(
    *, written: int, manage: Manage, service: Service, store: MemoryStore, clock: VirtualClock, ada: Session
) -> None:
    """Not everybody replaces files as a whole: what looks broken is given a moment."""
    content = ada.write()
    await store.set(content[:written])
    loading = asyncio.create_task(manage(service).load_session())
    await clock.settle()
    await store.set(content)
    await clock.advance(1)
    assert await loading == ada
    assert store.aside == []


async def test_a_file_that_breaks_signs_nobody_out(
    store: MemoryStore, flying: VirtualClock, ada: Session
) -> None:
    """What was in it is known, and written again."""
    manager = SessionManager(store, clock=flying)
    await manager.save_session(ada)
    heard = Heard(manager)
    await flying.settle()
    await store.set(b"\0" * 100)
    assert await manager.load_session() == ada
    assert await store.get() == ada.write()
    await flying.settle()
    assert heard.kinds == ["SET_ASIDE"]
    await manager.close()


# Events -----------------------------------------------------------------------------------------------------


async def test_a_listener_is_told_first_what_there_is(manage: Manage, service: Service, ada: Session) -> None:
    """A restored session, before anything else happens."""
    await manage(service).save_session(ada)
    async with aclosing(manage(service).events()) as events:
        event = await anext(events)
    assert (event.kind, event.session) == (AuthChange.INITIAL_SESSION, ada)


async def test_a_listener_is_told_that_there_is_nothing(manage: Manage, service: Service) -> None:
    """That is an answer, too."""
    async with aclosing(manage(service).events()) as events:
        event = await anext(events)
    assert (event.kind, event.session) == (AuthChange.INITIAL_SESSION, None)


async def test_events_have_their_order(manager: SessionManager, clock: VirtualClock, ada: Session) -> None:
    """A life: signed in, refreshed, changed, somebody else, signed out."""
    heard = Heard(manager)
    await clock.settle()
    await manager.save_session(ada)
    await manager.refresh(force=True)
    await manager.save_user({"id": "ada", "email": "countess@example.com"})
    await manager.save_session(make_session(user="mike", now=clock.wall()))
    await manager.clear()
    await clock.settle()
    assert heard.kinds == ["SIGNED_IN", "TOKEN_REFRESHED", "USER_UPDATED", "SIGNED_IN", "SIGNED_OUT"]


@pytest.mark.parametrize("event", [AuthChange.PASSWORD_RECOVERY, AuthChange.MFA_CHALLENGE_VERIFIED])
async def test_whoever_saves_a_session_may_say_why(
    manager: SessionManager, clock: VirtualClock, ada: Session, event: AuthChange
) -> None:
    """Comparison cannot tell a second factor from a refresh."""
    heard = Heard(manager)
    await clock.settle()
    await manager.save_session(ada, event=event)
    await clock.settle()
    assert heard.kinds == [event.value]


async def test_the_same_session_again_is_no_event(
    manager: SessionManager, clock: VirtualClock, ada: Session
) -> None:
    """Nor is signing out twice."""
    heard = Heard(manager)
    await clock.settle()
    await manager.save_session(ada)
    await manager.save_session(ada)
    await manager.clear()
    await manager.clear()
    await clock.settle()
    assert heard.kinds == ["SIGNED_IN", "SIGNED_OUT"]


async def test_the_store_is_written_before_anybody_is_told(
    manager: SessionManager, store: MemoryStore, clock: VirtualClock, ada: Session
) -> None:
    """Whoever reads it because of an event finds what the event says."""
    found: list[tuple[str, bytes | None]] = []

    async def look(event: Any) -> None:
        found.append((event.kind.value, await store.get()))

    manager.on_change(look)
    await clock.settle()
    await manager.save_session(ada)
    await clock.settle()
    await manager.clear()
    await clock.settle()
    assert found == [("INITIAL_SESSION", None), ("SIGNED_IN", ada.write()), ("SIGNED_OUT", None)]


async def test_a_listener_that_fails_harms_nobody_else(
    manager: SessionManager, clock: VirtualClock, ada: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported with its traceback, and told the next event all the same."""
    calls: list[str] = []

    def broken(event: Any) -> None:
        calls.append(event.kind.value)
        raise KeyError(event.kind)

    manager.on_change(broken)
    heard = Heard(manager)
    caplog.clear()
    await clock.settle()
    await manager.save_session(ada)
    await clock.settle()
    assert calls == ["INITIAL_SESSION", "SIGNED_IN"]
    assert heard.kinds == ["SIGNED_IN"]
    failures = [record for record in caplog.records if "broken" in record.getMessage()]
    assert len(failures) == 2
    assert all(record.exc_info for record in failures)


async def test_a_listener_may_call_anything(
    manager: SessionManager, service: Service, clock: VirtualClock, ada: Session
) -> None:
    """To refresh because of a refresh blocks nobody."""
    seen: list[str | None] = []

    async def again(event: Any) -> None:
        seen.append(await manager.token())
        if event.kind is AuthChange.TOKEN_REFRESHED and len(service.asked) < 3:
            await manager.refresh(force=True)

    manager.on_change(again)
    await clock.settle()
    await manager.save_session(ada)
    await manager.refresh(force=True)
    for _ in range(5):
        await clock.settle()
    assert len(service.asked) == 3
    assert seen[-1] == make_session(4, now=clock.wall()).access_token


async def test_a_listener_that_sleeps_costs_nobody_anything(
    manager: SessionManager, clock: VirtualClock, ada: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """It loses its oldest events, and that is said."""
    async with aclosing(manager.events()) as events:
        await anext(events)
        caplog.clear()
        for _ in range(60):
            await manager.save_session(ada)
            await manager.clear()
        assert (await anext(events)).kind in AuthChange
    assert len([line for line in caplog.messages if "is dropped" in line]) == 20


async def test_a_listener_can_stop(manager: SessionManager, clock: VirtualClock, ada: Session) -> None:
    """Then it hears nothing."""
    events: list[Any] = []
    stop = manager.on_change(events.append)
    await clock.settle()
    stop()
    await manager.save_session(ada)
    await clock.settle()
    assert len(events) == 1


# Other processes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (None, make_session(now=NOW), ["SIGNED_IN"]),
        (make_session(now=NOW), make_session(2, now=NOW), ["TOKEN_REFRESHED"]),
        (make_session(now=NOW), make_session(user="mike", now=NOW), ["SIGNED_IN"]),
        (make_session(now=NOW), None, ["SIGNED_OUT"]),
    ],
    ids=["signs in", "refreshes", "signs in as somebody else", "signs out"],
)
async def test_what_another_process_does_is_noticed(
    *,
    manager: SessionManager,
    store: MemoryStore,
    clock: VirtualClock,
    before: Session | None,
    after: Session | None,
    kinds: list[str],
) -> None:
    """As if it had been done here; nothing is written back."""
    if before is not None:
        await store.set(before.write())
    await manager.open()
    heard = Heard(manager)
    await clock.settle()
    content = None if after is None else after.write()
    await (store.delete() if content is None else store.set(content))
    await clock.settle()
    assert heard.kinds == kinds
    assert manager.session == after
    assert await manager.token() == (after and after.access_token)
    assert await store.get() == content


async def test_signing_out_is_heard_once_by_everybody(
    manage: Manage, service: Service, clock: VirtualClock, ada: Session
) -> None:
    """By whoever did it, and by the others; once for each loss."""
    managers = [manage(service) for _ in range(3)]
    for manager in managers:
        await manager.open()
    heard = [Heard(manager) for manager in managers]
    await clock.settle()
    for _ in range(2):
        await managers[0].save_session(ada)
        await clock.settle()
        await managers[1].clear()
        await clock.settle()
    assert [each.kinds for each in heard] == [["SIGNED_IN", "SIGNED_OUT"] * 2] * 3


async def test_a_store_that_fails_is_watched_again(
    *,
    manage: Manage,
    service: Service,
    clock: VirtualClock,
    ada: Session,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The keyring was locked for a while: that is said, and what happened meanwhile is noticed."""
    store = MemoryStore()
    manager = manage(service, shared=store)
    await manager.open()
    heard = Heard(manager)
    await clock.settle()

    async def locked() -> bytes | None:
        raise StoreError("The keyring is locked.")

    with monkeypatch.context() as patched:
        patched.setattr(store, "get", locked)
        await store.compare_and_set(None, ada.write())
        await clock.settle()
    assert "the session store cannot be used: The keyring is locked." in caplog.messages
    await clock.advance(5)
    assert heard.kinds == ["SIGNED_IN"]


# The end ----------------------------------------------------------------------------------------------------


async def test_after_the_end_nothing_is_left(
    manager: SessionManager, service: Service, clock: VirtualClock, ada: Session
) -> None:
    """No task; closing again makes no difference; listeners are told by their end."""
    before = asyncio.all_tasks()
    await manager.save_session(ada)
    await manager.open()
    Heard(manager)
    listening = asyncio.create_task(_collect(manager))
    service.open.clear()
    refreshing = asyncio.create_task(manager.refresh(force=True))
    await clock.settle()
    await manager.close()
    await manager.close()
    assert [event.kind for event in await listening] == [AuthChange.INITIAL_SESSION]
    with pytest.raises(RuntimeError, match="closed"):
        await refreshing
    assert asyncio.all_tasks() == before


async def _collect(manager: SessionManager) -> list[Any]:
    return [event async for event in manager.events()]


async def test_after_the_end_nothing_is_written(
    manager: SessionManager, service: Service, store: MemoryStore, clock: VirtualClock, ada: Session
) -> None:
    """Not by a refresh that was under way, and not by whoever goes on calling."""
    await manager.save_session(ada)
    service.open.clear()
    refreshing = asyncio.create_task(manager.refresh(force=True))
    await clock.settle()
    await manager.close()
    service.open.set()
    await asyncio.wait({refreshing})
    for call in (manager.clear, lambda: manager.save_session(ada), manager.load_session, manager.token):
        with pytest.raises(RuntimeError, match="closed"):
            await call()
    with pytest.raises(RuntimeError, match="closed"):
        manager.start_auto_refresh()
    with pytest.raises(RuntimeError, match="closed"):
        await anext(manager.events())
    assert await store.get() == ada.write()


async def test_a_listener_may_close(manager: SessionManager, clock: VirtualClock) -> None:
    """A program that ends when its user signs out."""

    async def end(_: Any) -> None:
        await manager.close()

    manager.on_change(end)
    await clock.settle()
    with pytest.raises(RuntimeError, match="closed"):
        await manager.load_session()


# Secrets ----------------------------------------------------------------------------------------------------


async def test_no_log_line_and_no_representation_shows_a_token(
    store: MemoryStore, service: Service, clock: VirtualClock, ada: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """A whole life, with everything that can go wrong in it."""
    shown: list[object] = []
    manager = SessionManager(store, refresher=service.refresh, clock=clock)
    manager.on_change(lambda event: shown.append((event, event.error, repr(event.error))))
    errors = [
        AuthUnavailable("limit", retry=Retry.SLOW),
        KeyError("x"),
        AuthRefused("Already Used", code="refresh_token_already_used"),
    ]
    caplog.clear()
    await manager.save_session(ada)
    await manager.open()
    shown += [manager, manager.session, await manager.load_offline_session()]
    shown.append(await manager.refresh(force=True))
    for error in errors:
        service.fail_with = [error]
        shown.append(await manager.refresh(force=True))
    await clock.advance(LIFETIME)
    await manager.close()
    text = f"{shown!r}{[str(each) for each in shown]}{caplog.text}"
    tokens = [make_session(number, now=NOW) for number in (1, 2, 3)]
    for session in tokens:
        assert session.access_token not in text
        assert session.refresh_token not in text
    assert "TOKEN_REFRESHED" in text
