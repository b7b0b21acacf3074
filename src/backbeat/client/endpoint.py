"""Where a project is: the URL of its socket, and of its HTTP API (client specification, 1.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from backbeat.errors import ConfigurationError

__all__ = ["Endpoint"]

_SECURE = {"http": False, "ws": False, "https": True, "wss": True}
_SOCKET_PATHS = ("/socket/websocket", "/websocket", "/socket")
_GATEWAY = "/realtime/v1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The addresses of one project.

    Attributes:
        socket_url: where the socket is opened, without parameters.
        http_url: where the HTTP API begins.
        params: parameters of the socket, without the key.
    """

    socket_url: str
    http_url: str
    params: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, url: str, *, vsn: str, params: Mapping[str, str] | None = None) -> Endpoint:
        """Read any of the addresses people give.

        The URL of a project, of its realtime service, or of the socket itself; with `http` or `ws`.

        Args:
            url: the address.
            vsn: the protocol version.
            params: more parameters for the socket, such as `log_level`.

        Raises:
            ConfigurationError: it is no URL of any of these kinds.
        """
        parts = urlsplit(url)
        if parts.scheme not in _SECURE or not parts.hostname:
            raise ConfigurationError(
                f"{parts.scheme or 'Nothing'}:// is not where a realtime server can be.",
                hint="Give the URL of the project, like https://project.example or http://127.0.0.1:54321.",
            )
        if parts.username or parts.password:
            raise ConfigurationError(
                "The URL holds a user name or a password, which would be shown wherever the URL is.",
                hint="Give them as `headers`.",
            )
        secure = _SECURE[parts.scheme]
        path = parts.path.rstrip("/")
        socket_path = ""
        for suffix in _SOCKET_PATHS:
            if path.endswith(suffix):
                path, socket_path = path.removesuffix(suffix), suffix
                break
        if socket_path == "/socket":
            socket_path = "/socket/websocket"
        if not socket_path:
            path = path if path.endswith(_GATEWAY) else path + _GATEWAY
            socket_path = "/websocket"
        base = parts._replace(query="", fragment="")
        given = dict(parse_qsl(parts.query)) | dict(params or {})
        if given.get("log_level") == "warn":
            given["log_level"] = "warning"  # the only spelling servers know
        given.pop("apikey", None)
        return cls(
            urlunsplit(base._replace(scheme="wss" if secure else "ws", path=path + socket_path)),
            urlunsplit(base._replace(scheme="https" if secure else "http", path=path)),
            given | {"vsn": vsn},
        )

    def socket(self, apikey: str | None) -> str:
        """The URL to open.

        Args:
            apikey: the key; None leaves it out, for logs or where it goes into a header.
        """
        return f"{self.socket_url}?{urlencode(({'apikey': apikey} if apikey else {}) | dict(self.params))}"

    def broadcast(self, topic: str, event: str) -> str:
        """The URL that takes one broadcast.

        Args:
            topic: the topic, without the prefix.
            event: the event.
        """
        return f"{self.http_url}/api/broadcast/{quote(topic, safe='')}/events/{quote(event, safe='')}"
