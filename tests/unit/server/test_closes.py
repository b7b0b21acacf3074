"""Every socket that the server closes is counted, once, under what for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backbeat.protocol import closings
from backbeat.server.limits import LimitSettings
from backbeat.websocket.frames import Opcode


async def test_a_breach_of_the_protocol_counts_under_its_code(server: Any) -> None:
    """Whatever is sent behind it."""
    client = server.client()
    client.socket.data_received(b"\xff\xff" * 10)
    client.socket.data_received(b"\xff\xff" * 10)
    assert server.realtime.metrics.closes == {"PROTOCOL_ERROR": 1}


async def test_too_many_joins_count_under_the_code_of_the_refusal(start: Callable[..., Any]) -> None:
    """So that the counter and the reply name the same page."""
    server = start(limits=LimitSettings(max_joins_per_second=1))
    client = server.client()
    for number in range(9):
        client.join(f"realtime:{number}")
    assert server.realtime.metrics.closes == {"ClientJoinRateLimitReached": 1}


async def test_a_server_that_stops_counts_every_socket(server: Any) -> None:
    """Once, though it may be told twice."""
    clients = [server.client() for _ in range(2)]
    for client in clients * 2:
        client.socket.shutdown()
    assert server.realtime.metrics.closes == {"RealtimeRestarting": 2}


async def test_a_close_of_the_client_does_not_count(server: Any) -> None:
    """It is the client's."""
    client = server.client()
    client.send(Opcode.CLOSE, (1000).to_bytes(2, "big"))
    assert server.realtime.metrics.closes == {}


async def test_of_two_reasons_to_close_the_first_counts(server: Any) -> None:
    """The other comes too late to be said."""
    client = server.client()
    client.socket.end(closings.IDLE)
    client.socket.end(closings.MESSAGE_TOO_SLOW)
    assert server.realtime.metrics.closes == {"IdleTimeout": 1}
