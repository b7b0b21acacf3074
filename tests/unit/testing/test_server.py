"""The server in memory, by itself: what it answers, and that its page is true."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backbeat.errors import UpgradeRefused
from backbeat.testing import MemoryConnection, MemoryServer

PAGE = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()


class Peer:
    """Somebody who speaks the protocol by hand."""

    def __init__(self, server: MemoryServer, vsn: str = "2.0.0") -> None:
        self.frames: list[Any] = []
        self.closed: list[tuple[int, str]] = []
        self.connection: MemoryConnection = server.connect(
            vsn, write=self.frames.append, hang_up=lambda code, reason: self.closed.append((code, reason))
        )

    def say(self, *message: object) -> list[Any]:
        """Send a message; return what came since."""
        del self.frames[:]
        self.connection.receive(msgspec.json.encode(message).decode())
        return [msgspec.json.decode(frame) for frame in self.frames]


def test_it_answers_as_servers_do() -> None:
    """Heartbeats, joins, leaves, and what is for no channel."""
    peer = Peer(MemoryServer())
    ok = {"status": "ok", "response": {}}
    assert peer.say(None, "1", "phoenix", "heartbeat", {}) == [[None, "1", "phoenix", "phx_reply", ok]]
    (reply, state) = peer.say("2", "2", "realtime:a", "phx_join", {"config": {"presence": {"enabled": True}}})
    assert reply == [
        "2",
        "2",
        "realtime:a",
        "phx_reply",
        {"status": "ok", "response": {"postgres_changes": []}},
    ]
    assert state == ["2", None, "realtime:a", "presence_state", {}]
    assert peer.say("2", "3", "realtime:a", "phx_leave", {}) == [
        ["2", "3", "realtime:a", "phx_reply", ok],
        ["2", "2", "realtime:a", "phx_close", {}],
    ]
    (lost,) = peer.say("2", "4", "realtime:a", "broadcast", {})
    assert lost[4] == {"status": "error", "response": {"reason": "unmatched topic"}}


def test_a_second_join_replaces_the_first() -> None:
    """The new one is answered, then the old one is closed."""
    peer = Peer(MemoryServer())
    peer.say("1", "1", "realtime:a", "phx_join", {"config": {}})
    found = peer.say("2", "2", "realtime:a", "phx_join", {"config": {}})
    assert [(frame[0], frame[3]) for frame in found] == [("2", "phx_reply"), ("1", "phx_close")]


def test_clients_of_both_versions_hear_each_other() -> None:
    """Text and binary, the sender left out; private and public channels are apart."""
    server = MemoryServer()
    old, new, hidden = Peer(server, "1.0.0"), Peer(server), Peer(server)
    join = {"topic": "realtime:a", "event": "phx_join", "payload": {"config": {}}, "ref": "1"}
    old.connection.receive(msgspec.json.encode(join).decode())
    new.say("1", "1", "realtime:a", "phx_join", {"config": {}})
    hidden.say("1", "1", "realtime:a", "phx_join", {"config": {"private": True}})
    for peer in (old, new, hidden):
        peer.frames.clear()
    push = {"topic": "realtime:a", "event": "broadcast", "payload": {"event": "x", "payload": {"n": 1}}}
    old.connection.receive(msgspec.json.encode(push | {"ref": "2"}).decode())
    assert (old.frames, hidden.frames) == ([], [])
    assert new.frames[0].endswith(b'x{"n":1}')


def test_what_it_cannot_read_is_counted() -> None:
    """And costs nothing else."""
    server = MemoryServer()
    peer = Peer(server)
    for frame in ("", "[]", b"\x00", b""):
        peer.connection.receive(frame)
    assert (server.bad_frames, peer.frames, peer.closed) == (4, [], [])


async def test_it_refuses_as_often_as_it_was_told() -> None:
    """Then it opens."""
    server = MemoryServer()
    server.refuse_upgrades(429, "Too many connected users", times=2, retry_after=7)
    for _ in range(2):
        with pytest.raises(UpgradeRefused) as refused:
            await server.open("ws://memory?vsn=2.0.0", {})
        assert (refused.value.status, refused.value.retry_after) == (429, 7)
    socket = await server.open("ws://memory?vsn=2.0.0", {})
    server.close(1012, "restart")
    assert socket.closing == (1012, "restart")
    with pytest.raises(OSError, match="gone"):
        await socket.send("x")


async def test_the_examples_of_its_page_run() -> None:
    """In their order, in one namespace."""
    namespace: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/testing.md", "exec"), namespace)  # noqa: S102 - it is our own page
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        assert inspect.iscoroutinefunction(test)
        await test()


def test_every_call_on_its_page_exists() -> None:
    """Names in the table are methods of the server or of its connections."""
    names = set(re.findall(r"`\.?(?:connections\[0\]\.)?(\w+)\(", PAGE))
    assert len(names) > 10
    for name in names - {"ping", "settled", "next"}:
        assert hasattr(MemoryServer, name) or hasattr(MemoryConnection, name), name
