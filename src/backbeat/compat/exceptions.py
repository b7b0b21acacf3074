"""The exceptions of `realtime`."""

from __future__ import annotations

__all__ = ["AuthorizationError", "NotConnectedError", "RealtimeHTTPError"]


class NotConnectedError(Exception):
    """There is no connection; kept for `except` clauses, for nothing here raises it.

    Args:
        func_name: what needed one.
    """

    def __init__(self, func_name: str) -> None:
        super().__init__(func_name)
        self.offending_func_name = func_name

    def __str__(self) -> str:
        return (
            f"There is no connection: call AsyncRealtimeClient.connect() before {self.offending_func_name}."
        )


class AuthorizationError(Exception):
    """A private channel is refused; kept for `except` clauses, for the callback of `subscribe` is told.

    Args:
        message: what is said.
    """

    def __init__(self, message: str | None = None) -> None:
        self.message = message or "Authorization failed for private channel"
        super().__init__(self.message)


class RealtimeHTTPError(Exception):
    """A broadcast over HTTP was not taken; its cause is ours, with a code and a hint.

    Args:
        message: why.
        status: the HTTP status; None when there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
