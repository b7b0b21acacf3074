"""What a channel missed while it was away, and what can be done about it (client specification, 7.4).

Private channels ask for the stored messages of that time; those that come twice are dropped. Everything
else that may be missing is a gap, and is said.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from backbeat.client import events
from backbeat.protocol.join import Replay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backbeat.client.config import ChannelConfig
    from backbeat.client.engine.turn import Turn

__all__ = ["Continuity"]

OVERLAP: Final = 2.0
"""Seconds asked for twice: clocks differ, and messages are stored before they are sent."""

REPLAYED_AT_MOST: Final = 25
"""Stored messages a server sends again (server specification, 6.7)."""

REMEMBERED: Final = 1000
"""Ids of stored messages kept to notice repetitions."""


class Continuity:
    """Follows one channel over its interruptions.

    Args:
        turn: the engine's current turn.
        channel: the number of the channel.
        topic: the topic, without the prefix.
    """

    def __init__(self, turn: Turn, channel: int, topic: str) -> None:
        self._turn = turn
        self._channel = channel
        self._topic = topic
        self._since: float | None = None
        self._changes_since: float | None = None
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._replaying: float | None = None
        self._replayed = 0
        self._can_replay = True

    @property
    def asked(self) -> bool:
        """Whether the join under way asks for what was missed."""
        return self._since is not None and self._can_replay

    def interrupted(self, since: float) -> None:
        """The channel is away.

        Args:
            since: when it was last known to be there, in seconds since the epoch.
        """
        if self._since is None:
            self._since = since
        if self._changes_since is None:
            self._changes_since = since

    def forget(self) -> None:
        """Begin anew: what others were sent is none of this identity's business."""
        self._since = self._changes_since = self._replaying = None
        self._can_replay = True
        self._seen.clear()

    def replay(self, config: ChannelConfig, *, skew: float) -> Replay | None:
        """What the next join asks for.

        Args:
            config: the channel.
            skew: by how many seconds the server's clock is ahead.
        """
        if not self._resumes(config):
            return config.replay if self._since is None else None
        assert self._since is not None
        return Replay(int((self._since - OVERLAP + skew) * 1000), REPLAYED_AT_MOST)

    def replay_refused(self) -> None:
        """The server cannot send stored messages; the next join does not ask for them."""
        self._can_replay = False

    def rejoined(self, config: ChannelConfig) -> None:
        """The channel is joined: say what is missing, and will not come.

        Args:
            config: the channel.
        """
        since, self._since = self._since, None
        if since is None:
            return
        if self._can_replay and config.private and self._turn.settings.resume:
            self._replaying, self._replayed = since, 0
        else:
            self._gap("broadcasts", since, "Nobody stores what is sent to a channel for those who are away.")
        self._can_replay = True

    def streaming(self, config: ChannelConfig) -> None:
        """Row changes arrive, from now on."""
        since, self._changes_since = self._changes_since, None
        if since is not None and config.changes:
            self._gap("changes", since, "Row changes are not sent again: read the rows.")

    def changes_stopped(self) -> None:
        """Row changes do not arrive, though the channel is joined."""
        if self._changes_since is None:
            self._changes_since = self._turn.now.wall

    def told_of_gap(self, since: float, until: float) -> None:
        """The server says that row changes are missing.

        Args:
            since: the beginning of the time they are missing from, in seconds since the epoch.
            until: its end.
        """
        # What was noticed here is part of it: it is told once.
        noticed, self._changes_since = self._changes_since, None
        since = since if noticed is None else min(since, noticed)
        self._gap("changes", since, "The server says that changes of this time are missing.", until=until)

    def is_new(self, meta: Mapping[str, object]) -> bool:
        """Whether a broadcast did not come before, as far as its id tells."""
        if meta.get("replayed") is True and self._replaying is not None:
            self._replayed += 1
            if self._replayed == REPLAYED_AT_MOST:
                self._gap("broadcasts", self._replaying, "More messages were missed than a server replays.")
        number = meta.get("id")
        if not isinstance(number, str):
            return True
        if number in self._seen:
            self._seen.move_to_end(number)
            return False
        self._seen[number] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True

    def _resumes(self, config: ChannelConfig) -> bool:
        return self._since is not None and self._can_replay and config.private and self._turn.settings.resume

    def _gap(self, missing: events.Missing, since: float, reason: str, *, until: float | None = None) -> None:
        now = self._turn.now.wall
        self._turn.emit(
            events.Gap(
                at=now,
                topic=self._topic,
                missing=missing,
                since=since,
                until=now if until is None else until,
                reason=reason,
            ),
            channel=self._channel,
        )
