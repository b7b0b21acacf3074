"""One stay of one person with their bands: from being signed in to leaving or being signed out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any, Final

from examples.rockon.terminal.lists import LISTS, Row, title_of
from examples.rockon.terminal.manager import Connection, RealtimeManager, RealtimeStartError, StartFailed
from examples.rockon.terminal.rest import Rest
from examples.rockon.terminal.room import BandRoom
from examples.rockon.terminal.screen import Board, Screen

from backbeat import RealtimeClient
from backbeat.client.events import ChangeEvent, Delete
from backbeat.errors import BackbeatError
from backbeat.session import AuthChange, AuthContext, Session
from backbeat.session.listeners import AuthEvent

__all__ = ["Stay"]

log = logging.getLogger("rockon")

TRY_AGAIN_AFTER: Final = 2.0
LIT_FOR: Final = 3.0
VERBS: Final = {"INSERT": "added", "UPDATE": "updated", "DELETE": "removed"}


class Stay:
    """Knows the bands, and hears what happens to them.

    Args:
        session: who is signed in.
        auth: keeps them signed in.
        client: the connection.
        rest: the rows.
        screen: shows all of it.

    Attributes:
        ended: set when somebody else, or nobody, is signed in.
        board: what there is to see.
    """

    def __init__(
        self, session: Session, auth: AuthContext, client: RealtimeClient, rest: Rest, screen: Screen
    ) -> None:
        self.ended = asyncio.Event()
        self.board = Board()
        self._me = session.user_id
        self._session = session
        self._auth = auth
        self._client = client
        self._rest = rest
        self._screen = screen
        self._manager: RealtimeManager | None = None
        self._rooms: dict[str, BandRoom] = {}
        self._names: dict[str, str] = {}
        self._rows: dict[str, dict[str, Row]] = {table: {} for table in LISTS}

    async def run(self) -> None:
        """Start, and start again until that works; then stay until the session ends."""
        stop_listening = self._auth.on_change(self._auth_changed)
        try:
            await self._start()
            await self.ended.wait()
        finally:
            stop_listening()

    async def _start(self) -> None:
        start = RealtimeManager.start
        while self._manager is None:
            try:
                self._manager = await start(self._client, self._session, self.find_bands, self)
            except RealtimeStartError:
                # It was logged, and shown.
                await asyncio.sleep(TRY_AGAIN_AFTER)
        await self._enter_rooms()

    async def find_bands(self) -> Collection[str]:
        """Read my bands and their members."""
        members = await self._rest.select("band_members")
        mine = {member["band_id"] for member in members if member["user_id"] == self._me}
        bands = await self._rest.select("bands", order="name")
        self.board.bands = {band["id"]: band["name"] for band in bands if band["id"] in mine}
        self._names = {
            member["user_id"]: member["display_name"] for member in members if member["band_id"] in mine
        }
        self.board.who = self._names.get(self._me, "")
        for rows in self._rows.values():
            for row_id in [row_id for row_id, row in rows.items() if row["band_id"] not in mine]:
                del rows[row_id]
        self._show()
        return list(self.board.bands)

    async def follow_bands(self) -> None:
        """Follow the bands I am in by now.

        Raises:
            BackbeatError: they could not be read, or not be subscribed.
        """
        if self._manager is None:
            return  # It is being started, which begins with that.
        await self._manager.subscribe_to_user_bands(self._me, await self.find_bands())
        await self._enter_rooms()

    async def _enter_rooms(self) -> None:
        bands = self.board.bands
        for band_id in self._rooms.keys() - bands.keys():
            await self._rooms.pop(band_id).leave()
        added = {
            band_id: BandRoom(self._client, band_id, self._me, self._show)
            for band_id in bands
            if band_id not in self._rooms
        }
        self._rooms |= added
        await asyncio.gather(*(room.enter() for room in added.values()))

    def _auth_changed(self, event: AuthEvent) -> None:
        if event.kind is AuthChange.TOKEN_REFRESHED:
            log.info("🔐 Realtime auth refreshed with the new user JWT")
        if event.session is None or event.session.user_id != self._me:
            self.ended.set()

    # What the manager tells ---------------------------------------------------------------------------------

    def start_failed(self, failure: StartFailed) -> None:
        """Realtime could not be started."""
        self.connection("offline", str(failure.error))

    def connection(self, state: Connection, reason: str) -> None:
        """All lists are live, or not, and why not."""
        self.board.connection, self.board.reason = state, reason
        self._show()

    def knows(self, table: str, row_id: str) -> bool:
        """Whether a row is in one of the lists."""
        return row_id in self._rows[table]

    def changed(self, table: str, change: ChangeEvent[dict[str, Any]]) -> None:
        """A row has changed: show it, and say whose doing it was, if it was not mine."""
        if isinstance(change, Delete):
            row = self._rows[table].pop(change.old["id"])
            room = self._rooms.get(row["band_id"])
            actor = None if room is None else room.take_remover(row["id"])
        else:
            row, actor = change.new, change.new["updated_by"]
            self._rows[table][row["id"]] = row
        if actor != self._me:
            self._screen.say(f'🔔 {self._name(actor)} {VERBS[change.type]} "{title_of(table, row)}"', "bold")
            self._light(row["id"])
        self._show()

    async def read(self, band_id: str, table: str) -> None:
        """Read a list of a band again, however often it takes: what was missed is in there."""
        while band_id in self.board.bands:
            try:
                rows = await self._rest.select(table, band_id=f"eq.{band_id}")
            except BackbeatError as error:
                log.error("❌ Could not read %s: %s", table, error)  # noqa: TRY400 - no surprise
                await asyncio.sleep(TRY_AGAIN_AFTER)
                continue
            others = {key: row for key, row in self._rows[table].items() if row["band_id"] != band_id}
            self._rows[table] = others | {row["id"]: row for row in rows}
            self._show()
            return

    def _name(self, user_id: str | None) -> str:
        return self._names.get(user_id or "", "Somebody")

    def _light(self, row_id: str) -> None:
        self.board.lit.add(row_id)

        def darken() -> None:
            self.board.lit.discard(row_id)
            self._show()

        asyncio.get_running_loop().call_later(LIT_FOR, darken)

    def _show(self) -> None:
        if self.ended.is_set():
            return
        online = {user_id for room in self._rooms.values() for user_id in room.online}
        self.board.people = sorted((name, user_id in online) for user_id, name in self._names.items())
        for table, rows in self._rows.items():
            self.board.rows[table] = sorted(rows.values(), key=lambda row: title_of(table, row).casefold())
        self._screen.show(self.board)

    # What somebody wants ------------------------------------------------------------------------------------

    async def add(self, title: str) -> None:
        """Add a song to the first band."""
        if not self.board.bands:
            raise BackbeatError("You are in no band.")
        band_id = next(iter(self.board.bands))
        self._wrote(await self._rest.insert("songs", {"band_id": band_id, "title": title}))

    async def rename(self, before: str, after: str) -> None:
        """Give a song another title."""
        self._wrote(await self._rest.update("songs", self._song(before)["id"], {"title": after}))

    async def remove(self, title: str) -> None:
        """Remove a song."""
        song = self._song(title)
        room = self._rooms.get(song["band_id"])
        if room is not None:
            await room.announce_removal("songs", song["id"])
        await self._rest.delete("songs", song["id"])
        # If its DELETE event was here first, there is nothing left to do.
        self._rows["songs"].pop(song["id"], None)
        if room is not None:
            room.take_remover(song["id"])
        self._show()

    def _wrote(self, song: Row) -> None:
        self._rows["songs"][song["id"]] = song
        self._show()

    def _song(self, title: str) -> Row:
        songs = self._rows["songs"].values()
        for fits in (str.__eq__, str.startswith):
            found = [song for song in songs if fits(song["title"].casefold(), title.casefold())]
            if len(found) == 1:
                return found[0]
        raise BackbeatError(f"There is no one song {title!r}.", hint="Type more of its title.")
