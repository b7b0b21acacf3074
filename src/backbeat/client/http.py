"""Broadcasts over HTTP: for when there is no socket, and only when they are asked for (1.15)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import httpx

from backbeat.client.engine.classify import http_refusal
from backbeat.errors import ClientError, NoReply, Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from backbeat.client.endpoint import Endpoint

__all__ = ["BroadcastApi"]

ATTEMPTS: Final = 3
LONGEST_PAUSE: Final = 30.0
"""Seconds a server may ask to wait before somebody is told instead."""


class BroadcastApi:
    """Sends broadcasts over HTTP.

    Args:
        endpoint: where the project is.
        apikey: its key.
        make_client: makes the HTTP client, at the first use.
    """

    def __init__(self, endpoint: Endpoint, apikey: str, make_client: Callable[[], httpx.AsyncClient]) -> None:
        self._endpoint = endpoint
        self._apikey = apikey
        self._make_client = make_client
        self._client: httpx.AsyncClient | None = None

    async def send(
        self,
        topic: str,
        event: str,
        content: bytes,
        *,
        is_json: bool,
        private: bool,
        token: str | None,
        timeout: float,
    ) -> None:
        """Send one broadcast.

        Args:
            topic: the topic, without the prefix.
            event: the event.
            content: the payload.
            is_json: whether it is the JSON text of an object.
            private: whether it is for the private channel of that topic.
            token: the user's token, if there is one.
            timeout: seconds, for all attempts.

        Raises:
            Refusal: the server says no.
            NoReply: it did not answer in time.
            ClientError: it cannot be reached.
        """
        headers = {
            "apikey": self._apikey,
            "Content-Type": "application/json" if is_json else "application/octet-stream",
        }
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        request: dict[str, Any] = {
            "url": self._endpoint.broadcast(topic, event),
            "params": {"private": "true"} if private else None,
            "headers": headers,
            "content": content,
        }
        try:
            async with asyncio.timeout(timeout):
                await self._deliver(request, topic)
        except TimeoutError:
            raise NoReply(
                f"The broadcast over HTTP was not answered within {timeout:g} s.", topic=topic
            ) from None

    async def _deliver(self, request: dict[str, Any], topic: str) -> None:
        if self._client is None:
            self._client = self._make_client()
        attempt = 0
        while True:
            attempt += 1
            try:
                response = await self._client.post(**request)
            except httpx.HTTPError as error:
                raise ClientError(
                    f"The broadcast could not be sent over HTTP ({type(error).__name__}).",
                    code="ConnectFailed",
                    retry=Retry.BACKOFF,
                    topic=topic,
                ) from None
            if response.status_code == httpx.codes.ACCEPTED:
                return
            refusal = http_refusal(response.status_code, response.content, topic=topic)
            pause = _pause(response, attempt)
            if pause is None:
                raise refusal
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()


def _pause(response: httpx.Response, attempt: int) -> float | None:
    """How long to wait before another attempt, in seconds; None for no other."""
    status = response.status_code
    if attempt == ATTEMPTS or not (status == httpx.codes.TOO_MANY_REQUESTS or status >= 500):
        return None
    asked = response.headers.get("Retry-After", "")
    pause = float(asked) if asked.isdecimal() else 0.5 * 2**attempt
    return pause if pause <= LONGEST_PAUSE else None
