"""What Postgres says on a logical replication stream: bytes in, events out.

The format is `pgoutput` with protocol version 1 and text values ("Logical Replication Message Formats" in the
PostgreSQL manual). A transaction arrives whole and after its commit: one `Begin`, its events, one `Commit`.
Values stay the bytes Postgres wrote; `backbeat.postgres.values` makes JSON of them.
"""

from __future__ import annotations

import struct
from enum import Enum
from struct import Struct
from typing import Final, Literal, TypeAlias

import msgspec

from backbeat.errors import StreamError

__all__ = [
    "UNCHANGED",
    "Begin",
    "Change",
    "Column",
    "Commit",
    "DecodeError",
    "Decoder",
    "Delete",
    "Event",
    "Insert",
    "LogicalMessage",
    "Relation",
    "Row",
    "Truncate",
    "Unchanged",
    "Update",
    "unix_microseconds",
]

POSTGRES_EPOCH: Final = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970-01-01, both UTC."""


class Unchanged(Enum):
    """The type of `UNCHANGED`."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
"""Stands for a value stored out of line (TOAST) that an UPDATE did not touch: Postgres does not resend it."""

Row: TypeAlias = list[bytes | Unchanged | None]
"""The values of a row in the order of `Relation.columns`: text in UTF-8, None for NULL, or `UNCHANGED`."""

OldKind: TypeAlias = Literal["K", "O"]
"""Which old values came along: those of the replica identity (`K`; all others are None), or all (`O`)."""


class DecodeError(StreamError):
    """The stream holds something that is not pgoutput version 1, or refers to what was never announced."""

    code = "ReplicationDecodeError"


class Begin(msgspec.Struct, frozen=True):
    """A committed transaction starts."""

    final_lsn: int
    """Where in the WAL it committed."""
    commit_time: int
    """Microseconds since 1970-01-01 UTC."""
    xid: int


class Commit(msgspec.Struct, frozen=True):
    """The transaction is complete."""

    lsn: int
    end_lsn: int
    """What to acknowledge once the transaction has been handled."""
    commit_time: int
    """Microseconds since 1970-01-01 UTC."""


class Column(msgspec.Struct, frozen=True):
    """A published column of a table."""

    name: str
    type_oid: int
    type_modifier: int
    is_key: bool
    """Whether it belongs to the replica identity."""


class Relation(msgspec.Struct, frozen=True):
    """A table as the following rows describe it. Sent before its first row, and again after DDL on it."""

    oid: int
    schema: str
    table: str
    replica_identity: str
    """`d` default (the primary key), `n` nothing, `f` full, `i` an index."""
    columns: tuple[Column, ...]


class Insert(msgspec.Struct, frozen=True):
    """A row was inserted."""

    relation: Relation
    new: Row


class Update(msgspec.Struct, frozen=True):
    """A row was changed. With the default identity the old key comes along only when the key changed."""

    relation: Relation
    old: Row | None
    old_kind: OldKind | None
    new: Row


class Delete(msgspec.Struct, frozen=True):
    """A row was deleted."""

    relation: Relation
    old: Row
    old_kind: OldKind


class Truncate(msgspec.Struct, frozen=True):
    """Tables were emptied, all by one statement."""

    relations: tuple[Relation, ...]
    cascade: bool
    restart_identity: bool


class LogicalMessage(msgspec.Struct, frozen=True):
    """What `pg_logical_emit_message` wrote; a transactional one stands inside its transaction."""

    lsn: int
    transactional: bool
    prefix: str
    content: bytes


Change: TypeAlias = Relation | Insert | Update | Delete | Truncate | LogicalMessage
Event: TypeAlias = Begin | Commit | Change

_BEGIN = Struct("!xQqI")
_COMMIT = Struct("!xBQQq")
_RELATION_OID = Struct("!xI")
_COLUMN_TYPE = Struct("!Ii")
_COUNT = Struct("!H")
_TRUNCATE = Struct("!xIB")
_MESSAGE = Struct("!xBQ")
_LENGTH = Struct("!I")

_CASCADE, _RESTART_IDENTITY = 1, 2
_IDENTITIES = frozenset("dnfi")


def unix_microseconds(postgres_time: int) -> int:
    """Turn a timestamp of the replication protocol into microseconds since 1970-01-01 UTC."""
    return postgres_time + POSTGRES_EPOCH


