"""The one exception tree.

::

    BackbeatError                 everything Backbeat raises on purpose
    ├── ConfigurationError        a setting, a flag or a file is wrong: mend it, then start again
    ├── StartError                something the program needs is missing, taken or broken
    ├── DatabaseError             Postgres refused, failed or vanished
    │   ├── MigrationError        the schema could not be brought up to date
    │   └── StreamError           the replication stream could not start, or was lost
    ├── ProtocolError             bytes that break the protocol: harms only whoever sent them
    │   └── BindingMismatch       the server confirmed other change subscriptions than were asked for
    ├── ClientError               what a client could not do, and no server said why
    │   ├── ConnectFailed         no socket could be opened
    │   ├── UpgradeRefused        an answer in HTTP where a socket was asked for; not looked into yet
    │   ├── ConnectionLost        the socket went while something was under way
    │   ├── NoReply               the server did not answer in time
    │   ├── TokenUnavailable      a user's token is needed, and there is none that can be used
    │   ├── NotSubscribed         something was sent on a channel that is not subscribed
    │   ├── PushDropped           something was not sent, and will not be
    │   ├── ClientClosed          the client was closed
    │   ├── ClientForked          the client belongs to another process
    │   └── SyncCallInAsyncContext  a call would block the event loop that runs here
    ├── AuthError                 signing in, refreshing or signing out did not work
    │   ├── AuthRefused           the auth service said no
    │   ├── AuthUnavailable       nobody knows: no answer, or none of an auth service; sessions are kept
    │   ├── NotSignedIn           it takes a user, and nobody is signed in
    │   └── StoreError            the place where sessions are kept cannot be used
    └── Refusal                   an answer of the server: no, and why (see `backbeat.protocol.reasons`)
        ├── TokenRefused          the token is missing, malformed, expired or not ours
        ├── Denied                the token is fine, a policy says no
        ├── RateLimited           too much, too fast
        ├── Unavailable           not now: the database, the stream or the server is not ready
        └── BadRequest            the request itself makes no sense

Each error says what failed (`message`), what to do about it (`hint`), and whether trying again can help
(`retry`). None of them ever carries a token, a key or a password.
"""

from __future__ import annotations

from enum import Enum

__all__ = [
    "AuthError",
    "AuthRefused",
    "AuthUnavailable",
    "BackbeatError",
    "BadRequest",
    "BindingMismatch",
    "ClientClosed",
    "ClientError",
    "ClientForked",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectionLost",
    "DatabaseError",
    "Denied",
    "MigrationError",
    "NoReply",
    "NotSignedIn",
    "NotSubscribed",
    "ProtocolError",
    "PushDropped",
    "RateLimited",
    "Refusal",
    "Retry",
    "StartError",
    "StoreError",
    "StreamError",
    "SyncCallInAsyncContext",
    "TokenRefused",
    "TokenUnavailable",
    "Unavailable",
    "UpgradeRefused",
]


class Retry(Enum):
    """What a caller should do after an error."""

    NEVER = "never"
    """Nothing changes until the token, the policy or the request changes."""

    REFRESH = "refresh"
    """Get a new token, then try again at once."""

    BACKOFF = "backoff"
    """Try again soon, waiting longer each time."""

    SLOW = "slow"
    """A limit was hit: wait at least 30 seconds."""


class BackbeatError(Exception):
    """The root of every error Backbeat raises on purpose.

    Args:
        message: what failed, in one sentence.
        hint: what to do about it, or an empty string.
        code: the stable name an operator can look up.
        topic: the channel topic concerned, if there is one.
        retry: whether trying again can help.
    """

    code = "BackbeatError"
    retry = Retry.NEVER

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        topic: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.topic = topic
        if code is not None:
            self.code = code
        if retry is not None:
            self.retry = retry

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class ConfigurationError(BackbeatError):
    """A setting, a flag or a file is wrong; nothing was started."""

    code = "ConfigurationError"


class StartError(BackbeatError):
    """Something the program needs is missing, taken or broken; nothing is left half-started."""

    code = "StartError"


class DatabaseError(BackbeatError):
    """Postgres refused, failed or vanished."""

    code = "DatabaseError"
    retry = Retry.BACKOFF


class MigrationError(DatabaseError):
    """The schema could not be brought up to date; the failed migration left no trace."""

    code = "MigrationsFailedToRun"
    retry = Retry.NEVER


