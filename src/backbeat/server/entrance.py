"""Who may connect, and how long a client may take: decisions only; the time is an argument.

A connection takes a place when it is accepted and gives it back when it is lost, whatever it was in between:
one HTTP request, a handshake that was refused, or a socket. Whoever holds the place gives it back, once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from backbeat.errors import ConfigurationError
from backbeat.protocol import reasons
from backbeat.server.addresses import Proxies, place_of
from backbeat.server.origins import Origins

if TYPE_CHECKING:
    from backbeat.protocol.reasons import Reason

__all__ = ["ConnectionSettings", "Entrance"]

FEW: Final = 16
"""Refused connections that may linger however few places there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionSettings:
    """What connections may do before and beside sending messages.

    Attributes:
        allowed_origins: Pages that may open sockets, such as https://app.example.com,https://*.example.com;
            by default all. Programs that are no browsers send no origin, and may.
        trusted_proxies: Addresses and networks of proxies whose X-Forwarded-For is believed, between commas;
            by default none.
        max_connections: Connections at once, those of HTTP requests included; 0 for any number.
        max_connections_per_address: Connections at once from one IPv4 address or IPv6 /64 network; 0 for any
            number.
        handshake_timeout: Seconds that a connection has to send the head of a request, and to finish the
            handshake of TLS.
        max_head_bytes: Bytes of the head of a request; its path and query may take half of them.
        max_headers: Headers of a request.
        message_timeout: Seconds that a message, or the body of a request, may take to arrive, however short.
        min_message_rate: Bytes per second at which a message that takes longer than that has to come.
        max_control_frames_per_second: Pings, pongs and frames that are no message, of one socket; 0 for any
            number.

    Raises:
        ConfigurationError: one of them makes no sense; it is named.
    """

    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    max_connections: int = 0
    max_connections_per_address: int = 0
    handshake_timeout: float = 10.0
    max_head_bytes: int = 32_768
    max_headers: int = 100
    message_timeout: float = 20.0
    min_message_rate: int = 8192
    max_control_frames_per_second: int = 50

    def __post_init__(self) -> None:
        Origins(self.allowed_origins)
        Proxies(self.trusted_proxies)
        for name in ("max_connections", "max_connections_per_address", "max_control_frames_per_second"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"The setting {name} must be at least 0.")
        for name in ("max_head_bytes", "max_headers", "min_message_rate"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"The setting {name} must be at least 1.")
        for name in ("handshake_timeout", "message_timeout"):
            # Written so that NaN is refused too.
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"The setting {name} is a length of time.")

    def time_for(self, received: int) -> float:
        """Seconds that a message may have been arriving for, when so many bytes of it are there."""
        return self.message_timeout + received / self.min_message_rate


class Entrance:
    """The places of a server, and who has them.

    Args:
        settings: how many there are.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        self.origins = Origins(settings.allowed_origins)
        self.proxies = Proxies(settings.trusted_proxies)
        self.total = 0
        """Places taken."""
        self.lingering = 0
        """Connections that got no place and are being told so."""
        self._taken: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Entrance total={self.total} addresses={len(self._taken)}>"

    def enter(self, peer: str) -> str | Reason:
        """Take a place for a connection that was accepted.

        Args:
            peer: the address of the other end.

        Returns:
            What the place is called, for `leave`; empty behind a trusted proxy, where the client is not known
            yet. Or the reason why there is none.
        """
        most = self.settings.max_connections
        if 0 < most <= self.total:
            return reasons.CONNECTIONS_LIMIT
        place = "" if self.proxies.trust(peer) else place_of(peer)
        if reason := self._count(place):
            return reason
        self.total += 1
        return place

    def move(self, place: str, client: str) -> str | Reason:
        """Give a place the name of the client behind a proxy, now that it is known.

        Args:
            place: what `enter` returned.
            client: the address of the client.

        Returns:
            The new name. Or the reason why the client may not have it; the place keeps its old one.
        """
        name = place_of(client)
        if name == place:
            return place
        if reason := self._count(name):
            return reason
        self._forget(place)
        return name

    @property
    def crowded(self) -> bool:
        """Whether so many are being told that there is no place that the next has to go without a word.

        Each of them holds an open file until it has read the answer, and a flood would hold them all.
        """
        return self.lingering > max(FEW, self.total // 10)

    def leave(self, place: str) -> None:
        """Give a place back."""
        self.total -= 1
        self._forget(place)

    def _count(self, place: str) -> Reason | None:
        most = self.settings.max_connections_per_address
        if place and 0 < most <= self._taken[place]:
            return reasons.ADDRESS_LIMIT
        if place:
            self._taken[place] += 1
        return None

    def _forget(self, place: str) -> None:
        if place:
            self._taken[place] -= 1
            if not self._taken[place]:
                del self._taken[place]
