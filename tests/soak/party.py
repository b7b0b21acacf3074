"""What the clients of the soak do: join, speak, leave, renew their tokens, break off and break the rules."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import httpx
import psycopg
from tests.soak.ledger import Ledger, Phase, Place, Sender
from tests.soak.peer import Peer, Seat, payload, room, rows
from tests.soak.server import PATIENCE, SECRET, Server

from backbeat.tokens.verifier import sign

__all__ = ["SCHEMA", "USERS", "Party"]

USERS: Final = [f"00000000-0000-0000-0000-00000000000{digit}" for digit in "abcde"]
PUBLIC: Final = ("lobby", "stage", "bar")
PRIVATE: Final = ("open-1", "open-2")
SILENT: Final = "silent"
"""A private room where everybody may hear, and nobody may speak."""
OWN: Final = "own-"
"""Prefix of private rooms that one user may hear."""
FLOODED: Final = "flood"

SCHEMA: Final = f"""
create table songs (id bigint generated always as identity primary key, owner uuid not null, title text);
alter table songs enable row level security;
create policy own on songs for select to authenticated using ((select auth.uid()) = owner);
create table news (id bigint generated always as identity primary key, title text);
alter publication supabase_realtime add table songs, news;
create policy hear on realtime.messages for select to authenticated using (
  realtime.topic() like 'open-%' or realtime.topic() = '{SILENT}'
  or realtime.topic() = '{OWN}' || (select auth.uid())::text
);
create policy speak on realtime.messages for insert to authenticated with check (
  realtime.topic() like 'open-%' or realtime.topic() like '{OWN}%' or extension = 'presence'
);
"""

VIOLATIONS: Final = (
    b"\x81\x05hello",  # not masked
    b"\x83\x80\x00\x00\x00\x00",  # an opcode that is reserved
    b"\xc1\x80\x00\x00\x00\x00",  # RSV1 without an extension
    b"\x81\x82\x00\x00\x00\x00\xc3\x28",  # text that is no UTF-8
    b"\x09\x80\x00\x00\x00\x00",  # a ping in two parts
    b"\x80\x80\x00\x00\x00\x00",  # the rest of nothing
)
FLOOD_BYTES: Final = 60_000
FLOOD_MESSAGES: Final = 100
FLOOD_PAUSE: Final = 0.01


class Party:
    """One round: everybody there is, from the first join until it is quiet.

    Args:
        ledger: the books.
        server: where it takes place.
        database: logged in as the owner.
        chance: decides what happens.
        clients: how many there are at a time.
    """

    def __init__(
        self,
        ledger: Ledger,
        server: Server,
        *,
        database: psycopg.AsyncConnection[Any],
        chance: random.Random,
        clients: int,
    ) -> None:
        self.peers: list[Peer] = []
        self.did: dict[str, int] = {}
        self._ledger = ledger
        self._server = server
        self._database = database
        self._chance = chance
        self._clients = clients
        self._over = asyncio.Event()
        self._began = time.time()
        self._tokens = 0
        self._flooding = False
        self._senders: dict[str, Sender] = {}
        self._actions: dict[Callable[[Peer], Awaitable[None] | None], int] = {
            self._join: 12,
            self._rejoin: 3,
            self._leave: 4,
            self._speak: 40,
            self._speak_binary: 16,
            self._intrude: 2,
            self._track: 6,
            self._untrack: 3,
            self._renew: 4,
            self._become: 3,
            self._expire: 1,
            self._expire_soon: 1,
            self._heartbeat: 4,
            self._reset: 1,
            self._half_close: 1,
            self._close: 1,
            self._violate: 1,
            self._vanish_in_the_middle: 1,
            self._stall: 3,
        }

    async def play(self, seconds: float) -> None:
        """Let everybody do what they do for a while, then wait until nobody is waiting for anything.

        Args:
            seconds: how long.
        """
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._clients):
                tasks.create_task(self._client())
            tasks.create_task(self._http())
            tasks.create_task(self._writer())
            await asyncio.sleep(seconds)
            self._over.set()
        for peer in self.peers:
            peer.wire.read_again()

    def ask(self) -> None:
        """Ask everybody for an answer that comes after everything else."""
        for peer in self.peers:
            peer.heartbeat()
            for seat in peer.seats.values():
                peer.probe(seat)

    def waiting(self) -> list[str]:
        """What somebody is still waiting for, in words."""
        waiting = [
            f"{peer.name} waits for {what}"
            for peer in self.peers
            if not peer.may_end
            for what in peer.waits_for
        ]
        waiting += self._ledger.missing()
        return waiting or self._presence()

    async def go_home(self) -> None:
        """End every connection, in one way or another."""
        for peer in self.peers:
            ways = peer.wire.close, peer.wire.reset, peer.wire.half_close
            # A server that said goodbye waits a while for an answer.
            leave = peer.wire.reset if peer.may_end else self._chance.choice(ways)
            for seat in list(peer.seats.values()):
                if self._chance.random() < 0.5:
                    peer.leave(seat)
            peer.end("going home", leave)
        await asyncio.gather(*(peer.lost.wait() for peer in self.peers))

    def _presence(self) -> list[str]:
        """Who believes something else about who is present than is true, in words."""
        seats = [seat for peer in self.peers for seat in peer.seats.values()]
        wrong = []
        for seat in seats:
            if seat.present is None or seat.heard.phase is not Phase.THERE:
                continue
            there = {each.key for each in seats if each.heard.place == seat.heard.place and each.tracks}
            told = {key for key, refs in seat.present.items() if refs}
            if told != there or any(len(seat.present[key]) != 1 for key in there & told):
                more, less = sorted(told - there), sorted(there - told)
                wrong.append(f"{seat.heard.who}: too many present {more}, missing {less}")
        return wrong

    # Clients ------------------------------------------------------------------------------------------------

    async def _client(self) -> None:
        chance = self._chance
        while not self._over.is_set():
            vsn = chance.choice(("1.0.0", "2.0.0", "2.0.0"))
            peer = Peer(self._ledger, self._server.socket_url(vsn), vsn)
            self.peers.append(peer)
            await peer.wire.open()
            for _ in range(3):
                self._join(peer)
            while not (self._over.is_set() or peer.lost.is_set()):
                with suppress(TimeoutError):
                    async with asyncio.timeout(chance.expovariate(15)):
                        await peer.lost.wait()
                if peer.may_end or self._over.is_set():
                    continue
                action = chance.choices([*self._actions], [*self._actions.values()])[0]
                if (done := action(peer)) is not None:
                    await done
            if peer.lost.is_set():
                self.peers.remove(peer)

    def _note(self, what: str) -> None:
        self.did[what] = self.did.get(what, 0) + 1

    def _seat(self, peer: Peer, suits: Callable[[Seat], bool] = lambda _: True) -> Seat | None:
        """One of the seats of a peer that the server has no reason to end."""
        seats = [seat for seat in peer.seats.values() if not seat.may_end and suits(seat)]
        return self._chance.choice(seats) if seats else None

    def _token(self, user: str, seconds: int = 3600) -> str:
        self._tokens += 1
        claims = {"role": "authenticated", "sub": user, "exp": int(time.time()) + seconds}
        # Another token each time: one that is known already is no news.
        return sign(claims | {"jti": str(self._tokens)}, SECRET)

    def _join(self, peer: Peer) -> None:
        chance = self._chance
        user = chance.choice(USERS)
        kind = chance.random()
        private, refused = kind >= 0.5, False
        if kind < 0.5:
            topic = chance.choice((*PUBLIC, *PUBLIC, FLOODED))
        elif kind < 0.85:
            topic = chance.choice(PRIVATE)
        elif kind < 0.9:
            topic = SILENT
        else:
            topic = OWN + chance.choice(USERS)
            refused = topic != OWN + user
        if peer.joining(topic) or topic in peer.seats:
            return
        self._sit(peer, topic, user, private=private, refused=refused)

    def _sit(self, peer: Peer, topic: str, user: str, *, private: bool, refused: bool = False) -> None:
        chance = self._chance
        tables = {"songs": user} if chance.random() < 0.4 else {}
        if chance.random() < 0.3:
            tables["news"] = ""
        replay = private and not refused and chance.random() < 0.4
        self._note("join refused" if refused else "join with replay" if replay else "join")
        peer.join(
            topic,
            user,
            self._token(user),
            private=private,
            ack=chance.random() < 0.5 and topic != SILENT,
            echo=chance.random() < 0.5,
            presence=chance.random() < 0.5,
            tables=tables,
            replay_since=self._began if replay else None,
            refused=refused,
        )

    def _rejoin(self, peer: Peer) -> None:
        seat = self._seat(peer)
        if seat is not None and not peer.joining(seat.topic):
            self._note("rejoin")
            user = seat.topic.removeprefix(OWN) if seat.topic.startswith(OWN) else self._chance.choice(USERS)
            self._sit(peer, seat.topic, user, private=seat.private)

    def _leave(self, peer: Peer) -> None:
        if (seat := self._seat(peer)) is not None:
            self._note("leave")
            peer.leave(seat)

    def _speak(self, peer: Peer) -> None:
        if (seat := self._seat(peer, _may_speak)) is not None:
            for _ in range(self._chance.choice((1, 1, 1, 5))):
                self._note("broadcast")
                peer.broadcast(seat, self._chance.choice((0, 10, 300, 3000)))

    def _speak_binary(self, peer: Peer) -> None:
        seat = self._seat(peer, _may_speak)
        if seat is not None and peer.vsn == "2.0.0":
            self._note("binary broadcast")
            peer.broadcast_binary(seat, raw=self._chance.random() < 0.5)

    def _intrude(self, peer: Peer) -> None:
        if (seat := self._seat(peer, lambda seat: seat.topic == SILENT)) is not None:
            self._note("intrusion")
            peer.intrude(seat)

    def _track(self, peer: Peer) -> None:
        if (seat := self._seat(peer, lambda seat: bool(seat.key))) is not None:
            self._note("track")
            peer.track(seat, self._chance.randrange(10))

    def _untrack(self, peer: Peer) -> None:
        if (seat := self._seat(peer, lambda seat: bool(seat.key))) is not None:
            self._note("untrack")
            peer.untrack(seat)

    def _renew(self, peer: Peer) -> None:
        if (seat := self._seat(peer, _settled)) is not None:
            self._note("token renewed")
            peer.renew(seat, self._token(seat.user))

    def _become(self, peer: Peer) -> None:
        seat = self._seat(peer, _settled)
        if seat is not None:
            user = self._chance.choice([each for each in USERS if each != seat.user])
            if seat.topic.startswith(OWN):
                self._note("token without the right")
                # Its row changes come until the policies have said that it may not hear this.
                seat.may_end = "the user may not hear this"
            else:
                self._note("token of somebody else")
            peer.become(seat, user, self._token(user))

    def _expire(self, peer: Peer) -> None:
        if (seat := self._seat(peer, _settled)) is not None:
            self._note("token expired")
            peer.expire(seat, self._token(seat.user, -60), "the token has expired")

    def _expire_soon(self, peer: Peer) -> None:
        if (seat := self._seat(peer, _settled)) is not None:
            self._note("token about to expire")
            peer.expire(seat, self._token(seat.user, 2), "the token expires")

    def _heartbeat(self, peer: Peer) -> None:
        self._note("heartbeat")
        peer.heartbeat()

    def _reset(self, peer: Peer) -> None:
        self._note("reset")
        peer.end("reset", peer.wire.reset)

    def _half_close(self, peer: Peer) -> None:
        self._note("half-close")
        peer.end("half-closed", peer.wire.half_close)

    def _close(self, peer: Peer) -> None:
        self._note("close frame")
        for seat in list(peer.seats.values()):
            if _may_speak(seat):
                peer.broadcast(seat)
        peer.end("closed", peer.wire.close)

    def _violate(self, peer: Peer) -> None:
        self._note("broken frame")
        peer.end("broke the protocol", lambda: peer.wire.raw(self._chance.choice(VIOLATIONS)))

    def _vanish_in_the_middle(self, peer: Peer) -> None:
        self._note("reset in a frame")
        peer.end("reset in a frame", lambda: peer.wire.raw(b"\x81\xfe\x7f\xff\x00\x00\x00\x00[null"))
        asyncio.get_running_loop().call_soon(peer.wire.reset)

    async def _stall(self, peer: Peer) -> None:
        """Stop reading, and be flooded: whoever is not dropped for it gets everything later."""
        listener = self._seat(peer, lambda seat: seat.topic == FLOODED)
        others = [
            (other, seat)
            for other in self.peers
            if other is not peer and not other.may_end
            for seat in other.seats.values()
            if seat.topic == FLOODED and not seat.may_end
        ]
        if listener is None or not others or self._flooding:
            return
        self._flooding = True
        self._note("stall")
        peer.stall()
        other, seat = self._chance.choice(others)
        for _ in range(self._chance.choice((3, FLOOD_MESSAGES))):
            if seat.may_end or other.may_end:
                break
            other.broadcast(seat, FLOOD_BYTES)
            # Those who do read have to keep up.
            await asyncio.sleep(FLOOD_PAUSE)
        peer.wire.read_again()
        # One at a time: those who read share a process with those who send, and are not the fastest.
        self._flooding = False

    # Others who send ----------------------------------------------------------------------------------------

    def _sender(self, kind: str, place: Place) -> Sender:
        name = f"{place.name}/{kind}"
        if name not in self._senders:
            self._senders[name] = self._ledger.sender(name, place, stored=kind == "stored")
        return self._senders[name]

    def _anywhere(self) -> tuple[str, bool]:
        topic = self._chance.choice((*PUBLIC, *PRIVATE))
        return topic, topic in PRIVATE

    async def _http(self) -> None:
        """Send batches over HTTP, one after the other."""
        url, key = self._server.url, self._server.realtime.settings.keys.service
        async with httpx.AsyncClient(base_url=url, headers={"apikey": key}, timeout=PATIENCE) as client:
            while not self._over.is_set():
                messages, numbers = [], []
                for _ in range(self._chance.randrange(1, 20)):
                    topic, private = self._anywhere()
                    sender = self._sender("http", room(topic, private=private))
                    number = self._ledger.sent(sender)
                    numbers.append((sender, number))
                    body = payload(sender, number, 50)
                    messages.append({"topic": topic, "event": "e", "payload": body, "private": private})
                self._note("HTTP batch")
                answer = await client.post("/api/broadcast", json={"messages": messages})
                if answer.status_code != 202:
                    self._ledger.faults.append(f"HTTP: {answer.status_code} {answer.text}")
                for sender, number in numbers:
                    self._ledger.published(sender, number)
                await asyncio.sleep(self._chance.expovariate(10))

    async def _writer(self) -> None:
        """Store messages and write rows, one transaction after the other."""
        work: list[Callable[[], Awaitable[Sender]]] = [self._store, self._song, self._song, self._news]
        while not self._over.is_set():
            written: list[tuple[Sender, int]] = []
            async with self._database.transaction():
                for _ in range(self._chance.choice((1, 1, 3, 10))):
                    sender = await self._chance.choice(work)()
                    written.append((sender, sender.sent))
            for sender, number in written:
                self._ledger.accepted(sender, number)
            await asyncio.sleep(self._chance.expovariate(20))

    async def _store(self) -> Sender:
        topic, private = self._anywhere()
        sender = self._sender("stored", room(topic, private=private))
        body = json.dumps(payload(sender, self._ledger.sent(sender)))
        self._note("stored message")
        await self._database.execute("select realtime.send(%s::jsonb, 'e', %s, %s)", (body, topic, private))
        return sender

    async def _song(self) -> Sender:
        owner = self._chance.choice(USERS)
        sender = self._sender("row", rows("songs", owner))
        title = f"{sender.name} {self._ledger.sent(sender)}"
        self._note("row")
        await self._database.execute("insert into songs (owner, title) values (%s, %s)", (owner, title))
        return sender

    async def _news(self) -> Sender:
        sender = self._sender("row", rows("news"))
        title = f"{sender.name} {self._ledger.sent(sender)}"
        self._note("row")
        await self._database.execute("insert into news (title) values (%s)", (title,))
        return sender


def _may_speak(seat: Seat) -> bool:
    return seat.topic != SILENT


def _settled(seat: Seat) -> bool:
    """Whether the server has answered for its row changes, so that the next answer is for the next token."""
    return not seat.unconfirmed and not seat.deciding and seat.heard.phase is Phase.THERE