class StreamError(DatabaseError):
    """The replication stream could not start, or was lost."""

    code = "ReplicationConnectionDown"


class ProtocolError(BackbeatError):
    """Bytes that break the protocol. Whoever sent them is told; nobody else notices."""

    code = "MalformedWebSocketMessage"


class BindingMismatch(ProtocolError):
    """The server confirmed other change subscriptions than the channel asked for."""

    code = "BindingMismatch"
    retry = Retry.BACKOFF


class ClientError(BackbeatError):
    """What a client could not do, and no server said why."""

    code = "ClientError"


class ConnectFailed(ClientError):
    """No socket could be opened: name, port, TLS or handshake."""

    code = "ConnectFailed"
    retry = Retry.BACKOFF


class UpgradeRefused(ClientError):
    """A server answered with HTTP where a socket was asked for; what it means is not looked into yet.

    Args:
        status: the HTTP status.
        body: the beginning of the answer.
        retry_after: seconds the server asks to wait, if it does.
    """

    code = "UpgradeRefused"

    def __init__(self, status: int, body: bytes = b"", retry_after: float | None = None) -> None:
        super().__init__(f"The server answered the upgrade with HTTP status {status}.")
        self.status = status
        self.body = body[:4096]
        self.retry_after = retry_after


class ConnectionLost(ClientError):
    """The socket went while something was under way; whether that arrived is not known."""

    code = "ConnectionLost"
    retry = Retry.BACKOFF


class NoReply(ClientError):
    """The server did not answer in time; whether it did what was asked is not known."""

    code = "NoReply"
    retry = Retry.BACKOFF


class TokenUnavailable(ClientError):
    """A user's token is needed, and there is none that can be used."""

    code = "TokenUnavailable"


class NotSubscribed(ClientError):
    """Something was sent on a channel that is not subscribed."""

    code = "NotSubscribed"


class PushDropped(ClientError):
    """Something was not sent, and will not be."""

    code = "PushDropped"


class ClientClosed(ClientError):
    """The client was closed; what was under way ended with it."""

    code = "ClientClosed"


class ClientForked(ClientError):
    """The client belongs to the process that started it; what it needs does not survive a fork."""

    code = "ClientForked"


class SyncCallInAsyncContext(ClientError):
    """A call of the blocking client would block the event loop that runs in the same thread."""

    code = "SyncCallInAsyncContext"


class AuthError(BackbeatError):
    """Signing in, refreshing or signing out did not work.

    Args:
        status: the HTTP status of the answer, or None when there was none.
    """

    code = "AuthError"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        retry: Retry | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code, retry=retry)
        self.status = status

    @property
    def reason(self) -> str:
        """The code and what failed: `code: message`."""
        return f"{self.code}: {self.message}"


class AuthRefused(AuthError):
    """The auth service said no. `code` is its own word for why."""


class AuthUnavailable(AuthError):
    """Nobody knows: there was no answer, or none of an auth service. Sessions are kept."""

    code = "unreachable"
    retry = Retry.BACKOFF


class NotSignedIn(AuthError):
    """It takes a user, and nobody is signed in."""

    code = "not_signed_in"


class StoreError(AuthError):
    """The place where sessions are kept cannot be used."""

    code = "session_store"


class Refusal(BackbeatError):
    """The server's "no" to a connect, a join, a push or an HTTP call.

    Made by `backbeat.protocol.reasons.Reason.refusal`, which knows the exact text clients match on.

    Args:
        status: the HTTP status that goes with it.
        message: the text on the wire, without the code.
        prefixed: whether a join reply writes the code before the text.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        topic: str | None = None,
        retry: Retry | None = None,
        status: int = 500,
        prefixed: bool = True,
    ) -> None:
        super().__init__(message, hint=hint, code=code, topic=topic, retry=retry)
        self.status = status
        self.prefixed = prefixed

    @property
    def reason(self) -> str:
        """The text of a join reply: `Code: message`."""
        return f"{self.code}: {self.message}" if self.prefixed else self.message


class TokenRefused(Refusal):
    """The token is missing, malformed, expired, or not signed by this project."""


class Denied(Refusal):
    """The token is fine; a policy or a setting says no."""


class RateLimited(Refusal):
    """Too much, too fast, or too many."""

    retry = Retry.SLOW


class Unavailable(Refusal):
    """Not now: the database, the stream or the server is not ready."""

    retry = Retry.BACKOFF


class BadRequest(Refusal):
    """The request itself makes no sense."""
