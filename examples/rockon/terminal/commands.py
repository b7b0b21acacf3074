"""What somebody types: a word, and what it is about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from examples.rockon.terminal.keyboard import Keyboard
from examples.rockon.terminal.screen import Screen
from examples.rockon.terminal.stay import Stay

from backbeat.errors import BackbeatError
from backbeat.session import AuthContext

__all__ = ["Commands"]

Command: TypeAlias = Callable[[str], Awaitable[None]]

HELP: Final = """\
add TITLE                a new song
rename TITLE to TITLE    another title; the beginning of the old one is enough
remove TITLE             a song less
songs                    all songs
bands                    follow the bands I am in by now
refresh                  a new token
out                      sign out
quit                     leave, and stay signed in"""


class Commands:
    """Does what is typed.

    Args:
        stay: the bands.
        auth: who is signed in.
        screen: where answers are shown.
    """

    def __init__(self, stay: Stay, auth: AuthContext, screen: Screen) -> None:
        self._stay = stay
        self._auth = auth
        self._screen = screen
        self._commands: dict[str, Command] = {
            "add": stay.add,
            "rename": self._rename,
            "remove": stay.remove,
            "songs": self._songs,
            "bands": lambda _: stay.follow_bands(),
            "refresh": self._refresh,
            "out": lambda _: auth.sign_out("local"),
            "help": self._help,
        }

    async def run(self, keyboard: Keyboard) -> None:
        """Do one thing after the other, until there is no more."""
        self._screen.ask("")
        while (line := await keyboard.line()) not in (None, "quit"):
            word, _, about = (line or "").strip().partition(" ")
            if word:
                await self._do(word, about.strip())

    async def _do(self, word: str, about: str) -> None:
        command = self._commands.get(word, self._help)
        try:
            await command(about)
        except BackbeatError as error:
            self._screen.say(f"❌ {error}", "red")

    async def _rename(self, about: str) -> None:
        before, _, after = about.partition(" to ")
        if not after:
            raise BackbeatError("How shall it be called?", hint="rename TITLE to TITLE")
        await self._stay.rename(before, after)

    async def _songs(self, _: str) -> None:
        songs = self._stay.board.rows["songs"]
        self._screen.say(f"{len(songs)} songs")
        for song in songs:
            self._screen.say(f"♪ {song['title']}")

    async def _refresh(self, _: str) -> None:
        await self._auth.refresh(force=True)

    async def _help(self, _: str) -> None:
        for line in HELP.splitlines():
            self._screen.say(line)
