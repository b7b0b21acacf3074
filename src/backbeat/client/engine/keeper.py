"""Which token is the newest, and when to ask for the next.

A token comes from the source the client was made with (a token, or something that can be asked), or from
`set_auth`, or there is none. One question to the source is open at a time, and its answer counts only if
nothing newer happened since it was asked: a sign-out wins over an answer that was on its way.

The rules are those of the client specification, 2.4 and 2.5.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from backbeat.client import events
from backbeat.client.engine.effects import AskToken, StopAsking, Timer
from backbeat.client.engine.tokens import AuthState, ResolvedToken, Source
from backbeat.errors import NoReply, TokenUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from backbeat.client.engine.turn import Turn

__all__ = ["ANSWER", "REFRESH", "RETRY", "TokenKeeper"]

ANSWER: Final = Timer("token answer")
REFRESH: Final = Timer("token refresh")
RETRY: Final = Timer("token retry")

MARGIN: Final = 60.0
"""Seconds before its end at which a token is replaced; or two heartbeats, if that is longer."""

SOONEST: Final = 1.0
"""Seconds between two refreshes at least, however short tokens live."""


class Mode(Enum):
    """What decides about the token."""

    SOURCE = "source"
    PINNED = "pinned"
    CLEARED = "cleared"


class TokenKeeper:
    """Keeps the newest token.

    Args:
        turn: the engine's current turn.
        static: the token the client was made with, if it was one.
        can_ask: whether there is a source that can be asked.
        changed: called when another token is in use, or a question was answered.

    Attributes:
        current: the newest token, which may have ended.
        last_error: why the source did not answer the last time; None if it did.
    """

    def __init__(self, turn: Turn, *, static: str | None, can_ask: bool, changed: Callable[[], None]) -> None:
        self._turn = turn
        self._static = static
        self._can_ask = can_ask
        self._changed = changed
        self._mode = Mode.SOURCE
        self._newest = 0
        """The number of the newest question, or of what made older ones void."""
        self._open = False
        self._answered = False
        self._failures = 0
        self._waiting: list[tuple[int, int]] = []
        self.current = None if static is None else ResolvedToken.of(static, Source.STATIC, now=0.0)
        self.last_error: Exception | None = None

    # What is known ------------------------------------------------------------------------------------------

    @property
    def decided(self) -> int:
        """The newest question that needs no more waiting."""
        return self._newest - 1 if self._open else self._newest

    @property
    def newest(self) -> int:
        """The newest question; the first one is asked, if none was."""
        return self._newest if self._answered or self._open else self.ask()

    @property
    def asks(self) -> bool:
        """Whether tokens come from a source that can be asked."""
        return self._can_ask and self._mode is Mode.SOURCE

    @property
    def signed_out(self) -> bool:
        """Whether it is known that nobody is signed in."""
        return self._mode is Mode.CLEARED or (self.asks and self._answered and self.current is None)

    @property
    def expects_user(self) -> bool:
        """Whether a channel for users should wait for a token, where there is none."""
        return self._can_ask or self._mode is Mode.CLEARED or self.current is not None

    @property
    def usable(self) -> ResolvedToken | None:
        """The newest token, unless it has ended."""
        token = self.current
        return None if token is None or token.is_expired(self._turn.now.wall) else token

    def state(self) -> AuthState:
        """What is known, for people."""
        token = self.current
        return AuthState(
            source=self._source(),
            fingerprint="" if token is None else token.fingerprint,
            pinned=self._mode is Mode.PINNED,
            role="" if token is None else token.role,
            sub="" if token is None else token.sub,
            expires_at=None if token is None else token.expires_at,
            pending=self._open,
            signed_out=self.signed_out,
            last_error=self.last_error,
        )

    def _source(self) -> Source:
        if self.current is not None:
            return self.current.source
        return Source.PROVIDER if self.asks else Source.NONE

    def lack(self, topic: str) -> TokenUnavailable:
        """Why there is no token that can be used, as an error.

        Args:
            topic: the channel that needs one.
        """
        if self.signed_out:
            why, hint = "nobody is signed in", "It is joined as soon as somebody signs in."
        elif self.last_error is not None:
            kind = type(self.last_error).__name__
            why, hint = f"the token source failed ({kind}: {self.last_error})", "It is asked again."
        elif self.current is not None:
            token = self.current.describe(self._turn.now.wall)
            why, hint = f"the {token} has ended", "Give a fresh one to `set_auth`."
        else:
            why, hint = "there is none", "Give the client a `token`, or call `set_auth`."
        return TokenUnavailable(
            f"The channel {topic!r} needs a user's token, and {why}.", hint=hint, topic=topic
        )

    # Asking -------------------------------------------------------------------------------------------------

    def ask(self, *, anew: bool = False, refused: bool = False) -> int:
        """Ask the source, if there is one, unless it is being asked.

        Args:
            anew: whether an open question is too old to wait for.
            refused: whether a server refused the newest token.

        Returns:
            The number that `decided` reaches when there is an answer, or none will come.
        """
        if self.asks and (anew or not self._open):
            self._void()
            self._open = True
            self._turn.stop(RETRY)
            self._turn.start(ANSWER, self._turn.settings.auth_timeout)
            self._turn.do(AskToken(self._newest, refused=refused))
        return self._newest

    def ask_if_old(self) -> None:
        """Ask when the token has not been confirmed for long (`token_max_age`)."""
        token = self.current
        age = self._turn.settings.token_max_age
        if self.asks and (token is None or self._turn.now.wall - token.fetched_at >= age):
            self.ask()

    def answered(self, request: int, value: object) -> None:
        """Take the answer of the source, if it is still wanted."""
        if not self._is_open(request):
            return
        if value is not None and not isinstance(value, str):
            self.failed(request, TypeError(_shape(value)))
            return
        token = None if not value else ResolvedToken.of(value, Source.PROVIDER, now=self._turn.now.wall)
        self._close_question()
        self._answered = True
        if token is not None and token.is_expired(self._turn.now.wall):
            self._trouble(
                TokenUnavailable(
                    f"The token source gave a token that has ended: {token.describe(self._turn.now.wall)}.",
                    hint="Refresh the session before returning its token, or compare the clocks.",
                )
            )
        else:
            self.last_error = None
            self._failures = 0
        self._use(token)

    def failed(self, request: int, error: Exception) -> None:
        """Go on without an answer: what was used before stays in use."""
        if not self._is_open(request):
            return
        self._close_question()
        self._trouble(error)
        self._decide()

    def _trouble(self, error: Exception) -> None:
        self.last_error = error
        self._failures += 1
        retry_in = None
        token = self.usable
        if token is None or self._left(token) <= self._margin():
            retry_in = self._turn.back_off(self._failures)
            self._turn.start(RETRY, retry_in)
        self._turn.emit(events.TokenProviderFailed(at=self._turn.now.wall, error=error, retry_in=retry_in))

    def source_changed(self, *, signed_out: bool) -> None:
        """The source has another token; an explicit one stays, if it was pinned."""
        if not self.asks:
            return
        if signed_out:
            self._void()
            self._answered = True
            self._use(None)
        else:
            self.ask(anew=True)

    # Being told ---------------------------------------------------------------------------------------------

    def set(self, value: str, *, pin: bool) -> None:
        """Use a token from now on; an answer that is on its way counts no more."""
        self._void()
        if pin:
            self._mode = Mode.PINNED
        elif self._mode is Mode.CLEARED:
            self._mode = Mode.SOURCE
        self._use(ResolvedToken.of(value, Source.MANUAL, now=self._turn.now.wall))

    def use_source(self) -> int:
        """Let an explicit token go; without a source there is no other, so it stays.

        Returns:
            The number that `decided` reaches when the source has answered.
        """
        self._mode = Mode.SOURCE
        if self.asks:
            return self.ask(anew=True)
        self._void()
        if self._static is not None:
            self._use(ResolvedToken.of(self._static, Source.STATIC, now=self._turn.now.wall))
        else:
            self._decide()
        return self._newest

    def clear(self) -> None:
        """Be nobody."""
        self._void()
        self._mode = Mode.CLEARED
        self._use(None)

    def wait(self, request: int, ticket: int) -> None:
        """Settle a ticket with the `AuthState` when a question is decided."""
        self._waiting.append((request, ticket))
        self._settle_waiting()

    def close(self) -> None:
        """Ask nobody any more."""
        self._void()
        self._can_ask = False
        for timer in (REFRESH, RETRY):
            self._turn.stop(timer)
        self._settle_waiting()

    # Timers -------------------------------------------------------------------------------------------------

    def fired(self, timer: Timer) -> None:
        """Handle one of this keeper's timers."""
        if timer == ANSWER:
            self._turn.do(StopAsking(self._newest))
            self.failed(
                self._newest,
                NoReply(
                    f"The token source did not answer within {self._turn.settings.auth_timeout:g} s.",
                    code="TokenProviderTimeout",
                ),
            )
        elif self.asks:
            self.ask()
        elif timer == REFRESH and self.current is not None:
            left = self._left(self.current)
            self._turn.emit(events.PinnedTokenExpiring(at=self._turn.now.wall, seconds_left=left))

    def _schedule(self) -> None:
        token = self.current
        if token is None or token.expires_at is None:
            self._turn.stop(REFRESH)
            return
        left, margin = self._left(token), self._margin() if self.asks else MARGIN
        if not self.asks:
            if left > 0:
                self._turn.start(REFRESH, left - margin)
        elif left > 2 * margin:
            self._turn.start(REFRESH, left - margin)
        elif left > 0:
            # A token that lives shorter than that is replaced half-way, so as not to ask all the time.
            self._turn.start(REFRESH, max(left / 2, SOONEST))

    def _left(self, token: ResolvedToken) -> float:
        return float("inf") if token.expires_at is None else token.expires_at - self._turn.now.wall

    def _margin(self) -> float:
        return max(MARGIN, 2 * self._turn.settings.heartbeat_interval)

    # Deciding -----------------------------------------------------------------------------------------------

    def _is_open(self, request: int) -> bool:
        return self._open and request == self._newest

    def _void(self) -> None:
        """Whatever was asked is too old now; what follows is newer."""
        if self._open:
            self._turn.do(StopAsking(self._newest))
            self._close_question()
        self._newest += 1

    def _close_question(self) -> None:
        self._open = False
        self._turn.stop(ANSWER)

    def _use(self, token: ResolvedToken | None) -> None:
        before, source = self.current, self._source()
        self.current = token
        if (before and before.value) != (token and token.value):
            self._turn.emit(
                events.TokenApplied(
                    at=self._turn.now.wall,
                    source=self._source().value,
                    fingerprint="" if token is None else token.fingerprint,
                    expires_at=None if token is None else token.expires_at,
                )
            )
            if token is not None and not token.is_jwt:
                self._turn.emit(events.NotAJwt(at=self._turn.now.wall, fingerprint=token.fingerprint))
        if self._source() is not source:
            self._turn.emit(
                events.TokenSourceChanged(
                    at=self._turn.now.wall, source=self._source().value, before=source.value
                )
            )
        self._schedule()
        self._decide()

    def _decide(self) -> None:
        self._changed()
        self._settle_waiting()

    def _settle_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for request, ticket in waiting:
            if request <= self.decided:
                self._turn.settle(ticket, self.state())
            else:
                self._waiting.append((request, ticket))


def _shape(value: object) -> str:
    """Say what was given in place of a token; never the thing itself, for it may hold one."""
    kind = type(value).__name__
    if isinstance(value, dict) and "access_token" in value:
        return f"A token is a str, and not a {kind}: use its item 'access_token'."
    if hasattr(value, "access_token"):
        return f"A token is a str, and not a {kind}: use its attribute `access_token`."
    return f"A token is a str or None, and not a {kind}."
