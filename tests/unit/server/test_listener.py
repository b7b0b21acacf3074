"""The sockets that are accepted are as they should be."""

from __future__ import annotations

import socket

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
