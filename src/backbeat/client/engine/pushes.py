"""What a channel has to send, and what it waits to hear about (client specification, 1.8 and 1.9).

While the channel is not joined, pushes wait in a bounded buffer: when it is full, the oldest is dropped and
whoever sent it is told. Each push has a deadline, and is settled by then, whatever happens.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backbeat.client.engine.effects import Timer
from backbeat.errors import NoReply, ProtocolError, PushDropped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backbeat.client.engine.turn import Turn
    from backbeat.errors import BackbeatError

__all__ = ["Push", "Pushes"]


@dataclass(slots=True, eq=False)
class Push:
    """Something to send.

    Attributes:
        name: what it is, for error texts.
        tickets: who waits for it.
        deadline: when waiting ends, by the steady clock.
        send: sends it and returns its ref.
        wants_reply: whether a reply settles it; else being written does.
        hint: what to do if no reply comes.
    """

    name: str
    tickets: list[int]
    deadline: float
    send: Callable[[], str]
    wants_reply: bool
    hint: str = ""


class Pushes:
    """The pushes of one channel.

    Args:
        turn: the engine's current turn.
        channel: the number of the channel.
        topic: its topic, for error texts.
    """

    def __init__(self, turn: Turn, channel: int, topic: str) -> None:
        self._turn = turn
        self._topic = topic
        self._timer = Timer("push", channel)
        self._armed = math.inf
        self._held: deque[Push] = deque()
        self._sent: dict[str, Push] = {}

    def __len__(self) -> int:
        return len(self._held) + len(self._sent)

    def hold(self, push: Push) -> None:
        """Keep a push until the channel is joined."""
        self._held.append(push)
        self._arm(push.deadline)
        if len(self._held) > self._turn.settings.push_buffer:
            self._fail(
                self._held.popleft(),
                PushDropped(
                    "The push was dropped: too many wait for the channel to be joined.",
                    hint="Wait for `subscribe()`, or raise `push_buffer`.",
                    code="PushBufferOverflow",
                    topic=self._topic,
                ),
            )

    def send(self, push: Push) -> None:
        """Send a push now."""
        try:
            ref = push.send()
        except ProtocolError as error:
            self._fail(push, error)
            return
        self._sent[ref] = push
        self._arm(push.deadline)

    def release(self) -> None:
        """Send what waited."""
        held, self._held = self._held, deque()
        for push in held:
            self.send(push)

    def written(self, ref: str) -> None:
        """A push is written; one that wants no reply is done."""
        push = self._sent.get(ref)
        if push is not None and not push.wants_reply:
            del self._sent[ref]
            self.settle(push)

    def replied(self, ref: str | None) -> Push | None:
        """The push that a reply is for, which waits no more."""
        return None if ref is None else self._sent.pop(ref, None)

    def settle(self, push: Push) -> None:
        """End the wait for a push."""
        for ticket in push.tickets:
            self._turn.settle(ticket)

    def refuse(self, push: Push, error: BackbeatError) -> None:
        """End the wait for a push with an error."""
        self._fail(push, error)

    def lose_sent(self, error: BackbeatError) -> None:
        """Give up waiting for replies: they will not come any more."""
        sent, self._sent = self._sent, {}
        for push in sent.values():
            self._fail(push, error)

    def drop(self, error: BackbeatError) -> None:
        """Give up everything."""
        self.lose_sent(error)
        held, self._held = self._held, deque()
        for push in held:
            self._fail(push, error)
        self._armed = math.inf
        self._turn.stop(self._timer)

    def expire(self) -> None:
        """Handle the timer: end the waits whose time is over."""
        now = self._turn.now.steady
        for ref, push in [(ref, push) for ref, push in self._sent.items() if push.deadline <= now]:
            del self._sent[ref]
            self._late(push)
        late = [push for push in self._held if push.deadline <= now]
        self._held = deque(push for push in self._held if push.deadline > now)
        for push in late:
            self._late(push)
        self._armed = math.inf
        self._arm(min((push.deadline for push in self._all()), default=math.inf))

    def _late(self, push: Push) -> None:
        self._fail(
            push,
            NoReply(f"The {push.name} was not answered in time.", hint=push.hint, topic=self._topic),
        )

    def _fail(self, push: Push, error: BackbeatError) -> None:
        for ticket in push.tickets:
            self._turn.fail(ticket, error)

    def _all(self) -> Iterator[Push]:
        yield from self._held
        yield from self._sent.values()

    def _arm(self, deadline: float) -> None:
        if deadline < self._armed:
            self._armed = deadline
            self._turn.start(self._timer, deadline - self._turn.now.steady)
