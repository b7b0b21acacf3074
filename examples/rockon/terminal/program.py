"""From the first line to the last: sign in, stay, sign in again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from examples.rockon.terminal.commands import Commands
from examples.rockon.terminal.keyboard import Keyboard
from examples.rockon.terminal.rest import Rest
from examples.rockon.terminal.screen import Screen
from examples.rockon.terminal.stay import Stay

from backbeat import RealtimeClient
from backbeat.errors import AuthError
from backbeat.session import AuthContext, Session

__all__ = ["Program", "first"]


class Program:
    """What one person does in front of a terminal.

    Args:
        auth: who is signed in.
        email: who may sign in.
        screen: what they see.
        keyboard: what they type.
    """

    def __init__(self, auth: AuthContext, email: str, screen: Screen, keyboard: Keyboard) -> None:
        self._auth = auth
        self._email = email
        self._screen = screen
        self._keyboard = keyboard

    async def run(self, url: str, key: str) -> None:
        """Stay with the bands of a project, as whoever is signed in, until somebody has had enough."""
        while (session := self._auth.session or await self._sign_in()) is not None:
            # Nobody's rows are asked for: without a user's token a list is not joined at all.
            client = RealtimeClient(url, key, token=self._auth, require_user_token=True)
            async with client, Rest(url, key, self._auth) as rest:
                stay = Stay(session, self._auth, client, rest, self._screen)
                await first(stay.run(), Commands(stay, self._auth, self._screen).run(self._keyboard))
                if not stay.ended.is_set():
                    return

    async def _sign_in(self) -> Session | None:
        """Ask for the password until it is right; None if nobody wants to."""
        while True:
            self._screen.ask(f"Password of {self._email}", secret=True)
            password = await self._keyboard.line()
            if password is None:
                return None
            try:
                return await self._auth.sign_in_with_password(self._email, password)
            except AuthError as error:
                self._screen.say(f"❌ {error}", "red")


async def first(*work: Coroutine[Any, Any, object]) -> None:
    """Do several things until one of them is done, or fails."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
