"""Where a connection comes from: the other end of it or, through a proxy that is trusted, its client.

Anybody can write `X-Forwarded-For`. It is believed only from addresses the operator named, and only as far as
those reach: each proxy adds whom it heard from on the right, so the first address from the right that is no
trusted proxy is the client, and everything left of it is hearsay.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from backbeat.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv4Network, IPv6Network

__all__ = ["TRUSTED", "Proxies", "place_of", "policy_headers"]

TRUSTED: Final = "trusted_proxy"
"""Where the state of an HTTP request says whether a trusted proxy passed it on."""

PLACE_BITS: Final = 64
"""The part of an IPv6 address that tells customers apart: one of them has all addresses of such a network."""

_CLIENT_HEADERS: Final = frozenset({"x-real-ip", "x-client-ip", "x-cluster-client-ip"})


class Proxies:
    """The proxies that are trusted.

    Args:
        networks: addresses and networks, `10.0.0.0/8` or `::1`. A text may name several, between commas.

    Raises:
        ConfigurationError: one of them is neither.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for network in (each for one in networks for each in one.split(",")):
            try:
                self._networks.append(ip_network(network.strip(), strict=False))
            except ValueError:
                raise ConfigurationError(
                    f"The setting trusted_proxies has an entry that is no address and no network: {network}",
                    hint="Write addresses such as 10.1.2.3, or networks such as 10.0.0.0/8 or fd00::/8.",
                ) from None

    @property
    def names(self) -> list[str]:
        """The networks, written as everybody reads them."""
        return [str(network) for network in self._networks]

    def trust(self, address: str) -> bool:
        """Whether an address is that of a trusted proxy."""
        if not self._networks:
            return False
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded: str) -> str:
        """The address of the client behind a connection.

        Args:
            peer: the other end of the connection.
            forwarded: what its `X-Forwarded-For` headers say, joined by commas.

        Returns:
            The right-most address that is no trusted proxy. Of something that is no address, the proxy that
            passed it on answers for it.
        """
        client = peer
        for hop in reversed(forwarded.split(",")):
            if not self.trust(client):
                break
            address = _without_port(hop.strip())
            if _parsed(address) is None:
                break
            client = address
        return client


@lru_cache(maxsize=4096)
def place_of(address: str) -> str:
    """What connections are counted under: an IPv4 address, or the /64 network of an IPv6 address.

    Args:
        address: an address; anything else is returned as it is.
    """
    parsed = _parsed(address)
    if parsed is None:
        return address
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, PLACE_BITS), strict=False))
    return str(parsed)


def policy_headers(headers: Iterable[tuple[str, str]], *, trusted: bool) -> dict[str, str]:
    """The headers that policies see as request.headers: all `x-*`, but not the key.

    The original passes every one on, for a gateway is in front of it that sets those which tell where a
    request comes from. Here anybody may connect, so these are left out unless a trusted proxy sent them: a
    policy that compares an address must not be fooled by whoever writes the header.

    Args:
        headers: names in lower case, and values.
        trusted: whether they come from a trusted proxy.
    """
    return {
        name: value
        for name, value in headers
        if name.startswith("x-") and name != "x-api-key" and (trusted or not _names_client(name))
    }


def _names_client(name: str) -> bool:
    return name in _CLIENT_HEADERS or name.startswith("x-forwarded-")


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """Read an address; IPv4 inside of IPv6 counts as what it is."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed


def _without_port(hop: str) -> str:
    """`1.2.3.4:5678` and `[::1]:5678` without the port that some proxies add."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
