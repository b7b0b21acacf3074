"""Something that was sent on a channel, and whoever waits for the answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Self

from backbeat.compat.types import RealtimeAcknowledgementStatus

__all__ = ["AsyncPush"]

log = logging.getLogger("backbeat.compat")


class AsyncPush:
    """A push, as `AsyncRealtimeChannel.push` returns it.

    Broadcasts are answered where the channel is made with `ack`; of others nothing is heard any more.

    Attributes:
        event: the event of the protocol.
        payload: what was sent.
        timeout: seconds until the answer counts as missing.
        received_resp: how it was answered, and with what; None as long as it was not.
    """

    def __init__(self, event: str, payload: Mapping[str, Any], timeout: float) -> None:
        self.event = event
        self.payload = payload
        self.timeout = timeout
        self.received_resp: tuple[RealtimeAcknowledgementStatus, Any] | None = None
        self._callbacks: list[tuple[RealtimeAcknowledgementStatus, Callable[..., object]]] = []

    def receive(self, status: RealtimeAcknowledgementStatus, callback: Callable[..., object]) -> Self:
        """Call back when the push is answered in one way; at once if it was.

        Args:
            status: the way.
            callback: given a `ReplyPostgresChanges` for `Ok`, a dict with the `reason` for `Error`, and
                nothing for `Timeout`.
        """
        if self.received_resp is None:
            self._callbacks.append((status, callback))
        elif self.received_resp[0] == status:
            self._call(callback)
        return self

    def answered(self, status: RealtimeAcknowledgementStatus, response: Any) -> bool:
        """Take the answer; tell whether somebody was waiting for one like that."""
        self.received_resp = status, response
        fitting = [callback for wanted, callback in self._callbacks if wanted == status]
        self._callbacks.clear()
        for callback in fitting:
            self._call(callback)
        return bool(fitting)

    def _call(self, callback: Callable[..., object]) -> None:
        assert self.received_resp is not None
        status, response = self.received_resp
        try:
            if status is RealtimeAcknowledgementStatus.Timeout:
                callback()
            else:
                callback(response)
        except Exception:
            log.exception("a callback for the answer to a %s raised", self.event)
