"""One client of the soak: a connection, its seats in rooms, and an entry in the books for all it does."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.soak.ledger import Ledger, Phase, Place, Sender, Stay
from tests.soak.wire import Wire

from backbeat.protocol.codec import V1, V2, decode_user_broadcast, encode_user_broadcast_push

__all__ = ["Peer", "Seat", "payload", "room", "rows"]

PREFIX = "realtime:"
CHANGES = "postgres_changes"
SERIALIZERS = {V1.vsn: V1, V2.vsn: V2}
REPLAY = 25
"""The most stored messages that a join may ask for."""
LATE = "changes arrive late"
"""What the server says when it is too busy; the changes come all the same."""

_numbers = itertools.count(1)


def room(topic: str, *, private: bool, raw: bool = False) -> Place:
    """Where broadcasts of a topic go; those that are no JSON reach vsn 2 only: a place of their own."""
    return Place(f"{topic}{' private' if private else ''}{' raw' if raw else ''}")


def rows(table: str, owner: str = "") -> Place:
    """Where the rows of a table go that one user may see."""
    return Place(f"{table} {owner}", at_once=False)


def payload(sender: Sender, number: int, padding: int = 0) -> dict[str, Any]:
    """What a message carries: who sent it, and its number."""
    return {"s": sender.name, "n": number, "pad": "x" * padding}


class _Asked(NamedTuple):
    """A push that is to be answered."""

    what: str
    join_ref: str | None
    then: Callable[[Mapping[str, Any]], None]


@dataclass(eq=False, kw_only=True)
class Seat:
    """A topic that a peer joined, or is about to.

    Attributes:
        topic: without prefix.
        ref: of the join.
        user: as whom.
        sender, raw_sender: what it sends as.
        heard: its stay in the room; `raw` where binary broadcasts go that are no JSON.
        rows: its stays at tables, by table.
        unconfirmed: how many times the server has still to say that row changes arrive.
        deciding: how many tokens of somebody else the server has still to decide about.
        old_rows: those that end when it says so.
        key: of its presence; empty when it takes no part.
        intrudes: whether it sent what it must not, which it is told.
        tracks: whether it is present, once everything was answered.
        present: who is there, by key, as it was told; None before the first state.
        may_end: why the server may end it; empty when it must not.
    """

    topic: str
    ref: str
    user: str
    private: bool
    ack: bool
    sender: Sender
    raw_sender: Sender
    heard: Stay
    raw: Stay
    rows: dict[str, Stay]
    unconfirmed: int
    key: str
    deciding: int = 0
    over: bool = False
    intrudes: bool = False
    tracks: bool = False
    old_rows: list[Stay] = field(default_factory=list)
    present: dict[str, set[str]] | None = None
    may_end: str = ""

    @property
    def stays(self) -> list[Stay]:
        """All of them."""
        return [self.heard, self.raw, *self.rows.values(), *self.old_rows]


class Peer:
    """A client.

    Args:
        ledger: the books.
        url: of the socket, `vsn` and API key included.
        vsn: 1.0.0 or 2.0.0.
    """

    def __init__(self, ledger: Ledger, url: str, vsn: str) -> None:
        self.name = f"p{next(_numbers)}"
        self.vsn = vsn
        self.seats: dict[str, Seat] = {}
        """By topic; those that were answered."""
        self.may_end = ""
        """Why the connection may end; empty when it must not."""
        self.lost = asyncio.Event()
        self._ledger = ledger
        self._serializer = SERIALIZERS[vsn]
        self._refs = itertools.count(1)
        self._answers: dict[str, _Asked] = {}
        self._coming: dict[str, Seat] = {}
        self.wire = Wire(url, on_text=self._text, on_binary=self._binary, on_lost=self._lost)

    def __repr__(self) -> str:
        return f"<Peer {self.name} vsn={self.vsn} seats={len(self.seats)}>"

    @property
    def waits_for(self) -> list[str]:
        """What it asked for that is still to be answered, in words."""
        return [asked.what for asked in self._answers.values()] + [
            f"row changes on {seat.topic}, joined with {seat.ref}"
            for seat in self.seats.values()
            if seat.unconfirmed and not seat.over
        ]

    def joining(self, topic: str) -> bool:
        """Whether a join of a topic is still to be answered."""
        return any(seat.topic == topic for seat in self._coming.values())

    # Asking -------------------------------------------------------------------------------------------------

    def _push(
        self,
        topic: str,
        event: str,
        body: object,
        *,
        join_ref: str | None = None,
        then: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> str:
        ref = str(next(self._refs))
        if then is not None and self.wire.is_open:
            self._answers[ref] = _Asked(f"{event} {ref} on {topic}", join_ref, then)
        text = json.dumps(body).encode()
        self.wire.text(self._serializer.encode_push(join_ref or ref, ref, topic, event, text))
        return ref

    def heartbeat(self) -> None:
        """Ask for a sign of life."""
        self._push("phoenix", "heartbeat", {}, then=lambda _: None)

    def join(
        self,
        topic: str,
        user: str,
        token: str | None,
        *,
        private: bool = False,
        ack: bool = False,
        echo: bool = False,
        presence: bool = False,
        tables: Mapping[str, str] | None = None,
        replay_since: float | None = None,
        refused: bool = False,
    ) -> None:
        """Join a topic, also one that is joined already.

        Args:
            topic: without prefix.
            user: as whom.
            token: the access token; None for that of the connection.
            private: whether policies decide.
            ack: whether broadcasts are answered.
            echo: whether it hears itself.
            presence: whether it takes part in presence.
            tables: tables whose inserts it hears, with the owner of the rows it may see; empty for anybody.
            replay_since: from when on stored messages are to be replayed, in seconds since 1970; None for
                no replay.
            refused: whether the join has to be refused.
        """
        tables = tables or {}
        if not self.wire.is_open:
            return
        old = self.seats.get(topic)
        if old is not None:
            self._leaving(old, "joined anew")
        who = f"{self.name}/{topic}"
        name = f"{who}/{next(_numbers)}"
        sender = self._ledger.sender(name, room(topic, private=private))
        raw_sender = self._ledger.sender(f"{name}/raw", room(topic, private=private, raw=True))
        key = f"key-{name}" if presence else ""
        broadcast: dict[str, Any] = {"ack": ack, "self": echo}
        if replay_since is not None:
            broadcast["replay"] = {"since": int(replay_since * 1000), "limit": REPLAY}
        config: dict[str, Any] = {
            "private": private,
            "broadcast": broadcast,
            "presence": {"enabled": presence, "key": key},
            "postgres_changes": [{"event": "INSERT", "schema": "public", "table": table} for table in tables],
        }
        body = {"config": config} | ({"access_token": token} if token else {})
        ledger = self._ledger
        seat = Seat(
            topic=topic,
            ref="",
            user=user,
            private=private,
            ack=ack,
            sender=sender,
            raw_sender=raw_sender,
            heard=ledger.joining(
                who,
                sender.place,
                without=None if echo else sender,
                replay=0 if replay_since is None else REPLAY,
            ),
            raw=ledger.joining(who, raw_sender.place, without=None if echo else raw_sender),
            rows={table: ledger.joining(who, rows(table, owner)) for table, owner in tables.items()},
            unconfirmed=bool(tables),
            key=key,
            may_end="it has to be refused" if refused else "",
        )
        if self.vsn == V1.vsn:
            ledger.lost(seat.raw)

        def answered(reply: Mapping[str, Any]) -> None:
            del self._coming[seat.ref]
            if old is not None:
                # The server ended it when it saw the join, whatever became of that.
                self._over(old, answered=True)
            if (reply["status"] == "ok") == refused:
                self._fault(f"{who}: join answered with {reply}")
            if reply["status"] != "ok":
                self._over(seat, answered=True)
                return
            self.seats[topic] = seat
            ledger.joined(seat.heard)
            ledger.joined(seat.raw)
            for stay in seat.rows.values():
                # Changes may come from now on; they are due when the server has said so.
                ledger.unsure(stay)

        seat.ref = self._push(PREFIX + topic, "phx_join", body, then=answered)
        self._coming[seat.ref] = seat

    def leave(self, seat: Seat) -> None:
        """Leave a topic."""
        self._leaving(seat, "left")
        self._push(
            PREFIX + seat.topic,
            "phx_leave",
            {},
            join_ref=seat.ref,
            then=lambda _: self._over(seat, answered=True),
        )

    def broadcast(self, seat: Seat, padding: int = 0) -> None:
        """Send a broadcast as text."""
        number = self._ledger.sent(seat.sender)
        body = {"type": "broadcast", "event": "e", "payload": payload(seat.sender, number, padding)}
        self._push(
            PREFIX + seat.topic,
            "broadcast",
            body,
            join_ref=seat.ref,
            then=self._ack(seat, seat.sender, number),
        )

    def broadcast_binary(self, seat: Seat, *, raw: bool) -> None:
        """Send a broadcast as a binary frame, which vsn 2 has: JSON, or bytes that are none."""
        sender = seat.raw_sender if raw else seat.sender
        number = self._ledger.sent(sender)
        data = b"%b %d" % (sender.name.encode(), number) if raw else _json(payload(sender, number))
        ref = str(next(self._refs))
        if (then := self._ack(seat, sender, number)) is not None and self.wire.is_open:
            self._answers[ref] = _Asked(f"binary broadcast {ref} on {seat.topic}", seat.ref, then)
        frame = encode_user_broadcast_push(seat.ref, ref, PREFIX + seat.topic, "e", data, is_json=not raw)
        self.wire.binary(frame)

    def intrude(self, seat: Seat) -> None:
        """Send a broadcast that the policies forbid: in nobody's name, for nobody may get it."""
        seat.intrudes = True
        body = {"type": "broadcast", "event": "e", "payload": {"s": "intruder", "n": 1}}
        self._push(PREFIX + seat.topic, "broadcast", body, join_ref=seat.ref)

    def track(self, seat: Seat, mood: int) -> None:
        """Be present."""
        seat.tracks = True
        body = {"type": "presence", "event": "track", "payload": {"mood": mood}}
        self._push(PREFIX + seat.topic, "presence", body, join_ref=seat.ref, then=self._agreed(seat))

    def untrack(self, seat: Seat) -> None:
        """Be present no more."""
        seat.tracks = False
        body = {"type": "presence", "event": "untrack"}
        self._push(PREFIX + seat.topic, "presence", body, join_ref=seat.ref, then=self._agreed(seat))

    def probe(self, seat: Seat, *, decides: bool = False) -> None:
        """Send what changes nothing, and is answered when all that was sent on the seat has been handled.

        Args:
            seat: where.
            decides: whether a token of somebody else is among that.
        """
        sent = seat.sender.sent, seat.raw_sender.sent

        def answered(_: Mapping[str, Any]) -> None:
            if seat.over:
                return
            for sender, number in zip((seat.sender, seat.raw_sender), sent, strict=True):
                self._ledger.published(sender, number)
            seat.deciding -= decides
            if not seat.deciding:
                self._ledger.joined(seat.heard)
                self._ledger.joined(seat.raw)

        body = {"type": "presence", "event": ""}
        self._push(PREFIX + seat.topic, "presence", body, join_ref=seat.ref, then=answered)

    def renew(self, seat: Seat, token: str) -> None:
        """Send a new token of the same user: nothing may be missed."""
        seat.unconfirmed += bool(seat.rows)
        self._push(PREFIX + seat.topic, "access_token", {"access_token": token}, join_ref=seat.ref)

    def become(self, seat: Seat, user: str, token: str) -> None:
        """Send a token of somebody else: what is theirs comes, what is not does not, once that is decided."""
        who = f"{self.name}/{seat.topic}"
        self._push(PREFIX + seat.topic, "access_token", {"access_token": token}, join_ref=seat.ref)
        if seat.private:
            self._ledger.unsure(seat.heard)
            self._ledger.unsure(seat.raw)
        for table, stay in list(seat.rows.items()):
            self._ledger.unsure(stay)
            if stay.place == rows(table, seat.user):
                seat.old_rows.append(stay)
                seat.rows[table] = self._ledger.joining(who, rows(table, user))
                self._ledger.unsure(seat.rows[table])
        seat.unconfirmed += bool(seat.rows)
        seat.user = user
        seat.deciding += 1
        self.probe(seat, decides=True)

    def expire(self, seat: Seat, token: str, why: str) -> None:
        """Send a token that ends the seat, now or later."""
        seat.may_end = why
        seat.unconfirmed += bool(seat.rows)
        self._push(PREFIX + seat.topic, "access_token", {"access_token": token}, join_ref=seat.ref)

    def end(self, why: str, how: Callable[[], None]) -> None:
        """End the connection.

        Args:
            why: for the report.
            how: the way.
        """
        self.may_end = why
        for seat in self.seats.values():
            self._leaving(seat, why)
        how()

    def stall(self) -> None:
        """Stop reading. The server may end the connection for it; if it does not, nothing may be missed."""
        self.may_end = "it does not read"
        self.wire.stop_reading()

    def _ack(self, seat: Seat, sender: Sender, number: int) -> Callable[[Mapping[str, Any]], None] | None:
        if not seat.ack:
            return None

        def answered(reply: Mapping[str, Any]) -> None:
            if reply["status"] == "ok":
                self._ledger.published(sender, number)
            elif not seat.over:
                self._fault(f"{self.name}/{seat.topic}: broadcast answered with {reply}")

        return answered

    def _agreed(self, seat: Seat) -> Callable[[Mapping[str, Any]], None]:
        def answered(reply: Mapping[str, Any]) -> None:
            if reply["status"] != "ok" and not seat.over:
                self._fault(f"{self.name}/{seat.topic}: presence answered with {reply}")

        return answered

    # Being told ---------------------------------------------------------------------------------------------

    def _text(self, data: bytes) -> None:
        message = json.loads(data)
        if self.vsn == V2.vsn:
            _, ref, topic, event, body = message
        else:
            ref, topic, event, body = (message[name] for name in ("ref", "topic", "event", "payload"))
        if event == "phx_reply":
            if (asked := self._answers.pop(ref, None)) is not None:
                asked.then(body)
            return
        if event == "phx_close" and ref in self._coming:
            return  # Its join is answered, or will be.
        seat = self.seats.get(topic.removeprefix(PREFIX))
        if seat is None:
            if event not in ("phx_close", "system"):
                self._fault(f"{self.name}: {event} on {topic}, where it is not")
        elif event == "broadcast":
            sender, number = body["payload"]["s"], body["payload"]["n"]
            self._ledger.receive(seat.heard, sender, number, replayed="replayed" in body.get("meta", ()))
        elif event == CHANGES:
            self._row(seat, body["data"])
        elif event == "presence_state":
            seat.present = {key: _refs(each) for key, each in body.items()}
        elif event == "presence_diff":
            self._diff(seat, body)
        elif event == "system":
            self._system(seat, body)
        elif event in ("phx_close", "phx_error") and ref == seat.ref:
            if not (seat.may_end or self.may_end):
                self._fault(f"{self.name}/{seat.topic}: {event} without a reason of ours")
            self._over(seat)

    def _binary(self, data: bytes) -> None:
        message = decode_user_broadcast(data)
        seat = self.seats.get(message.topic.removeprefix(PREFIX))
        if seat is None:
            self._fault(f"{self.name}: broadcast on {message.topic}, where it is not")
        elif message.is_json:
            body = json.loads(message.payload)
            self._ledger.receive(seat.heard, body["s"], body["n"])
        else:
            name, _, number = message.payload.decode().rpartition(" ")
            self._ledger.receive(seat.raw, name, int(number))

    def _row(self, seat: Seat, data: Mapping[str, Any]) -> None:
        name, _, number = data["record"]["title"].rpartition(" ")
        stay = seat.rows[data["table"]]
        for old in seat.old_rows:
            # Until the server says that the new token counts, rows may still come under the old one.
            if name.startswith(old.place.name):
                stay = old
        self._ledger.receive(stay, name, int(number))

    def _system(self, seat: Seat, body: Mapping[str, Any]) -> None:
        if body["status"] == "ok" and body["extension"] == CHANGES:
            if seat.unconfirmed:
                seat.unconfirmed -= 1
            if seat.unconfirmed:
                return
            for stay in seat.old_rows:
                self._ledger.lost(stay)
            seat.old_rows.clear()
            for stay in seat.rows.values():
                self._ledger.joined(stay)
        elif body["status"] != "ok" and not (seat.may_end or seat.intrudes) and LATE not in body["message"]:
            self._fault(f"{self.name}/{seat.topic}: {body}")

    @staticmethod
    def _diff(seat: Seat, body: Mapping[str, Any]) -> None:
        if seat.present is None:
            return
        for key, each in body["joins"].items():
            seat.present.setdefault(key, set()).update(_refs(each))
        for key, each in body["leaves"].items():
            seat.present.setdefault(key, set()).difference_update(_refs(each))

    def _lost(self, how: str) -> None:
        if not self.may_end:
            self._fault(f"{self.name}: connection ended without a reason of ours: {how}")
        self._answers.clear()
        for seat in [*self.seats.values(), *self._coming.values()]:
            self._over(seat)
        self._coming.clear()
        self.seats.clear()
        self.lost.set()

    # Ending -------------------------------------------------------------------------------------------------

    def _leaving(self, seat: Seat, why: str) -> None:
        seat.may_end = why
        seat.tracks = False
        for stay in seat.stays:
            self._ledger.leaving(stay)

    def _over(self, seat: Seat, *, answered: bool = False) -> None:
        if seat.over:
            return
        seat.over, seat.tracks = True, False
        for stay in seat.stays:
            if stay.phase is not Phase.OVER:
                (self._ledger.left if answered else self._ledger.lost)(stay)
        # Told that it is over, it is told nothing more of what waited for a decision.
        for ref in [ref for ref, asked in self._answers.items() if asked.join_ref == seat.ref]:
            del self._answers[ref]
        if self.seats.get(seat.topic) is seat:
            del self.seats[seat.topic]

    def _fault(self, text: str) -> None:
        self._ledger.faults.append(text)


def _json(body: object) -> bytes:
    return json.dumps(body).encode()


def _refs(entry: Mapping[str, Any]) -> set[str]:
    return {meta["phx_ref"] for meta in entry["metas"]}
