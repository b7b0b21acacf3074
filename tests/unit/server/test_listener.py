"""The sockets that are accepted are as they should be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from backbeat.server.listener import SEND_BUFFER, listen


def test_the_kernel_holds_little_for_who_does_not_read() -> None:
    """As much as we say, which Linux doubles; and not as much as it likes."""
    listeners = listen("127.0.0.1", 0, flag="--port")
    with socket.create_connection(listeners[0].getsockname()) as client:
        accepted, _ = listeners[0].accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) in (SEND_BUFFER, 2 * SEND_BUFFER)
            accepted.setblocking(False)
            chunk, held = bytes(65_536), 0
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                while held < 32 * SEND_BUFFER:
                    held += accepted.send(chunk)
            except BlockingIOError:
                pass
    for listener in listeners:
        listener.close()
    assert held < 32 * SEND_BUFFER


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_small_messages_do_not_wait_for_answers(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """On either event loop: without TCP_NODELAY a reply may be 40 ms late (RFC 896)."""

    async def undelayed() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class Connection(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                connection = transport.get_extra_info("socket")
                accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        first, *others = listen("127.0.0.1", 0, flag="--port")
        for each in others:
            each.close()
        server = await asyncio.get_running_loop().create_server(Connection, sock=first)
        try:
            with socket.create_connection(first.getsockname()):
                return await accepted
        finally:
            server.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(undelayed())
