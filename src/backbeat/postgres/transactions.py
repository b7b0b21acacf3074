"""The streaming replication protocol without a socket: messages in, committed transactions out.

Implements "Streaming Replication Protocol" and "Logical Streaming Replication Protocol" of the PostgreSQL
manual as far as one logical slot needs them.
"""

from __future__ import annotations

import struct
from struct import Struct
from typing import TYPE_CHECKING, Final

import msgspec

from backbeat.postgres.pgoutput import (
    POSTGRES_EPOCH,
    Begin,
    Commit,
    DecodeError,
    Decoder,
    LogicalMessage,
    Relation,
    unix_microseconds,
)

if TYPE_CHECKING:
    from backbeat.postgres.pgoutput import Change

__all__ = ["Handled", "Receiver", "Transaction", "standby_status"]


class Transaction(msgspec.Struct, frozen=True):
    """A committed transaction, or a part of one that is too large to be handed over at once.

    Parts follow each other without anything in between. All of them are committed already: Postgres sends
    nothing of a transaction before its end.
    """

    xid: int
    commit_lsn: int
    """Where it committed: grows from transaction to transaction, and names one for good."""
    commit_time: int
    """Microseconds since 1970-01-01 UTC."""
    events: list[Change]
    """What happened, in order; a `Relation` stands before the first row it describes."""
    part: int = 0
    """0 for the first part, and for the first one after a durable slot has started the transaction over."""
    end_lsn: int | None = None
    """Where it ended, or None when more parts follow."""


class Handled(msgspec.Struct, frozen=True):
    """How much of a transaction was handled before all of it had arrived."""

    commit_lsn: int
    commit_time: int
    """Beside the position, for another transaction may stand there after a promotion."""
    events: int
    """Without announcements of tables: each connection has its own."""

    def is_of(self, transaction: Begin | Transaction) -> bool:
        """Tell whether it is this transaction of which something was handled."""
        lsn = transaction.final_lsn if isinstance(transaction, Begin) else transaction.commit_lsn
        return (lsn, transaction.commit_time) == (self.commit_lsn, self.commit_time)

    @staticmethod
    def after(part: Transaction, before: Handled | None) -> Handled | None:
        """Count a part of a transaction; None after its last one.

        Args:
            part: what was handled now.
            before: what had been handled before.
        """
        if part.end_lsn is not None:
            return None
        events = before.events if before is not None and before.is_of(part) else 0
        events += sum(not isinstance(event, Relation) for event in part.events)
        return Handled(part.commit_lsn, part.commit_time, events)


_KEEPALIVE = Struct("!xQqB")
_STATUS = Struct("!cQQQqB")
_HEADER: Final = 25
"""Bytes in front of the payload of XLogData: kind, start, end and time."""


def standby_status(flushed: int, *, now: float, ping: bool) -> bytes:
    """Write a Standby Status Update.

    Args:
        flushed: everything before this position is done with, and may be forgotten by Postgres.
        now: seconds since 1970-01-01 UTC.
        ping: whether Postgres shall answer at once.
    """
    return _STATUS.pack(b"r", flushed, flushed, flushed, int(now * 1_000_000) - POSTGRES_EPOCH, ping)


class Receiver:
    """Collects what one connection sends into transactions, a bounded amount at a time.

    Feed it with `receive` until it is `full` or nothing more is there; then `take`.

    Args:
        max_events: how many events to hold.
        max_bytes: how many bytes of messages about events to hold; one of them may exceed it.
        handled: what to leave out of a transaction that a durable slot starts over.
    """

    def __init__(self, *, max_events: int, max_bytes: int, handled: Handled | None = None) -> None:
        self.position = 0
        """Everything before this LSN was taken or is in what `take` returns next. May be acknowledged when
        that has been handled."""
        self.complete_until = 0
        """The latest time, in microseconds since 1970-01-01 UTC by the clock of Postgres, up to which commits
        are known to have arrived."""
        self.reply_requested = False
        """Whether Postgres waits for a status; whoever sends one resets it."""
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._handled = handled
        self._left_out = 0
        self._decoder = Decoder()
        self._done: list[Transaction] = []
        self._open: Begin | None = None
        self._events: list[Change] = []
        self._part = 0
        self._count = 0
        self._bytes = 0
        self._open_bytes = 0

    @property
    def full(self) -> bool:
        """Whether it is time to `take`."""
        return self._count >= self._max_events or self._bytes >= self._max_bytes

    def receive(self, message: bytes | memoryview) -> None:
        """Take in one CopyData message.

        Raises:
            DecodeError: it is malformed, or does not fit what came before.
        """
        match message[:1]:
            case b"w":
                self._data(bytes(message[_HEADER:]))
            case b"k":
                self._keepalive(message)
            case kind:
                raise DecodeError(f"Unknown replication message {bytes(kind)!r}.")

    def take(self) -> list[Transaction]:
        """Hand over complete transactions, and when full also what there is of one still arriving."""
        if self.full and self._open is not None and self._events:
            self._finish_part(self._open, end_lsn=None)
            self._part += 1
        done, self._done = self._done, []
        self._count = len(self._events)
        self._bytes = self._open_bytes
        return done

    def _data(self, payload: bytes) -> None:
        event = self._decoder.feed(payload)
        if event is None:
            return
        if isinstance(event, Begin):
            if self._open is not None:
                raise DecodeError("A transaction began inside another one.")
            self._open = event
            self._part = 0
            handled = self._handled
            self._left_out = handled.events if handled is not None and handled.is_of(event) else 0
        elif isinstance(event, Commit):
            if self._open is None:
                raise DecodeError("A transaction ended that had not begun.")
            self._finish_part(self._open, end_lsn=event.end_lsn)
            self._open = None
            self.position = event.end_lsn
            self.complete_until = event.commit_time
        elif self._left_out and not isinstance(event, Relation):
            self._left_out -= 1
        elif self._open is not None:
            self._events.append(event)
            self._count += 1
            self._bytes += len(payload)
            self._open_bytes += len(payload)
        # A message that is not transactional has no place in the order of commits: not for us.
        elif not (isinstance(event, LogicalMessage) and not event.transactional):
            raise DecodeError(f"A {type(event).__name__} stands outside of a transaction.")

    def _keepalive(self, message: bytes | memoryview) -> None:
        try:
            wal_end, time, reply = _KEEPALIVE.unpack(message)
        except struct.error as error:
            raise DecodeError("Malformed keepalive.") from error
        self.reply_requested = self.reply_requested or bool(reply)
        # Its position passes WAL that is of no interest to us; left unacknowledged, that WAL would pile up.
        # But a keepalive in the middle of a transaction is already beyond the rest of it.
        if self._open is None:
            self.position = max(self.position, wal_end)
            self.complete_until = max(self.complete_until, unix_microseconds(time))

    def _finish_part(self, begin: Begin, *, end_lsn: int | None) -> None:
        self._done.append(
            Transaction(begin.xid, begin.final_lsn, begin.commit_time, self._events, self._part, end_lsn)
        )
        self._events = []
        self._open_bytes = 0
