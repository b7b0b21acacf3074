"""From replication messages to transactions, without a socket."""

from __future__ import annotations

import struct

import pytest

from backbeat.postgres.pgoutput import DecodeError, Insert, LogicalMessage
from backbeat.postgres.transactions import Handled, Receiver, standby_status

EPOCH = 946_684_800_000_000
RELATION = b"R\0\0\0\x07public\0songs\0d\0\x01\x01id\0" + struct.pack("!Ii", 23, -1)


def data(payload: bytes) -> bytes:
    """Write an XLogData message."""
    return struct.pack("!cQQq", b"w", 1, 2, 3) + payload


def keepalive(wal_end: int, *, time: int = 0, reply: bool = False) -> bytes:
    """Write a Primary keepalive message."""
    return struct.pack("!cQqB", b"k", wal_end, time - EPOCH, reply)


def begin(lsn: int, *, time: int = EPOCH) -> bytes:
    return data(struct.pack("!cQqI", b"B", lsn, time - EPOCH, lsn))


def commit(lsn: int, *, time: int = EPOCH) -> bytes:
    return data(struct.pack("!cBQQq", b"C", 0, lsn, lsn + 8, time - EPOCH))


def insert(value: bytes) -> bytes:
    return data(b"I\0\0\0\x07N\0\x01t" + struct.pack("!I", len(value)) + value)


def message(*, transactional: bool) -> bytes:
    return data(struct.pack("!cBQ", b"M", transactional, 5) + b"p\0\0\0\0\x01x")


def fed(
    *messages: bytes, max_events: int = 100, max_bytes: int = 10_000, handled: Handled | None = None
) -> Receiver:
    """A receiver that has taken these in, without a look at whether it is full."""
    receiver = Receiver(max_events=max_events, max_bytes=max_bytes, handled=handled)
    for each in messages:
        receiver.receive(each)
    return receiver


def values(receiver: Receiver) -> list[tuple[int, int, bool, list[bytes]]]:
    """Take: where each committed, which part it is, whether it is the last one, and the inserted values."""
    return [
        (t.commit_lsn, t.part, t.end_lsn is not None, [e.new[0] for e in t.events if isinstance(e, Insert)])  # type: ignore[misc]
        for t in receiver.take()
    ]


def test_complete_transactions_are_taken_once() -> None:
    """What is complete is handed over, once; what is not stays."""
    receiver = fed(begin(10), data(RELATION), insert(b"1"), commit(10), begin(20), insert(b"2"))
    assert values(receiver) == [(10, 0, True, [b"1"])]
    assert values(receiver) == []
    receiver.receive(commit(20))
    assert values(receiver) == [(20, 0, True, [b"2"])]


def test_full_by_events_hands_over_a_part() -> None:
    """With enough events of one transaction, those are a part; its other parts follow."""
    receiver = fed(begin(10), data(RELATION), insert(b"1"), max_events=2)
    assert receiver.full
    assert values(receiver) == [(10, 0, False, [b"1"])]
    for each in (insert(b"2"), insert(b"3")):
        receiver.receive(each)
    assert values(receiver) == [(10, 1, False, [b"2", b"3"])]
    receiver.receive(commit(10))
    assert values(receiver) == [(10, 2, True, [])]


def test_what_was_handled_of_a_transaction_is_left_out() -> None:
    """Of that one only; announcements of tables are none of it."""
    messages = (
        begin(10),
        data(RELATION),
        insert(b"1"),
        insert(b"2"),
        commit(10),
        begin(20),
        insert(b"3"),
        commit(20),
    )
    assert values(fed(*messages, handled=Handled(10, EPOCH, 1))) == [
        (10, 0, True, [b"2"]),
        (20, 0, True, [b"3"]),
    ]


def test_another_transaction_at_the_same_place_is_left_whole() -> None:
    """After a promotion there may be one."""
    messages = begin(10, time=EPOCH + 1), data(RELATION), insert(b"1"), commit(10, time=EPOCH + 1)
    assert values(fed(*messages, handled=Handled(10, EPOCH, 1))) == [(10, 0, True, [b"1"])]


