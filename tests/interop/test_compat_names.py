"""The public names of the installed `realtime`, and which of them `backbeat.compat` has."""

from __future__ import annotations

import inspect
import json
import subprocess
from typing import Any

import pytest
from tests.interop.conftest import HERE, PYTHON

from backbeat import compat

WIRE = "a message of the wire as a pydantic model: what is on the wire is none of a program's business"
INSIDE = "part of how the original works inside"
SYNC = "raises NotImplementedError, whatever one does with it: blocking programs use `backbeat.sync`"

MISSING = {
    "AccessTokenMessage": WIRE,
    "AccessTokenPayload": WIRE,
    "BroadcastMessage": WIRE,
    "ChannelCloseMessage": WIRE,
    "ChannelErrorMessage": WIRE,
    "ClientMessage": WIRE,
    "ErrorReplyMessage": WIRE,
    "HeartbeatMessage": WIRE,
    "HeartbeatPayload": WIRE,
    "JoinMessage": WIRE,
    "PostgresChangesMessage": WIRE,
    "PresenceDiffMessage": WIRE,
    "PresenceMessage": WIRE,
    "PresenceStateMessage": WIRE,
    "ReplyMessage": WIRE,
    "ServerMessage": WIRE,
    "ServerMessageAdapter": WIRE,
    "SuccessReplyMessage": WIRE,
    "SyncRealtimeChannel": SYNC,
    "SyncRealtimeClient": SYNC,
    "SyncRealtimePresence": SYNC,
    "SystemMessage": WIRE,
    "http_endpoint_url": INSIDE,
    "AsyncRealtimeClient.ref": "refs are counted for each connection, and nobody else needs them",
    "AsyncRealtimeClient.send_buffer": "what waits belongs to its channel, is bounded, and settles",
    "AsyncRealtimeChannel.join_push": INSIDE,
    "AsyncRealtimeChannel.messages_waiting_for_ack": INSIDE,
    "AsyncRealtimeChannel.on_close": INSIDE,
    "AsyncRealtimeChannel.on_error": INSIDE,
    "AsyncRealtimeChannel.rejoin_timer": INSIDE,
}
"""What is not there, and why."""


@pytest.fixture(scope="module")
def theirs() -> Any:
    """What `realtime` has."""
    printed = subprocess.run([PYTHON[0], HERE / "realtime_py" / "names.py"], capture_output=True, check=True)
    return json.loads(printed.stdout)


def has(made: object, name: str, parameters: list[list[object]] | None) -> bool:
    """Whether ours can be used in the same way: everything that can be given may be given, in this order."""
    if not hasattr(made, name):
        return False
    if parameters is None:
        return True
    ours = list(inspect.signature(getattr(made, name)).parameters.values())
    return [each.name for each in ours] == [each[0] for each in parameters] and all(
        required or one.default is not one.empty for one, (_, required) in zip(ours, parameters, strict=True)
    )


async def test_every_public_name_is_there_or_explained(theirs: Any) -> None:
    """Names of the package, and what its clients and channels have; functions take what they take there."""
    client = compat.AsyncRealtimeClient("ws://127.0.0.1/socket", "key")
    channel = client.channel("room")
    made = {
        "AsyncRealtimeClient": client,
        "AsyncRealtimeChannel": channel,
        "AsyncRealtimePresence": channel.presence,
    }
    lacking = {name for name in theirs["names"] if not hasattr(compat, name)}
    lacking |= {name for name, parameters in theirs["made by"].items() if not has(compat, name, parameters)}
    for kind, members in theirs["members"].items():
        lacking |= {f"{kind}.{name}" for name, how in members.items() if not has(made[kind], name, how)}
    assert lacking == MISSING.keys()


def test_every_word_is_the_same(theirs: Any) -> None:
    """Enumerations have the same members with the same values."""
    for name, words in theirs["words"].items():
        assert {each.name: each.value for each in getattr(compat, name)} == words, name


def test_what_is_exported_exists() -> None:
    """For `from backbeat.compat import *`."""
    assert [name for name in compat.__all__ if not hasattr(compat, name)] == []
