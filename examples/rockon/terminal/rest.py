"""The rows of the band over REST, as whoever is signed in."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx
from examples.rockon.terminal.lists import Row

from backbeat.errors import BackbeatError, Retry
from backbeat.session import AuthContext

__all__ = ["Rest", "RestError"]


class RestError(BackbeatError):
    """A request did not work."""

    code = "RestError"


class Rest:
    """Reads and writes rows.

    Args:
        url: the project's URL.
        apikey: its publishable key.
        auth: who is signed in.
    """

    def __init__(self, url: str, apikey: str, auth: AuthContext) -> None:
        self._auth = auth
        self._http = httpx.AsyncClient(base_url=f"{url.rstrip('/')}/rest/v1", headers={"apikey": apikey})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def select(self, table: str, **query: str) -> list[Row]:
        """Read rows: `band_id="eq.…"`, `order="name"`.

        Raises:
            RestError: it did not work.
            AuthUnavailable: the token has ended, and there is no other.
        """
        return await self._ask("GET", table, query)

    async def insert(self, table: str, values: Row) -> Row:
        """Add a row; raises as `select` does."""
        (row,) = await self._ask("POST", table, {}, values)
        return row

    async def update(self, table: str, row_id: str, values: Row) -> Row:
        """Change a row; raises as `select` does."""
        rows = await self._ask("PATCH", table, {"id": f"eq.{row_id}"}, values)
        if not rows:
            raise RestError("The row is gone.")
        return rows[0]

    async def delete(self, table: str, row_id: str) -> None:
        """Remove a row; raises as `select` does."""
        await self._ask("DELETE", table, {"id": f"eq.{row_id}"})

    async def _ask(
        self, method: str, table: str, query: dict[str, str], body: Row | None = None
    ) -> list[Row]:
        headers = {"authorization": f"Bearer {await self._auth.token()}", "prefer": "return=representation"}
        try:
            answer = await self._http.request(method, f"/{table}", params=query, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise RestError(
                f"The project did not answer: {type(error).__name__}.", retry=Retry.BACKOFF
            ) from error
        if answer.is_success:
            rows: list[Row] = answer.json()
            return rows
        raise RestError(_message(answer))


def _message(answer: httpx.Response) -> str:
    try:
        body: Any = answer.json()
    except ValueError:
        body = None
    told = body.get("message") if isinstance(body, dict) else None
    return f"{told or answer.reason_phrase} (HTTP status {answer.status_code})"
