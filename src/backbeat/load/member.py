"""One socket of the load client: it joins a topic, counts what comes, and answers for heartbeats."""

from __future__ import annotations

import asyncio
import secrets
import time
from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import msgspec

from backbeat.errors import ProtocolError
from backbeat.load.opening import SWITCHING, new_key, read_answer, request
from backbeat.load.receipts import Receipts
from backbeat.load.refusals import Refusal, Step
from backbeat.load.wire import JOIN_REF, heartbeat, read
from backbeat.protocol.messages import Event, Message
from backbeat.websocket.frames import (
    Close,
    CloseCode,
    FrameParser,
    Opcode,
    Ping,
    Violation,
    client_frame,
    close_payload,
)
from backbeat.websocket.frames import Event as FrameEvent
from backbeat.websocket.handshake import proof

if TYPE_CHECKING:
    from backbeat.load.crowd import Crowd

__all__ = ["Member", "Phase"]

MAX_MESSAGE: Final = 1 << 20
MAX_TEXT: Final = 200
"""Characters of what a server says that are repeated."""

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_heartbeat = lru_cache(maxsize=1 << 14)(heartbeat)


class _Reply(msgspec.Struct):
    status: str = ""
    response: object = None
    message: str = ""


class Phase(Enum):
    """Where in its life a member is."""

    OPENING = "opening"
    JOINING = "joining"
    JOINED = "joined"
    ENDED = "ended"


