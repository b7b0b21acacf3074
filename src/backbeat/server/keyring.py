"""The keys tokens are checked with, kept up to date from a file or a URL.

A key set is read when the server starts, then again and again, and once more when a token names a key that it
lacks: issuers rotate their keys, and sign with the new one at once. While the source is away, or nonsense,
the last good set stays.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
import structlog

from backbeat.errors import ConfigurationError, TokenRefused
from backbeat.protocol import reasons
from backbeat.server.body import collect
from backbeat.tokens.claims import TokenSource
from backbeat.tokens.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from backbeat.errors import Refusal
    from backbeat.tokens.claims import Token

__all__ = ["Keyring"]

log = structlog.get_logger("backbeat.keyring")

MAX_REDIRECTS: Final = 3

KEY_PROBLEMS: Final = frozenset({reasons.TOKEN_SIGNER.code, reasons.TOKEN_SIGNATURE.code})
"""Refusals that another key could turn into a yes."""


class Keyring:
    """Verifies tokens with the project's secret and a key set that may change while the server runs.

    Args:
        secret: the project's JWT secret, for HS* tokens.
        source: where the JSON Web Key Set (RFC 7517) is, a path or an http(s) URL; None for no key set.
        refresh: seconds between looks at a URL. A file, and a source that failed, are looked at every
            `cooldown` seconds: a changed file counts at once, whatever its times say.
        cooldown: the shortest time between two refreshes that unknown keys cause, in seconds: anybody can
            make up a token.
        timeout: seconds a URL may take to answer, redirects included.
        max_bytes: the largest key set that is read.
        clock: monotonic seconds, for the cooldown.

    Attributes:
        trouble: why the source cannot be read at the moment, or None.
        generation: how many different key sets were read. Whoever remembers verified tokens forgets them
            when it changes, for the keys that signed them may be gone.

    Raises:
        ConfigurationError: the source is a URL of another kind, or none at all.
    """

    def __init__(
        self,
        secret: str,
        *,
        source: str | None = None,
        refresh: float = 600.0,
        cooldown: float = 10.0,
        timeout: float = 5.0,
        max_bytes: int = 1_048_576,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("refresh", refresh), ("cooldown", cooldown), ("timeout", timeout)):
            if value <= 0:
                raise ConfigurationError(f"The {name} of the setting jwks must be more than 0 seconds.")
        self.trouble: str | None = None
        self.generation = 0
        self._secret = secret
        self._verifier = Verifier(secret, {"keys": []} if source else None)
        self._source = _source(source, timeout=timeout, max_bytes=max_bytes) if source else None
        self._pause = min(refresh, cooldown)
        self._refresh_pause = self._pause if isinstance(self._source, _File) else refresh
        self._cooldown = cooldown
        self._clock = clock
        self._asked_at: float | None = None
        self._data: bytes | None = None
        self._refresh: asyncio.Task[None] | None = None
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Read the key set, and keep it up to date until `aclose`. A URL may be down; a file must be good.

        Raises:
            ConfigurationError: the file is missing, unreadable or no key set.
        """
        if self._source is None:
            return
        if isinstance(self._source, _File):
            await self._load(self._source)
        else:
            await self._refreshed()
        self._poller = asyncio.create_task(self._poll(), name="keyring")

    async def aclose(self) -> None:
        """Stop reading. Tokens are still verified, with the keys there are."""
        self._closed = True
        tasks = [task for task in (self._poller, self._refresh) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._source is not None:
            await self._source.aclose()

    # Verifying ----------------------------------------------------------------------------------------------

    async def verify(self, token: str, *, now: float, source: TokenSource = TokenSource.USER) -> Token:
        """Verify a token; when it names a key that is not there, read the key set again first.

        Args:
            token: the compact JWT.
            now: seconds since the epoch.
            source: where the token came from.

        Raises:
            TokenRefused: it does not verify; the error says why.
        """
        # Two rounds: the refresh we find running may have asked before the issuer had the key.
        for _ in range(2):
            try:
                return self.verify_now(token, now=now, source=source)
            except TokenRefused as refusal:
                if not self.may_learn(token, refusal):
                    raise
            await self.refresh()
        return self.verify_now(token, now=now, source=source)

    def verify_now(self, token: str, *, now: float, source: TokenSource = TokenSource.USER) -> Token:
        """Verify a token with the keys at hand.

        Raises:
            TokenRefused: it does not verify; the error says why.
        """
        return self._verifier.verify(token, now=now, source=source)

    def may_learn(self, token: str, refusal: Refusal) -> bool:
        """Tell whether a token that `verify_now` refused is worth `verify`: its key may be a new one.

        Args:
            token: the compact JWT.
            refusal: what `verify_now` raised.
        """
        return (
            self._source is not None
            and not self._closed
            and refusal.code in KEY_PROBLEMS
            and (self._refreshing() or self._has_cooled_down())
            and self._verifier.unknown_kid(token) is not None
        )

    async def refresh(self) -> None:
        """Read the key set because a token names an unknown key; within the cooldown, nothing happens.

        Waits for the refresh that is running, else for a new one.
        """
        if not self._refreshing():
            # Asked again here: between `may_learn` and this call, another token may have had its refresh.
            if self._source is None or self._closed or not self._has_cooled_down():
                return
            self._asked_at = self._clock()
        await self._refreshed()

    def _has_cooled_down(self) -> bool:
        return self._asked_at is None or self._clock() - self._asked_at >= self._cooldown

    # Reading ------------------------------------------------------------------------------------------------

    def _refreshing(self) -> bool:
        return self._refresh is not None and not self._refresh.done()

    async def _refreshed(self) -> None:
        """Refresh once, however many wait for it; who stops waiting does not stop the others' refresh."""
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._attempt(), name="keyring refresh")
        await asyncio.wait({self._refresh})

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._pause if self.trouble else self._refresh_pause)
            await self._refreshed()

    async def _attempt(self) -> None:
        """Read the source; whatever goes wrong, the last good set stays."""
        assert self._source is not None
        try:
            await self._load(self._source)
        except ConfigurationError as error:
            if error.message != self.trouble:
                log.warning("key set not read", reason=error.message, keys="unchanged")
            self.trouble = error.message
        except Exception:
            log.exception("key set not read", source=self._source.name, keys="unchanged")
            self.trouble = f"Reading the key set {self._source.name} failed unexpectedly."

    async def _load(self, source: _File | _Url) -> None:
        data = await source.read()
        if data != self._data:
            # In a thread: a large set takes a while to check, and nobody else should wait for it.
            self._verifier = await asyncio.to_thread(self._read, data, source.name)
            self._data = data
            self.generation += 1
            log.info("key set read", source=source.name, generation=self.generation)
            for key in self._verifier.skipped:
                log.warning("key skipped", kid=key.kid, why=key.why)
        if self.trouble:
            log.info("key set is back", source=source.name)
            self.trouble = None

    def _read(self, data: bytes, name: str) -> Verifier:
        try:
            key_set = msgspec.json.decode(data, type=_KeySet)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _unusable(name, "is no JSON object with a list `keys`") from error
        return Verifier(self._secret, {"keys": key_set.keys})


