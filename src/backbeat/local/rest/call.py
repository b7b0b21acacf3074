"""A request to `/rest/v1`, as far as it can be read without the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import ClientDisconnect

from backbeat.local.rest import errors
from backbeat.local.rest.grammar import pairs_of
from backbeat.local.rest.media import Media, negotiate
from backbeat.local.rest.preferences import Preferences
from backbeat.server.body import collect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from backbeat.tokens.claims import Claims

__all__ = ["MAX_BODY_BYTES", "Call"]

MAX_BODY_BYTES = 10 * 1024 * 1024

READS = frozenset({"GET", "HEAD"})
WRITES = frozenset({"POST", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Call:
    """What a caller asks for.

    Attributes:
        method: the HTTP method.
        schema: the schema of the table or function.
        name: the name of the table or function.
        function: whether it is a function.
        claims: who asks.
        media: the format of the answer.
        preferences: the `Prefer` header.
        pairs: the query string, percent-encoding undone.
        body: the body.
        headers: all headers as a JSON object, names in lower case.
        cookies: all cookies as a JSON object.
    """

    method: str
    schema: str
    name: str
    function: bool
    claims: Claims
    media: Media
    preferences: Preferences
    pairs: Sequence[tuple[str, str]]
    body: bytes = field(repr=False)
    headers: str = field(repr=False)
    cookies: str = field(repr=False)

    @classmethod
    async def of(
        cls, request: Request, claims: Claims, *, schemas: Sequence[str], function: bool = False
    ) -> Call:
        """Read a request.

        Args:
            request: the request; its path names the table or function `name`.
            claims: who asks.
            schemas: the exposed schemas; the first is meant when the request names none.
            function: whether a function is called.

        Raises:
            RestError: the method, a header, the query string or the size of the body is not acceptable.
        """
        method = request.method
        if method not in READS and method not in ({"POST"} if function else WRITES):
            raise errors.unsupported_method(method, function=function)
        profile = "accept-profile" if method in READS else "content-profile"
        schema = request.headers.get(profile) or schemas[0]
        if schema not in schemas:
            raise errors.unknown_schema(schemas)
        headers = {name: ", ".join(request.headers.getlist(name)) for name in request.headers}
        return cls(
            method=method,
            schema=schema,
            name=request.path_params["name"],
            function=function,
            claims=claims,
            media=negotiate(request.headers.get("accept", "")),
            preferences=Preferences.of(request.headers.getlist("prefer"), method),
            pairs=pairs_of(request.scope["query_string"]),
            body=await _body(request) if method in ("POST", "PATCH") else b"",
            headers=msgspec.json.encode(headers).decode(),
            cookies=msgspec.json.encode(request.cookies).decode(),
        )

    @property
    def path(self) -> str:
        """The path as `request.path` tells it to the database."""
        return f"/rpc/{self.name}" if self.function else f"/{self.name}"

    @property
    def reads(self) -> bool:
        """Whether the method promises to change nothing."""
        return self.method in READS

    @property
    def single(self) -> bool:
        """Whether one object is wanted instead of an array."""
        return self.media is Media.OBJECT

    @property
    def counted(self) -> bool:
        """Whether the number of all rows is wanted."""
        return self.preferences.count is not None


async def _body(request: Request) -> bytes:
    too_large = errors.bad_body(f"The body is larger than {MAX_BODY_BYTES} bytes", status=413)
    try:
        return await collect(request.stream(), most=MAX_BODY_BYTES, too_large=too_large)
    except ClientDisconnect as error:
        # Nobody is left to read the answer; without one, the server would log a crash.
        raise errors.bad_body("The body ended early") from error
