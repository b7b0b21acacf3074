"""Rows of realtime.messages as the replication stream reports them."""

from __future__ import annotations

import pytest

from backbeat.errors import ProtocolError
from backbeat.postgres.messages import StoredMessage, message_of
from backbeat.postgres.pgoutput import UNCHANGED, Column, Insert, Relation, Row

ID = "0f8f7d1c-8a53-4a55-9a2e-0c6f4a1b2c3d"

VALUES: dict[str, bytes | None] = {
    "topic": b"room:1",
    "extension": b"broadcast",
    "payload": b'{"id": "x", "n": 1.50}',
    "event": b"INSERT",
    "private": b"t",
    "updated_at": b"2026-11-21 10:00:00",
    "inserted_at": b"2026-11-21 10:00:00",
    "id": ID.encode(),
    "binary_payload": None,
}


def insert_of(**values: bytes | None) -> Insert:
    """A stored message with some values replaced."""
    row = VALUES | values
    columns = tuple(Column(name, 25, -1, is_key=name == "id") for name in row)
    return Insert(Relation(1, "realtime", "messages", "d", columns), list(row.values()))


def test_a_json_message() -> None:
    """The payload is the text of the jsonb value, byte for byte."""
    assert message_of(insert_of()) == StoredMessage(
        id=ID, topic="room:1", event="INSERT", private=True, payload=VALUES["payload"], binary=None
    )


def test_a_public_message() -> None:
    """Public and private channels of one name are different rooms."""
    assert not message_of(insert_of(private=b"f")).private


def test_a_binary_message() -> None:
    """The bytes arrive in hex."""
    message = message_of(insert_of(payload=None, binary_payload=rb"\x00ff5c"))
    assert (message.payload, message.binary) == (None, b"\x00\xff\\")


def test_an_empty_binary_message() -> None:
    """No bytes are bytes too."""
    assert message_of(insert_of(payload=None, binary_payload=rb"\x")).binary == b""


def test_sixteen_bytes_stay_bytes() -> None:
    """A binary payload as long as a UUID is not taken for one."""
    assert message_of(insert_of(payload=None, binary_payload=rb"\x" + b"61" * 16)).binary == b"a" * 16


def test_a_json_null_is_a_payload() -> None:
    """`null` in JSON is something else than NULL in SQL."""
    assert message_of(insert_of(payload=b"null")).payload == b"null"


def test_names_are_utf8() -> None:
    """Topic and event may hold any text."""
    message = message_of(insert_of(topic="Bühne".encode(), event="♪".encode()))
    assert (message.topic, message.event) == ("Bühne", "♪")


def test_bytes_that_are_no_text_are_replaced() -> None:
    """A database with encoding SQL_ASCII holds anything; a WebSocket carries text only."""
    message = message_of(insert_of(topic=b"caf\xe9", payload=b'"\xe9"'))
    assert (message.topic, message.payload) == ("caf\ufffd", '"\ufffd"'.encode())


def test_the_extension_does_not_matter() -> None:
    """Whatever extension a row names, it is a broadcast."""
    assert message_of(insert_of(extension=b"presence")).event == "INSERT"


@pytest.mark.parametrize("column", ["id", "event", "topic", "private", "inserted_at"])
def test_a_row_without_what_it_needs_is_no_message(column: str) -> None:
    """The error names the column that is NULL."""
    with pytest.raises(ProtocolError, match=f"lacks {column}"):
        message_of(insert_of(**{column: None}))


def test_a_row_without_payload_is_no_message() -> None:
    """There is nothing to deliver."""
    with pytest.raises(ProtocolError, match="neither payload nor binary_payload"):
        message_of(insert_of(payload=None))


def test_a_table_without_binary_payloads() -> None:
    """A schema older than binary messages still delivers the others."""
    insert = insert_of()
    older = Relation(1, "realtime", "messages", "d", insert.relation.columns[:-1])
    assert message_of(Insert(older, insert.new[:-1])).event == "INSERT"


def test_bytes_in_another_format_are_refused() -> None:
    """With `bytea_output = escape` the bytes would be taken for others."""
    with pytest.raises(ProtocolError, match="bytea_output"):
        message_of(insert_of(payload=None, binary_payload=b"plain"))


def test_an_unsent_value_is_a_missing_one() -> None:
    """What the stream leaves out is not delivered as something else."""
    row: Row = list(VALUES.values())
    row[2] = UNCHANGED
    with pytest.raises(ProtocolError, match="neither payload"):
        message_of(Insert(insert_of().relation, row))
