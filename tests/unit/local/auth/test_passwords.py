"""Password rules, bcrypt's corners, and the bound on what waits for it."""

import asyncio
import threading
from collections.abc import Callable

import bcrypt
import pytest
from structlog.testing import capture_logs

from backbeat.errors import BadRequest, RateLimited
from backbeat.local.auth import passwords
from backbeat.local.auth.passwords import Passwords, check_new_password, hash_password, password_matches


def fast_hash(password: bytes) -> str:
    """A bcrypt hash at the lowest cost."""
    return bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()


@pytest.mark.parametrize("password", ["123456", "x" * 72])
def test_accepts_lengths_at_the_limits(password: str) -> None:
    """Six characters and 72 bytes are allowed."""
    check_new_password(password)


def test_refuses_a_short_password() -> None:
    """Five characters are weak."""
    with pytest.raises(BadRequest, match="at least 6") as caught:
        check_new_password("12345")
    assert (caught.value.code, caught.value.status) == ("weak_password", 422)


def test_refuses_what_bcrypt_would_not_see() -> None:
    """The upper limit counts bytes, not characters."""
    with pytest.raises(BadRequest, match="72 bytes") as caught:
        check_new_password("é" * 37)
    assert caught.value.code == "validation_failed"


def test_hash_is_bcrypt_at_cost_ten() -> None:
    """Other tools that read auth.users expect `$2b$10$`."""
    assert hash_password("correct horse").startswith("$2b$10$")


def test_matches_its_own_hash() -> None:
    """A password opens the hash made from it."""
    assert password_matches("correct horse", fast_hash(b"correct horse"))


def test_wrong_password_does_not_match() -> None:
    """Another password does not open it."""
    assert not password_matches("wrong horse", fast_hash(b"correct horse"))


def test_matches_the_prefix_of_crypt_in_sql() -> None:
    """`$2a$`, as pgcrypto writes it, is the same hash."""
    assert password_matches("correct horse", fast_hash(b"correct horse").replace("$2b$", "$2a$"))


def test_long_password_matches_a_hash_made_by_crypt() -> None:
    """Like every bcrypt, the check looks at 72 bytes."""
    assert password_matches("x" * 80, fast_hash(b"x" * 72))


def test_nobody_has_a_password() -> None:
    """For an unknown user there is nothing to match."""
    assert not password_matches("", None)


def test_unknown_user_costs_one_bcrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check for nobody runs bcrypt at the cost of a real one, so time tells nothing."""
    checked: list[bytes] = []

    def checkpw(_: bytes, stored: bytes) -> bool:
        checked.append(stored)
        return True

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    assert not password_matches("correct horse", None)
    assert [stored[:7] for stored in checked] == [b"$2b$10$"]


def test_dummy_hash_is_a_valid_one() -> None:
    """A malformed hash would be refused at once, which would give unknown users away."""
    assert not bcrypt.checkpw(b"anything", passwords._NOBODY)


@pytest.mark.parametrize(
    "stored", ["plain text", "$2b$10$short", "$2b$99$" + "a" * 53, "$argon2id$v=19", "ä"]
)
def test_corrupt_hash_matches_nothing_and_is_logged(stored: str) -> None:
    """A broken hash is an operator's problem: the caller sees a wrong password, the log says whose it is."""
    with capture_logs() as logs:
        assert not password_matches("plain text", stored, owner="somebody")
    assert [(entry["log_level"], entry["user"]) for entry in logs] == [("warning", "somebody")]


def test_log_of_a_corrupt_hash_tells_no_secret() -> None:
    """Neither the attempt nor what stands in the column is logged: it may be a password in plain text."""
    with capture_logs() as logs:
        password_matches("my attempt", "my plain password", owner="somebody")
    assert "my " not in repr(logs)


async def test_hashes_on_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop's own thread never runs bcrypt."""
    seen: list[threading.Thread] = []

    def hash_here(_: str) -> str:
        seen.append(threading.current_thread())
        return "hash"

    monkeypatch.setattr(passwords, "hash_password", hash_here)
    pool = Passwords()
    try:
        assert await pool.hash("correct horse") == "hash"
    finally:
        pool.close()
    assert seen != [threading.main_thread()]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Keep every hash from finishing until the returned function is called."""
    gate = threading.Event()

    def wait_for_gate(_: str) -> str:
        gate.wait()
        return "hash"

    monkeypatch.setattr(passwords, "hash_password", wait_for_gate)
    return gate.set


async def test_refuses_when_too_many_wait(held: Callable[[], None]) -> None:
    """What comes when the queue is full is refused at once, and not queued without end."""
    pool = Passwords(workers=1, waiting=1)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(pool.hash("correct horse"))
            await asyncio.sleep(0)
            with pytest.raises(RateLimited):
                await pool.hash("correct horse")
            held()
    finally:
        pool.close()


async def test_room_comes_back(held: Callable[[], None]) -> None:
    """Finished work makes room for more."""
    held()
    pool = Passwords(workers=1, waiting=0)
    try:
        assert [await pool.hash("first"), await pool.hash("second")] == ["hash", "hash"]
    finally:
        pool.close()