class _KeySet(msgspec.Struct):
    keys: list[Any]


def _source(where: str, *, timeout: float, max_bytes: int) -> _File | _Url:
    if "://" in where:
        return _Url(where, timeout=timeout, max_bytes=max_bytes)
    return _File(where, max_bytes=max_bytes)


def _unusable(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The setting jwks: {name} {why}.",
        hint="It takes the path or the http(s) URL of a JSON Web Key Set.",
    )


class _File:
    def __init__(self, path: str, *, max_bytes: int) -> None:
        self.name = path
        self._path = Path(path)
        self._max_bytes = max_bytes

    async def read(self) -> bytes:
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                data = file.read(self._max_bytes + 1)
        except OSError as error:
            raise _unusable(self.name, f"cannot be read: {error.strerror}") from error
        if len(data) > self._max_bytes:
            raise _unusable(self.name, f"is larger than {self._max_bytes} bytes")
        return data

    async def aclose(self) -> None:
        """Nothing is held."""


class _Url:
    def __init__(self, url: str, *, timeout: float, max_bytes: int) -> None:
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise _unusable("the URL", "makes no sense") from error
        # Neither credentials nor a query, which may be a key.
        self.name = f"{self._url.scheme}://{self._url.netloc.decode()}{self._url.path}"
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise _unusable(self.name, "is no http(s) URL")
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._client = httpx.AsyncClient(
            timeout=timeout,
            follow_redirects=False,
            # An unpacked answer could be any size.
            headers={"accept": "application/json", "accept-encoding": "identity"},
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def read(self) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._fetch()
        except TimeoutError as error:
            raise _unusable(self.name, f"did not answer within {self._timeout:g} s") from error
        except httpx.HTTPError as error:
            raise _unusable(self.name, f"cannot be fetched: {type(error).__name__}") from error

    async def _fetch(self) -> bytes:
        request = self._client.build_request("GET", self._url)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._client.send(request, stream=True)
            try:
                if response.next_request is None:
                    return await self._body(response)
            finally:
                await response.aclose()
            request = response.next_request
            if request.url.scheme != self._url.scheme:
                raise _unusable(self.name, f"redirects to the scheme {request.url.scheme}")
        raise _unusable(self.name, "redirects too often")

    async def _body(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise _unusable(self.name, f"answered with status {response.status_code}")
        too_large = _unusable(self.name, f"is larger than {self._max_bytes} bytes")
        return await collect(response.aiter_raw(), most=self._max_bytes, too_large=too_large)

    async def aclose(self) -> None:
        await self._client.aclose()
