"""Where a project is."""

from __future__ import annotations

import pytest

from backbeat.client.endpoint import Endpoint
from backbeat.errors import ConfigurationError

SOCKET = "ws://127.0.0.1:54321/realtime/v1/websocket"
HTTP = "http://127.0.0.1:54321/realtime/v1"


@pytest.mark.parametrize(
    ("url", "socket", "http"),
    [
        ("http://127.0.0.1:54321", SOCKET, HTTP),
        ("http://127.0.0.1:54321/", SOCKET, HTTP),
        ("ws://127.0.0.1:54321/realtime/v1", SOCKET, HTTP),
        ("ws://127.0.0.1:54321/realtime/v1/websocket", SOCKET, HTTP),
        ("ws://127.0.0.1:4000/socket", "ws://127.0.0.1:4000/socket/websocket", "http://127.0.0.1:4000"),
        (
            "ws://127.0.0.1:4000/socket/websocket",
            "ws://127.0.0.1:4000/socket/websocket",
            "http://127.0.0.1:4000",
        ),
        (
            "https://acme.example/prefix",
            "wss://acme.example/prefix/realtime/v1/websocket",
            "https://acme.example/prefix/realtime/v1",
        ),
    ],
)
def test_any_address_of_a_project_will_do(url: str, socket: str, http: str) -> None:
    """The project, the service or the socket; with a slash or without, secure or not."""
    endpoint = Endpoint.of(url, vsn="2.0.0")
    assert (endpoint.socket_url, endpoint.http_url) == (socket, http)


def test_the_key_stands_first_and_can_be_left_out() -> None:
    """What is logged is the same URL without the key."""
    endpoint = Endpoint.of("ws://x?apikey=old", vsn="2.0.0", params={"log_level": "warn"})
    assert endpoint.socket("a&b").endswith("?apikey=a%26b&log_level=warning&vsn=2.0.0")
    assert "apikey" not in endpoint.socket(None)


def test_a_topic_is_one_part_of_the_path() -> None:
    """Slashes and colons in topics and events are encoded."""
    assert (
        Endpoint.of("http://x", vsn="2.0.0")
        .broadcast("a/b:c", "é")
        .endswith("/api/broadcast/a%2Fb%3Ac/events/%C3%A9")
    )


@pytest.mark.parametrize("url", ["", "127.0.0.1:54321", "ftp://x", "http://", "http://me:secret@x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigurationError):
        Endpoint.of(url, vsn="2.0.0")
