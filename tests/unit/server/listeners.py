"""Members, deliveries and turns for tests of the fan-out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backbeat.protocol.codec import V2
from backbeat.server.delivery import Delivery, Hears

if TYPE_CHECKING:
    from backbeat.protocol.codec import Serializer

TOPIC = "realtime:room"


class Listener:
    """A member that remembers what was written to it, write by write."""

    def __init__(self, serializer: Serializer = V2, hears: Hears = Hears.BROADCAST) -> None:
        self.serializer = serializer
        self.hears = hears
        self.written: list[bytes] = []
        self.write: Callable[[bytes], None] = self.written.append


class Counted(Delivery):
    """A delivery that counts how often it is encoded."""

    def __init__(
        self, name: bytes, audience: Hears = Hears.BROADCAST, sender: Listener | None = None
    ) -> None:
        super().__init__(audience, sender)
        self.name = name
        self.encoded: list[str] = []

    def _encode(self, serializer: Serializer, topic: str) -> bytes:
        assert topic == TOPIC
        self.encoded.append(serializer.vsn)
        return self.name + serializer.vsn[:1].encode()


class Turns:
    """Stands in for the event loop: runs what was asked for when told to."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], None]] = []

    def __call__(self, call: Callable[[], None]) -> None:
        self.asked.append(call)

    def next(self) -> None:
        """Begin the next turn."""
        asked, self.asked = self.asked, []
        for call in asked:
            call()
