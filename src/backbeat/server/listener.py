"""The port of a server: taken before anything is started, so that a taken one is a clear message."""

from __future__ import annotations

import errno
import socket
from typing import Final

from backbeat.errors import StartError

__all__ = ["listen"]

BACKLOG: Final = 4096

SEND_BUFFER: Final = 262_144
"""Bytes that the kernel holds for each client; Linux doubles it. Left to itself it holds up to 4 MiB for one
that does not read, before `write_buffer_bytes` counts anything."""

LOOPBACK: Final = {"127.0.0.1": "::1", "localhost": "::1"}


def listen(host: str, port: int, *, flag: str) -> list[socket.socket]:
    """Bind a port, on loopback for both address families: some clients resolve `localhost` to `::1` first.

    Args:
        host: the address to listen on.
        port: the port; 0 takes a free one.
        flag: the command line flag that chooses another port, for the message.

    Raises:
        StartError: the port is taken, or the address is not one of this machine.
    """
    first = _bind("127.0.0.1" if host == "localhost" else host, port, flag)
    sockets = [first]
    if host in LOOPBACK:
        try:
            sockets.append(_bind(LOOPBACK[host], first.getsockname()[1], flag))
        except StartError as error:
            # A machine without IPv6 is served on IPv4 alone; somebody else's server on ::1 would get our
            # calls.
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE:
                first.close()
                raise
    return sockets


def _bind(host: str, port: int, flag: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, for asyncio looks at it: without, small messages would wait for the answers to those before.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # What is accepted inherits it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"Port {port} on {host} is taken.",
                hint=f"Stop the program that has it, or choose another with {flag}.",
            ) from error
        raise StartError(
            f"Cannot listen on {host}, port {port}: {error.strerror}.", hint="Check --host."
        ) from error
    return listener
