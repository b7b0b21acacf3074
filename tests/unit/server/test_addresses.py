"""Where a connection comes from, and who is believed about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.errors import ConfigurationError
from backbeat.server.addresses import Proxies, place_of, policy_headers

PROXIES = Proxies(("10.0.0.0/8", "192.0.2.7", "fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.1.1.1", "1.2.3.4", "1.2.3.4"),
        ("10.1.1.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("10.1.1.1", "6.6.6.6, 1.2.3.4, 192.0.2.7, 10.9.9.9", "1.2.3.4"),
        ("10.1.1.1", "1.2.3.4:5678", "1.2.3.4"),
        ("10.1.1.1", "[2001:db8::1]:5678", "2001:db8::1"),
        ("10.1.1.1", "2001:db8::1", "2001:db8::1"),
        ("fd00::1", "1.2.3.4", "1.2.3.4"),
        ("::ffff:10.1.1.1", "1.2.3.4", "1.2.3.4"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "unknown", "10.1.1.1"),
        ("10.1.1.1", "1.2.3.4, _hidden", "10.1.1.1"),
        ("10.1.1.1", "10.2.2.2, 10.3.3.3", "10.2.2.2"),
        ("1.1.1.1", "1.2.3.4", "1.1.1.1"),
        ("10.1.1.1", "9.9.9.9, 8.8.8.8, 1.2.3.4", "1.2.3.4"),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_vouches_for(
    peer: str, forwarded: str, client: str
) -> None:
    """Counted from the right; what stands further left anybody may have written."""
    assert PROXIES.client(peer, forwarded) == client


def test_nobody_is_trusted_by_default() -> None:
    """Not even this machine."""
    assert not Proxies(()).trust("127.0.0.1")
    assert Proxies(()).client("127.0.0.1", "1.2.3.4") == "127.0.0.1"


@given(st.text())
def test_any_header_gets_an_answer(forwarded: str) -> None:
    """An address, whatever was written."""
    assert place_of(PROXIES.client("10.1.1.1", forwarded))


@pytest.mark.parametrize("entry", ["localhost", "10.0.0.0/33", ""])
def test_what_is_no_network_is_refused(entry: str) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        Proxies((entry,))


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_network_is_one_place(address: str, place: str) -> None:
    """Whoever has an address of it has them all."""
    assert place_of(address) == place


HEADERS = {
    "x-device": "7",
    "x-api-key": "hush",
    "x-forwarded-for": "1.2.3.4",
    "x-forwarded-proto": "https",
    "x-real-ip": "1.2.3.4",
    "cookie": "c",
}


def test_policies_see_no_address_that_anybody_could_have_written() -> None:
    """From a trusted proxy they do; the key they never see."""
    assert policy_headers(HEADERS.items(), trusted=False) == {"x-device": "7"}
    assert policy_headers(HEADERS.items(), trusted=True).keys() == HEADERS.keys() - {"x-api-key", "cookie"}
