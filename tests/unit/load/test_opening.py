"""The client's side of the handshake, against our server's side of it."""

from __future__ import annotations

import pytest

from backbeat.errors import ProtocolError
from backbeat.load.opening import new_key, read_answer, request
from backbeat.websocket.handshake import accept, parse_head, proof, refuse


def test_the_server_understands_the_request() -> None:
    """And its answer proves it."""
    key = new_key()
    asked = parse_head(request("ws://h.test:81/socket/websocket?apikey=k&vsn=2.0.0", key))
    assert (asked.path, asked.query) == ("/socket/websocket", {"apikey": "k", "vsn": "2.0.0"})
    answer = read_answer(accept(asked) + b"frames")
    assert answer is not None
    assert (answer.status, answer.accept, answer.rest) == (101, proof(key), b"frames")


def test_a_refusal_is_read_with_its_body() -> None:
    """As far as it has come."""
    answer = read_answer(refuse(429, b"too many")[:-2])
    assert answer is not None
    assert (answer.status, answer.rest, answer.length) == (429, b"too ma", 8)


def test_half_an_answer_is_none() -> None:
    """Nothing is decided before the head is complete."""
    whole = refuse(401)
    assert [read_answer(whole[:size]) for size in range(len(whole))] == [None] * len(whole)


@pytest.mark.parametrize(
    "data", [b"E\0\0\0", b"SSH-2.0-x\r\n", b"HTTP/1.1 nonsense\r\n\r\n", b"HTTP/1.1 " + b"x" * 40_000]
)
def test_what_is_no_http_is_told(data: bytes) -> None:
    """Another program listens there."""
    with pytest.raises(ProtocolError):
        read_answer(data)