def test_parts_are_counted_until_the_last_one() -> None:
    """What has been handled of a transaction adds up, and of another one it begins anew."""
    receiver = fed(begin(10), data(RELATION), insert(b"1"), max_events=2)
    first = Handled.after(receiver.take()[-1], None)
    receiver.receive(insert(b"2"))
    receiver.receive(insert(b"3"))
    (part,) = receiver.take()
    receiver.receive(commit(10))
    (last,) = receiver.take()
    assert first == Handled(10, EPOCH, 1)
    assert Handled.after(part, first) == Handled(10, EPOCH, 3)
    assert Handled.after(part, Handled(5, EPOCH, 7)) == Handled(10, EPOCH, 2)
    assert Handled.after(last, first) is None


def test_bytes_of_an_unfinished_transaction_are_remembered() -> None:
    """Taking nothing frees nothing: rows that trickle in still fill the receiver."""
    receiver = fed(begin(10), data(RELATION), max_bytes=1000)
    for _ in range(3):
        assert not receiver.full
        assert values(receiver) == []
        receiver.receive(insert(b"x" * 330))
    assert receiver.full


def test_taking_makes_room() -> None:
    """After a full receiver was emptied it takes in as much again."""
    receiver = fed(begin(10), data(RELATION), insert(b"x" * 1000), commit(10), max_bytes=1000)
    assert receiver.full
    receiver.take()
    assert not receiver.full


def test_position_is_the_end_of_the_last_commit() -> None:
    """An open transaction does not move the position."""
    assert fed(begin(10), commit(10), begin(20)).position == 18


def test_keepalive_moves_the_position() -> None:
    """WAL of no interest is passed, and never backwards."""
    assert fed(keepalive(50), keepalive(40)).position == 50


def test_keepalive_inside_a_transaction_does_not_move_the_position() -> None:
    """Acknowledging it would lose the rest of the transaction."""
    assert fed(keepalive(5), begin(10), keepalive(50)).position == 5


def test_completeness_follows_the_clock_of_postgres() -> None:
    """Commits, and keepalives between them, tell up to when everything has arrived."""
    assert fed(begin(10), commit(10, time=EPOCH + 5)).complete_until == EPOCH + 5
    assert fed(keepalive(5, time=EPOCH + 7)).complete_until == EPOCH + 7


def test_requested_reply_is_remembered() -> None:
    """A later keepalive without a request does not take it back."""
    assert fed(keepalive(5, reply=True), keepalive(6)).reply_requested


def test_message_outside_of_transactions_is_dropped() -> None:
    """It has no place in the order of commits, nor any in memory."""
    receiver = fed(message(transactional=False), max_events=1, max_bytes=1)
    assert not receiver.full
    assert receiver.take() == []


def test_transactional_message_keeps_its_place() -> None:
    """It is an event like any other."""
    [transaction] = fed(begin(10), message(transactional=True), commit(10)).take()
    assert transaction.events == [LogicalMessage(5, True, "p", b"x")]


@pytest.mark.parametrize(
    "messages",
    [
        [b""],
        [b"x"],
        [b"k\0"],
        [data(b"")],
        [begin(1), begin(2)],
        [commit(1)],
        [data(RELATION)],
        [message(transactional=True)],
    ],
)
def test_nonsense_is_a_decode_error(messages: list[bytes]) -> None:
    """Malformed or misplaced messages are a DecodeError."""
    with pytest.raises(DecodeError):
        fed(*messages)


def test_standby_status() -> None:
    """The status has the layout of the manual: three positions, time since 2000, and the wish for a reply."""
    status = standby_status(7, now=EPOCH / 1e6 + 1.5, ping=True)
    assert status == struct.pack("!cQQQqB", b"r", 7, 7, 7, 1_500_000, 1)