class Decoder:
    """Decodes the stream of one connection; Postgres announces every table anew on the next one."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}

    def feed(self, payload: bytes) -> Event | None:
        """Decode one message.

        Args:
            payload: what one XLogData message carried.

        Returns:
            The event, or None for what is of no use here: data types (the catalogue knows more) and origins.

        Raises:
            DecodeError: the message is malformed, of another protocol version, or of a table never announced.
        """
        try:
            event, end = self._decode(payload)
        except (IndexError, struct.error, ValueError, KeyError) as error:
            raise DecodeError(f"Malformed pgoutput message {payload[:1]!r}: {error!r}.") from error
        # Slices past the end are short instead of raising: this is where a cut message is found out.
        if end != len(payload):
            raise DecodeError(
                f"A pgoutput message {payload[:1]!r} of {len(payload)} bytes should have had {end}."
            )
        return event

    def _decode(self, data: bytes) -> tuple[Event | None, int]:
        """Decode one message and tell where it ended."""
        match data[0]:
            case 73:  # I
                relation = self._relation(data)
                _expect(data, 5, b"N")
                new, end = _row(data, 6, relation)
                return Insert(relation, new), end
            case 85:  # U
                return self._update(data)
            case 68:  # D
                relation = self._relation(data)
                kind = _old_kind(data[5])
                if kind is None:
                    raise ValueError("a DELETE without the old row")
                old, end = _row(data, 6, relation)
                return Delete(relation, old, kind), end
            case 66:  # B
                lsn, time, xid = _BEGIN.unpack_from(data)
                return Begin(lsn, unix_microseconds(time), xid), _BEGIN.size
            case 67:  # C
                _, lsn, end_lsn, time = _COMMIT.unpack_from(data)
                return Commit(lsn, end_lsn, unix_microseconds(time)), _COMMIT.size
            case 82:  # R
                relation, end = _announcement(data)
                self._relations[relation.oid] = relation
                return relation, end
            case 84:  # T
                return self._truncate(data)
            case 77:  # M
                return _logical_message(data)
            case 89 | 79:  # Y, O
                return None, len(data)
        raise ValueError("unknown type of message")

    def _relation(self, data: bytes) -> Relation:
        return self._relations[_RELATION_OID.unpack_from(data)[0]]

    def _update(self, data: bytes) -> tuple[Update, int]:
        relation = self._relation(data)
        old, position = None, 5
        kind = _old_kind(data[position])
        if kind is not None:
            old, position = _row(data, position + 1, relation)
        _expect(data, position, b"N")
        new, end = _row(data, position + 1, relation)
        return Update(relation, old, kind, new), end

    def _truncate(self, data: bytes) -> tuple[Truncate, int]:
        count, flags = _TRUNCATE.unpack_from(data)
        end = _TRUNCATE.size + 4 * count
        oids = Struct(f"!{count}I").unpack(data[_TRUNCATE.size : end])
        relations = tuple(self._relations[oid] for oid in oids)
        return Truncate(relations, bool(flags & _CASCADE), bool(flags & _RESTART_IDENTITY)), end


def _row(data: bytes, position: int, relation: Relation) -> tuple[Row, int]:
    """Read TupleData. The innermost loop of the stream: plain indexing, no helper calls."""
    (count,) = _COUNT.unpack_from(data, position)
    position += 2
    if count != len(relation.columns):
        raise ValueError(f"{count} values for the {len(relation.columns)} columns of {relation.table}")
    row: Row = []
    append = row.append
    for _ in range(count):
        kind = data[position]
        if kind == 116:  # t
            start = position + 5
            position = start + int.from_bytes(data[position + 1 : start], "big")
            append(data[start:position])
        elif kind == 110:  # n
            append(None)
            position += 1
        elif kind == 117:  # u
            append(UNCHANGED)
            position += 1
        else:
            raise ValueError(f"unknown kind of value {kind}")
    return row, position


def _announcement(data: bytes) -> tuple[Relation, int]:
    (oid,) = _RELATION_OID.unpack_from(data)
    schema, position = _string(data, 5)
    table, position = _string(data, position)
    identity = chr(data[position])
    if identity not in _IDENTITIES:
        raise ValueError(f"unknown replica identity {identity!r}")
    (count,) = _COUNT.unpack_from(data, position + 1)
    position += 3
    columns = []
    for _ in range(count):
        is_key = bool(data[position] & 1)
        name, position = _string(data, position + 1)
        type_oid, modifier = _COLUMN_TYPE.unpack_from(data, position)
        position += _COLUMN_TYPE.size
        columns.append(Column(name, type_oid, modifier, is_key))
    # An empty schema name stands for pg_catalog.
    return Relation(oid, schema or "pg_catalog", table, identity, tuple(columns)), position


def _logical_message(data: bytes) -> tuple[LogicalMessage, int]:
    flags, lsn = _MESSAGE.unpack_from(data)
    prefix, position = _string(data, _MESSAGE.size)
    start = position + _LENGTH.size
    end = start + _LENGTH.unpack_from(data, position)[0]
    return LogicalMessage(lsn, bool(flags & 1), prefix, data[start:end]), end


def _string(data: bytes, position: int) -> tuple[str, int]:
    end = data.index(0, position)
    return data[position:end].decode(), end + 1


def _old_kind(byte: int) -> OldKind | None:
    if byte == 75:
        return "K"
    return "O" if byte == 79 else None


def _expect(data: bytes, position: int, kind: bytes) -> None:
    if data[position : position + 1] != kind:
        raise ValueError(f"expected {kind!r} at byte {position}")
