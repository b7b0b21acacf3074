"""Passwords: the rules for new ones, and bcrypt off the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import bcrypt
import structlog

from backbeat.local.auth import errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Passwords", "check_new_password", "hash_password", "password_matches"]

MIN_PASSWORD_LENGTH: Final = 6
"""Characters."""

MAX_PASSWORD_BYTES: Final = 72
"""Bytes of UTF-8: bcrypt does not look at what follows."""

COST: Final = 10
"""The base-2 logarithm of bcrypt's rounds: 50 to 100 ms of one core."""

# Hashed from random bytes that were thrown away.
_NOBODY: Final = b"$2b$10$ZVnVUghl8Ci9vkoIu7/j1.AmxBGBAObouKwf/h8.0ywgFn3/j06le"

_Result = TypeVar("_Result")

log = structlog.get_logger("backbeat.auth")


def check_new_password(password: str) -> None:
    """Refuse a password that is too short, or longer than bcrypt can see.

    Raises:
        BadRequest: `weak_password` below 6 characters, `validation_failed` above 72 bytes: two long passwords
            that differ only behind the 72nd byte would open the same account.
    """
    if len(password) < MIN_PASSWORD_LENGTH:
        raise errors.PASSWORD_TOO_SHORT.refusal(least=MIN_PASSWORD_LENGTH)
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise errors.PASSWORD_TOO_LONG.refusal(most=MAX_PASSWORD_BYTES)


def hash_password(password: str) -> str:
    """Hash a password that `check_new_password` has let pass. Takes 50 to 100 ms."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(COST)).decode()


def password_matches(password: str, stored: str | None, *, owner: object = None) -> bool:
    """Check a password, with the same work for an unknown user as for a wrong password.

    Passwords are cut at 72 bytes, as in every bcrypt: so long ones match a hash that `crypt()` made in SQL.

    Args:
        password: what the caller sent.
        stored: the bcrypt hash, or None for a user who is unknown or has no password.
        owner: whose hash it is, for the log.
    """
    attempt = password.encode()[:MAX_PASSWORD_BYTES]
    if stored:
        try:
            return bcrypt.checkpw(attempt, stored.encode())
        except ValueError:
            log.warning(
                "unusable password hash", user=str(owner), hint="It is not a bcrypt hash: set it anew."
            )
    bcrypt.checkpw(attempt, _NOBODY)
    return False


class Passwords:
    """Hashes and checks passwords with bcrypt on threads of its own, so that no socket waits for it.

    Args:
        workers: how many passwords are worked on at once.
        waiting: how many more may wait for their turn; whoever comes then is refused.
    """

    def __init__(self, *, workers: int = 2, waiting: int = 256) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="backbeat-bcrypt")
        self._room = workers + waiting

    def close(self) -> None:
        """Let the threads go; what waits is cancelled."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Hash a new password (see `check_new_password`).

        Raises:
            RateLimited: too many passwords wait already.
        """
        return await self._run(lambda: hash_password(password))

    async def matches(self, password: str, stored: str | None, *, owner: object = None) -> bool:
        """Check a password off the event loop (see `password_matches`).

        Raises:
            RateLimited: too many passwords wait already.
        """
        return await self._run(lambda: password_matches(password, stored, owner=owner))

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        if not self._room:
            raise errors.BUSY.refusal()
        self._room -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._room += 1
