"""How a client behaves: the times it waits and the sizes it keeps to. The defaults suit almost everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypedDict

from backbeat.errors import ConfigurationError

__all__ = ["SHORTEST_JOIN", "ClientSettings", "SettingsOptions"]


LONGEST_SILENCE: Final = 55.0
"""Seconds between heartbeats with which no server closes the socket (client specification, H-2)."""

SHORTEST_JOIN: Final = 7.0
"""Seconds with which the reason of a refused join is heard (client specification, M-8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Times are seconds, sizes bytes.

    Attributes:
        heartbeat_interval: how long after the reply to one heartbeat the next is sent. Servers close a socket
            that is silent for 60 s.
        heartbeat_timeout: how long a reply to a heartbeat may take.
        open_timeout: how long opening a socket may take.
        close_timeout: how long the goodbye of the other side is waited for.
        join_timeout: how long a reply to a join may take. Supabase's server answers a refused join after
            5 s: whoever waits less learns no reason.
        push_timeout: how long a reply to anything else may take.
        leave_timeout: how long a reply to leaving may take; after it, the channel is left anyway.
        auth_timeout: how long the token source may take.
        backoff: the waits between attempts, to connect, to join and to ask for a token; the last repeats.
        limited_backoff: the shortest wait after a limit was hit.
        jitter: by which part of itself a wait may be longer or shorter, 0 to 1.
        stable_after: how long a connection has to last for the waits to begin anew.
        token_max_age: how old a token from a source may be at a heartbeat; 0 asks at every heartbeat.
        joins_per_second: how many joins are sent per second at most.
        idle_disconnect_after: how long a connection without channels is kept.
        push_buffer: how many messages a channel keeps while it is not joined.
        max_payload_bytes: the largest payload to send; Supabase's default is 3000 kB.
        max_frame_bytes: the largest frame to send or to receive.
        presence_calls: how many times a channel may track and untrack within `presence_window`.
        presence_window: see `presence_calls`.
        wake_jump: by how much the clocks may disagree until the machine is thought to have slept.
        vsn: the protocol version, `2.0.0` or `1.0.0`.
        anon_fallback: whether public channels join without a token when the source has none.
        require_user_token: whether private channels, and those with row changes, refuse to join without one.
        resume: whether private channels ask for the stored messages they missed while they were away.
    """

    heartbeat_interval: float = 25.0
    heartbeat_timeout: float = 10.0
    open_timeout: float = 10.0
    close_timeout: float = 5.0
    join_timeout: float = 10.0
    push_timeout: float = 10.0
    leave_timeout: float = 5.0
    auth_timeout: float = 10.0
    backoff: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    limited_backoff: float = 30.0
    jitter: float = 0.2
    stable_after: float = 5.0
    token_max_age: float = 60.0
    joins_per_second: int = 20
    idle_disconnect_after: float = 50.0
    push_buffer: int = 100
    max_payload_bytes: int = 3_000_000
    max_frame_bytes: int = 5_000_000
    presence_calls: int = 5
    presence_window: float = 30.0
    wake_jump: float = 5.0
    vsn: str = "2.0.0"
    anon_fallback: bool = True
    require_user_token: bool = False
    resume: bool = True

    def advice(self) -> list[str]:
        """What is allowed, and will cause trouble."""
        found = []
        if self.heartbeat_interval > LONGEST_SILENCE:
            found.append(
                f"heartbeat_interval is {self.heartbeat_interval:g} s: servers close a socket after 60 s"
            )
        if self.join_timeout < SHORTEST_JOIN:
            found.append(
                f"join_timeout is {self.join_timeout:g} s: Supabase's server tells why it refuses after 5 s"
            )
        return found

    def __post_init__(self) -> None:
        if not self.backoff or min(self.backoff) <= 0:
            raise ConfigurationError("`backoff` needs at least one wait, and each above 0.")
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError("`jitter` is a part of a wait: 0 to 1.")
        if self.heartbeat_interval <= 0 or self.heartbeat_timeout <= 0:
            raise ConfigurationError("`heartbeat_interval` and `heartbeat_timeout` have to be above 0.")
        if self.joins_per_second < 1 or self.presence_calls < 1 or self.push_buffer < 1:
            raise ConfigurationError(
                "`joins_per_second`, `presence_calls` and `push_buffer` have to be at least 1."
            )
        if self.vsn not in ("1.0.0", "2.0.0"):
            raise ConfigurationError(f"Unsupported serializer version: {self.vsn}")


class SettingsOptions(TypedDict, total=False):
    """The attributes of `ClientSettings`, as keyword arguments."""

    heartbeat_interval: float
    heartbeat_timeout: float
    open_timeout: float
    close_timeout: float
    join_timeout: float
    push_timeout: float
    leave_timeout: float
    auth_timeout: float
    backoff: tuple[float, ...]
    limited_backoff: float
    jitter: float
    stable_after: float
    token_max_age: float
    joins_per_second: int
    idle_disconnect_after: float
    push_buffer: int
    max_payload_bytes: int
    max_frame_bytes: int
    presence_calls: int
    presence_window: float
    wake_jump: float
    vsn: str
    anon_fallback: bool
    require_user_token: bool
    resume: bool