class Member(asyncio.Protocol):
    """One socket.

    Args:
        crowd: those it belongs to, who share the digest of what they read.
        url: of the socket, with the key.
        join: the frame that joins its topic.

    Attributes:
        phase: where in its life it is.
        ready: done when it has joined, or will not.
        receipts: what it has got in this run.
        beats: how many heartbeats were sent; also, the ref of the newest.
        awaiting: whether that one is not answered yet.
    """

    __slots__ = (
        "_crowd",
        "_join",
        "_key",
        "_parser",
        "_received",
        "_transport",
        "_url",
        "_whole",
        "_write",
        "awaiting",
        "beats",
        "phase",
        "ready",
        "receipts",
    )

    def __init__(self, crowd: Crowd, url: str, join: bytes) -> None:
        self._crowd = crowd
        self._url = url
        self._join = join
        self._key = new_key()
        self._received = b""
        self._parser = FrameParser(max_message=MAX_MESSAGE, masked=False)
        self._whole = True
        self._transport: asyncio.Transport | None = None
        self.phase = Phase.OPENING
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.receipts = Receipts()
        self.beats = 0
        self.awaiting = False

    # What asyncio tells -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast("asyncio.Transport", transport)
        self._write = self._transport.write
        self._crowd.entered()
        self._write(request(self._url, self._key))

    def data_received(self, data: bytes) -> None:
        """Count what came; all members of a topic read the same, so it is looked into once."""
        crowd = self._crowd
        if self._whole and data == crowd.chunk:
            digest = crowd.digest
        elif self.phase is Phase.OPENING:
            self._answered(data)
            return
        else:
            was_whole = self._whole
            digest = read(self._parser.feed(data), crowd.run)
            self._whole = self._parser.unfinished is None
            if was_whole and self._whole:
                crowd.chunk, crowd.digest = data, digest
        for other in digest.others:
            self._attend(other)
        if digest.numbers:
            crowd.delivered += self.receipts.take(digest)
            if crowd.timing:
                crowd.time(digest.dues, time.monotonic_ns())
            if crowd.delivered >= crowd.wake_at:
                crowd.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell why, unless that was told already."""
        if self.phase is Phase.OPENING and self._received:
            self._refused_upgrade()
        else:
            self._end(Step.CLOSED, f"{CLOSED_WITHOUT_A_WORD} ({exc})" if exc else CLOSED_WITHOUT_A_WORD)
        self._transport = None
        self._crowd.left()

    # What the crowd asks for --------------------------------------------------------------------------------

    def beat(self) -> None:
        """Send a heartbeat."""
        self.beats += 1
        self.awaiting = True
        self.send(_heartbeat(str(self.beats)))

    def send(self, data: bytes) -> None:
        """Write frames, unless the connection is gone; that was told."""
        if self.phase is Phase.JOINED:
            self._write(data)

    def close(self) -> None:
        """Say goodbye; the server closes the connection."""
        if self.phase is Phase.JOINED:
            self.phase = Phase.ENDED
            self._frame(Opcode.CLOSE, close_payload(CloseCode.NORMAL))
        else:
            self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self.phase = Phase.ENDED
        if self._transport is not None:
            self._transport.abort()

    # Opening ------------------------------------------------------------------------------------------------

    def _answered(self, data: bytes) -> None:
        self._received += data
        try:
            answer = read_answer(self._received)
        except ProtocolError as error:
            self._end(Step.UPGRADE, error.message)
            return
        if answer is None:
            return
        if answer.status != SWITCHING:
            if len(answer.rest) >= answer.length:
                self._refused_upgrade()
            return
        if answer.accept != proof(self._key):
            self._end(Step.UPGRADE, "the answer to the handshake belongs to another one", SWITCHING)
            return
        self._received = b""
        self.phase = Phase.JOINING
        self._write(self._join)
        if answer.rest:
            self.data_received(answer.rest)

    def _refused_upgrade(self) -> None:
        try:
            answer = read_answer(self._received)
        except ProtocolError:
            answer = None
        if answer is None:
            self._end(Step.UPGRADE, "the connection was closed in the middle of the answer")
        else:
            self._end(Step.UPGRADE, _words(answer.status, answer.rest), answer.status)

    # Messages -----------------------------------------------------------------------------------------------

    def _attend(self, other: Message | FrameEvent) -> None:
        """Act on what is no broadcast."""
        match other:
            case Message(topic="phoenix", event=Event.REPLY):
                self._crowd.replied(self, other.ref)
            case Message(event=Event.REPLY):
                self._reply(other)
            case Message(event=Event.SYSTEM):
                said = _payload(other)
                if said.status == "error":
                    self._end(Step.MESSAGE, said.message)
            case Message(event=Event.CLOSE | Event.ERROR):
                self._end(Step.MESSAGE, f"the channel ended ({other.event})")
            case Ping():
                self._frame(Opcode.PONG, other.payload)
            case Close():
                code = "without a code" if other.code is None else f"{other.code}"
                self._end(Step.CLOSED, f"{code} {other.reason!r}" if other.reason else code)
            case Violation():
                self._end(Step.CLOSED, f"it broke the WebSocket protocol, {other.reason}")

    def _reply(self, message: Message) -> None:
        reply = _payload(message)
        if self.phase is Phase.JOINING and message.ref == JOIN_REF:
            if reply.status == "ok":
                self.phase = Phase.JOINED
                self._done()
            else:
                self._end(Step.JOIN, _reason(reply.response))
        elif reply.status == "error":
            self._end(Step.MESSAGE, _reason(reply.response))

    def _frame(self, opcode: Opcode, payload: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._write(client_frame(opcode, payload, secrets.token_bytes(4)))

    def _done(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _end(self, step: Step, text: str, status: int = 0) -> None:
        """It is over for this member: told once, with the first reason there was."""
        if self.phase is not Phase.ENDED:
            if step is Step.CLOSED and self.phase is not Phase.JOINED:
                step = Step.UPGRADE if self.phase is Phase.OPENING else Step.JOIN
            self.phase = Phase.ENDED
            self._crowd.refused(Refusal(step, text[:MAX_TEXT], status))
            self._done()
        if self._transport is not None:
            self._transport.close()


CLOSED_WITHOUT_A_WORD: Final = "the connection was closed without a word"


def _payload(message: Message) -> _Reply:
    try:
        return msgspec.json.decode(message.payload, type=_Reply)
    except msgspec.DecodeError:
        return _Reply()


def _reason(response: object) -> str:
    if isinstance(response, dict) and isinstance(response.get("reason"), str):
        return str(response["reason"])
    return str(msgspec.json.encode(response), "utf-8")


def _words(status: int, body: bytes) -> str:
    """What a refusal says in its body, if it says it in JSON."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        fields = {}
    for name in ("error", "message", "msg"):
        if isinstance(text := fields.get(name), str):
            return text
    return _PHRASES.get(status, "no reason given")
