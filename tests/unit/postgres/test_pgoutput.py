"""The pgoutput decoder, against messages written by hand from the PostgreSQL manual."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.postgres.pgoutput import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    DecodeError,
    Decoder,
    Delete,
    Insert,
    LogicalMessage,
    Relation,
    Truncate,
    Update,
)

COMMITTED = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SONGS = Relation(
    7001,
    "public",
    "songs",
    "d",
    (Column("id", 20, -1, is_key=True), Column("title", 25, -1, is_key=False)),
)


def relation(table: Relation) -> bytes:
    """Write a Relation message."""
    head = struct.pack("!cI", b"R", table.oid) + table.schema.encode() + b"\0" + table.table.encode() + b"\0"
    head += table.replica_identity.encode() + struct.pack("!H", len(table.columns))
    return head + b"".join(
        bytes([c.is_key]) + c.name.encode() + b"\0" + struct.pack("!Ii", c.type_oid, c.type_modifier)
        for c in table.columns
    )


def row(*values: bytes | str | None) -> bytes:
    """Write TupleData: bytes as text, None as NULL, a str as the bare kind."""
    out = struct.pack("!H", len(values))
    for value in values:
        if isinstance(value, bytes):
            out += struct.pack("!cI", b"t", len(value)) + value
        else:
            out += b"n" if value is None else value.encode()
    return out


def change(kind: bytes, *parts: bytes, oid: int = SONGS.oid) -> bytes:
    """Write an Insert, Update or Delete message."""
    return struct.pack("!cI", kind, oid) + b"".join(parts)


BEGIN = struct.pack("!cQqI", b"B", 0xAB_0000_0001, COMMITTED - 946_684_800_000_000, 4711)
COMMIT = struct.pack("!cBQQq", b"C", 0, 0xAB_0000_0001, 0xAB_0000_0040, COMMITTED - 946_684_800_000_000)
INSERT = change(b"I", b"N", row(b"1", b"Waltz"))
UPDATE = change(b"U", b"K", row(b"1", None), b"N", row(b"2", "u"))
UPDATE_FULL = change(b"U", b"O", row(b"1", b"a"), b"N", row(b"1", b"b"))
DELETE = change(b"D", b"O", row(b"1", b"Waltz"))
TRUNCATE = struct.pack("!cIBI", b"T", 1, 3, SONGS.oid)
MESSAGE = struct.pack("!cBQ", b"M", 1, 99) + b"ddl\0" + struct.pack("!I", 5) + b"a\0b\xffc"
EVERY_KIND = [BEGIN, COMMIT, INSERT, UPDATE, UPDATE_FULL, DELETE, TRUNCATE, MESSAGE, relation(SONGS)]


@pytest.fixture
def decoder() -> Decoder:
    decoder = Decoder()
    decoder.feed(relation(SONGS))
    return decoder


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (BEGIN, Begin(0xAB_0000_0001, COMMITTED, 4711)),
        (COMMIT, Commit(0xAB_0000_0001, 0xAB_0000_0040, COMMITTED)),
        (relation(SONGS), SONGS),
        (INSERT, Insert(SONGS, [b"1", b"Waltz"])),
        (change(b"I", b"N", row(b"1", b"")), Insert(SONGS, [b"1", b""])),
        (change(b"U", b"N", row(b"1", None)), Update(SONGS, None, None, [b"1", None])),
        (UPDATE, Update(SONGS, [b"1", None], "K", [b"2", UNCHANGED])),
        (UPDATE_FULL, Update(SONGS, [b"1", b"a"], "O", [b"1", b"b"])),
        (DELETE, Delete(SONGS, [b"1", b"Waltz"], "O")),
        (change(b"D", b"K", row(b"1", None)), Delete(SONGS, [b"1", None], "K")),
        (TRUNCATE, Truncate((SONGS,), cascade=True, restart_identity=True)),
        (MESSAGE, LogicalMessage(99, True, "ddl", b"a\0b\xffc")),
        (b"Y\0\0\x10\0public\0mood\0", None),
        (b"O\0\0\0\0\0\0\0\x01upstream\0", None),
    ],
)  # fmt: skip
def test_message_becomes_event(decoder: Decoder, payload: bytes, event: object) -> None:
    """Every message of protocol version 1 becomes its event, and those of no use become nothing."""
    assert decoder.feed(payload) == event


def test_newer_relation_describes_later_rows(decoder: Decoder) -> None:
    """After DDL the next rows are read, and described, by the new announcement."""
    widened = Relation(
        SONGS.oid, "public", "tunes", "f", (*SONGS.columns, Column("key", 25, -1, is_key=True))
    )
    decoder.feed(relation(widened))
    assert decoder.feed(change(b"I", b"N", row(b"1", b"a", b"Em"))) == Insert(widened, [b"1", b"a", b"Em"])


def test_truncate_of_two_tables_is_one_event(decoder: Decoder) -> None:
    """TRUNCATE of several tables names them in one event."""
    shows = Relation(7002, "public", "shows", "d", ())
    decoder.feed(relation(shows))
    event = decoder.feed(struct.pack("!cIBII", b"T", 2, 0, SONGS.oid, shows.oid))
    assert event == Truncate((SONGS, shows), cascade=False, restart_identity=False)


def test_empty_schema_is_the_catalogue() -> None:
    """An empty schema name means pg_catalog."""
    event = Decoder().feed(relation(Relation(1, "", "t", "n", ())))
    assert event == Relation(1, "pg_catalog", "t", "n", ())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"S\0\0\0\x01\x01",
        change(b"I", b"N", row(b"1", b"a"), oid=1),
        change(b"I", b"X", row(b"1", b"a")),
        change(b"I", b"N", row(b"1")),
        change(b"I", b"N", row(b"1", "b")),
        change(b"U", b"K", row(b"1", None), b"K", row(b"1", None)),
        change(b"D", b"N", row(b"1", b"a")),
        change(b"I", b"N", b"\0\2t\xff\xff\xff\xff1n"),
        struct.pack("!cIBI", b"T", 0xFFFF_FFFF, 0, SONGS.oid),
        b"R\0\0\0\x01public\0t\0x\0\0",
        b"R\0\0\0\x01\xff\0t\0d\0\0",
    ],
)
def test_malformed_message_is_a_decode_error(decoder: Decoder, payload: bytes) -> None:
    """Unknown kinds, unannounced tables and wrong counts are a DecodeError, never another exception."""
    with pytest.raises(DecodeError):
        decoder.feed(payload)


@pytest.mark.parametrize("payload", EVERY_KIND)
def test_cut_or_extended_message_is_a_decode_error(decoder: Decoder, payload: bytes) -> None:
    """A message cut at any byte, or with a byte too many, is never taken for a shorter or longer one."""
    for wrong in [payload[:end] for end in range(len(payload))] + [payload + b"\0"]:
        with pytest.raises(DecodeError):
            decoder.feed(wrong)


@given(st.sampled_from(EVERY_KIND), st.integers(0, 80), st.binary(min_size=1, max_size=6))
def test_damaged_message_raises_nothing_else(payload: bytes, position: int, damage: bytes) -> None:
    """Overwriting any bytes of a message gives an event or a DecodeError."""
    decoder = Decoder()
    decoder.feed(relation(SONGS))
    damaged = payload[:position] + damage + payload[position + len(damage) :]
    try:
        decoder.feed(damaged)
    except DecodeError:
        return
