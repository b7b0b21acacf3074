"""WebSocket frames (RFC 6455 section 5): builders and a parser for both directions.

The parser takes bytes as they arrive and hands back events; it never answers, closes or waits. Its contract:

1. Events come in the order of the wire: what stood before a violation in the same bytes is delivered first.
2. `Close` and `Violation` are last events: the parser lets go of its buffers and ignores whatever follows.
3. However the bytes are cut into pieces, the events are the same.
4. Between two calls it holds at most `max_message` bytes of payload, one header and one control frame.

No extension is negotiated, so every RSV bit is a violation. How to answer (a pong, the echo of a close, the
close frame for a violation) and how many pings are too many is for the caller to decide.
"""

from enum import IntEnum
from typing import Any, Final

import msgspec


class Opcode(IntEnum):
    """What a frame is (RFC 6455 section 5.2). The values between are reserved."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """The registered codes that may stand in a close frame (RFC 6455 section 7.4 and the IANA registry).

    1005, 1006 and 1015 are missing on purpose: they name events without a close frame and never travel.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


MAX_CONTROL_PAYLOAD: Final = 125
"""Bytes a control frame can carry (RFC 6455 section 5.5)."""

FREE_FRAGMENTS: Final = 1024
"""Fragments of a message that may be of any size, also empty."""

MIN_FRAGMENT: Final = 32
"""Bytes that all further fragments of a message must carry on average: without a limit, a peer could send
empty ones for ever, and never finish a message that somebody would count."""

_FIN: Final = 0x80
_RSV: Final = 0x70
_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_CONTROL: Final = 0x8
_WHOLE_TEXT: Final = _FIN | Opcode.TEXT.value
_WHOLE_BINARY: Final = _FIN | Opcode.BINARY.value
_WHOLE: Final = (_WHOLE_TEXT, _WHOLE_BINARY)
_SHORT_TEXT: Final = tuple(bytes((_WHOLE_TEXT, length)) for length in range(_LENGTH_16))
_OPCODES: Final = frozenset(Opcode)
_CLOSE_CODES: Final = frozenset(CloseCode)


def _xor(data: bytes | bytearray | memoryview, mask: bytes | bytearray) -> bytes:
    """Mask or unmask `data` as one big number: the fastest way without C."""
    size = len(data)
    key = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


try:
    from websockets.speedups import apply_mask
except ImportError:  # websockets was installed without a compiler at hand
    apply_mask = _xor


# --- Events -------------------------------------------------------------------------------------------------
#
# Frozen msgspec structs: one costs 42 ns to make, where a tuple costs 31, a class with slots 149 and a frozen
# dataclass 277. They hold bytes and enums only, so the garbage collector need not track them.


class _Payload(msgspec.Struct, frozen=True, gc=False):
    """Bytes from the peer. They may carry a token, so a `repr` tells their size only."""

    payload: bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self.payload)} bytes>)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("bytes", len(self.payload))]


class Text(_Payload, frozen=True, gc=False):
    """A whole text message; `payload` is valid UTF-8."""


class Binary(_Payload, frozen=True, gc=False):
    """A whole binary message."""


class Ping(_Payload, frozen=True, gc=False):
    """A ping; its payload goes back in a pong."""


class Pong(_Payload, frozen=True, gc=False):
    """A pong, asked for or not."""


class Close(msgspec.Struct, frozen=True, gc=False):
    """The peer's close frame; `code` is `None` when it carried none. Always the last event."""

    code: int | None
    reason: str


class Violation(msgspec.Struct, frozen=True, gc=False):
    """The peer broke the protocol: fail the connection with this code and reason. Always the last event."""

    code: CloseCode
    reason: str


Event = Text | Binary | Ping | Pong | Close | Violation


# --- Builders -----------------------------------------------------------------------------------------------


def text_frame(payload: bytes) -> bytes:
    """Return the server's frame for a whole text message; `payload` must be UTF-8."""
    length = len(payload)
    if length < _LENGTH_16:
        return _SHORT_TEXT[length] + payload
    return _header(_WHOLE_TEXT, length) + payload


def binary_frame(payload: bytes) -> bytes:
    """Return the server's frame for a whole binary message."""
    return _header(_FIN | Opcode.BINARY, len(payload)) + payload


def ping_frame(payload: bytes = b"") -> bytes:
    """Return the server's ping frame.

    Raises:
        ValueError: The payload is longer than 125 bytes (RFC 6455 section 5.5).
    """
    return _control_frame(Opcode.PING, payload)


def pong_frame(payload: bytes = b"") -> bytes:
    """Return the server's pong frame; in answer to a ping it carries the ping's payload.

    Raises:
        ValueError: The payload is longer than 125 bytes (RFC 6455 section 5.5).
    """
    return _control_frame(Opcode.PONG, payload)


def close_frame(code: int | None = None, reason: str = "") -> bytes:
    """Return the server's close frame (RFC 6455 section 5.5.1); see `close_payload`."""
    return _control_frame(Opcode.CLOSE, close_payload(code, reason))


def close_payload(code: int | None = None, reason: str = "") -> bytes:
    """Return what a close frame carries (RFC 6455 section 5.5.1).

    Args:
        code: A code that may travel; `None` for a frame without one, the echo of a frame without one.
        reason: For people who read logs. Cut after at most 123 bytes of UTF-8, between two characters.

    Raises:
        ValueError: The code must not stand in a close frame, or there is a reason and no code.
    """
    if code is None:
        if reason:
            raise ValueError("a close frame with a reason needs a code")
        return b""
    if not _may_travel(code):
        raise ValueError(f"{code} must not stand in a close frame")
    room = MAX_CONTROL_PAYLOAD - 2
    text = reason.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
    return code.to_bytes(2, "big") + text.encode("utf-8")


def client_frame(opcode: int, payload: bytes, mask: bytes, *, fin: bool = True) -> bytes:
    """Return a masked frame, as a client sends it. Nothing is checked, so tests can build wrong ones.

    Args:
        opcode: The low bits of the first byte; RSV bits may be included.
        payload: What the frame carries, unmasked.
        mask: Four bytes, unpredictable ones outside of tests (RFC 6455 section 10.3).
        fin: Whether this is the last frame of its message.
    """
    header = bytearray(_header((_FIN if fin else 0) | opcode, len(payload)))
    header[1] |= _MASKED
    return bytes(header) + mask + apply_mask(payload, mask)


def _header(first: int, length: int) -> bytes:
    if length < _LENGTH_16:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, _LENGTH_16)) + length.to_bytes(2, "big")
    return bytes((first, _LENGTH_64)) + length.to_bytes(8, "big")


def _control_frame(opcode: Opcode, payload: bytes) -> bytes:
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ValueError(f"a control frame carries at most {MAX_CONTROL_PAYLOAD} bytes, not {len(payload)}")
    return _header(_FIN | opcode, len(payload)) + payload


# --- Parser -------------------------------------------------------------------------------------------------


class _Broken(Exception):
    """The frame being read breaks a rule. Never leaves the parser, which makes a `Violation` of it."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class FrameParser:
    """Turns what the other side sends into events.

    Args:
        max_message: Bytes a message may have, its fragments added up. A longer one is refused with 1009 as
            soon as the header that crosses the limit is read, before its payload is buffered.
        masked: Whether frames have to be masked, as a client's are; those of a server must not be.
    """

    __slots__ = (
        "_fragments",
        "_kind",
        "_mask_bit",
        "_message",
        "_pending",
        "_room",
        "_wanted",
        "ended",
        "max_message",
    )

    ended: bool
    """Whether the last event was handed out; whatever follows is ignored."""

    def __init__(self, *, max_message: int, masked: bool = True) -> None:
        self.max_message = max_message
        self._mask_bit = _MASKED if masked else 0
        self.ended = False
        # An incomplete frame, and how long it must grow before another look at it is worth while. Without the
        # second, a long frame in many small pieces would be parsed again for each of them.
        self._pending: bytearray | None = None
        self._wanted = 0
        # The fragments so far of a message whose last one is still to come. They are copied into one buffer,
        # because a list of them would let a peer that sends fragments of one byte take fifty times the limit.
        self._message: bytearray | None = None
        self._fragments = 0
        self._kind = Opcode.TEXT
        self._room = max_message

    def __repr__(self) -> str:
        pending, message = self._pending or b"", self._message or b""
        state = "ended" if self.ended else f"{len(pending)} bytes pending, {len(message)} bytes of fragments"
        return f"<FrameParser: {state}>"

    @property
    def unfinished(self) -> bytearray | None:
        """What a frame or a message that has begun and not ended is kept in; None between two of them.

        It is another object for another message, so whoever looks now and then can tell how old one is. It is
        not to be changed.
        """
        return self._pending if self._message is None else self._message

    @property
    def held(self) -> int:
        """Bytes that are kept of what is unfinished."""
        return len(self._pending or b"") + len(self._message or b"")

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes from the other side; return what they complete.

        Never raises for anything a peer can send: a violation is the last event.
        """
        events: list[Event] = []
        if self.ended:
            return events
        pending = self._pending
        try:
            if pending is None:
                self._parse(data, events)
            else:
                pending += data
                if len(pending) >= self._wanted:
                    self._parse(pending, events)
        except _Broken as broken:
            events.append(Violation(broken.code, broken.reason))
            self._end()
        return events

    def _parse(self, data: bytes | bytearray, events: list[Event]) -> None:
        """Read all complete frames and keep the rest.

        Written for many small whole messages: anything else takes the turns to `_check` and `_deliver`.
        """
        position, end = 0, len(data)
        mask_bit = self._mask_bit
        mask_size = 4 if mask_bit else 0
        self._wanted = 2
        while end - position >= 2:
            first, length = data[position], data[position + 1] - mask_bit
            if first not in _WHOLE or not 0 <= length <= _LENGTH_64 or self._message is not None:
                self._check(first, length)
            start = position + 2
            if length >= _LENGTH_16:
                start += 2 if length == _LENGTH_16 else 8
                if end < start:
                    self._wanted = start - position
                    break
                length = _extended_length(data[position + 2 : start])
            if length > self._room and not first & _CONTROL:
                raise _Broken(CloseCode.MESSAGE_TOO_BIG, f"a message has at most {self.max_message} bytes")
            start += mask_size
            stop = start + length
            if end < stop:
                self._wanted = stop - position
                break
            # A view costs more than the copy of a small payload, and a tenth of the copy of a large one.
            payload = data[start:stop] if length < _LENGTH_16 else memoryview(data)[start:stop]
            payload = apply_mask(payload, data[start - 4 : start]) if mask_size else bytes(payload)
            position = stop
            if first == _WHOLE_TEXT:
                events.append(_text(payload))
            elif first == _WHOLE_BINARY:
                events.append(Binary(payload))
            else:
                self._deliver(first, payload, events)
                if self.ended:
                    return
        self._pending = bytearray(data[position:]) if position < end else None

    def _check(self, first: int, length: int) -> None:
        """Judge the first two bytes of a frame, which say everything but its size."""
        if length < 0:
            raise _Broken(CloseCode.PROTOCOL_ERROR, "a client must mask its frames")
        if length > _LENGTH_64:
            raise _Broken(CloseCode.PROTOCOL_ERROR, "a server must not mask its frames")
        if first & _RSV:
            raise _Broken(CloseCode.PROTOCOL_ERROR, "RSV bits need an extension, and none was negotiated")
        opcode = first & 0x0F
        if opcode not in _OPCODES:
            raise _Broken(CloseCode.PROTOCOL_ERROR, f"opcode {opcode} is reserved")
        if opcode & _CONTROL:
            if not first & _FIN:
                raise _Broken(CloseCode.PROTOCOL_ERROR, "a control frame must not be fragmented")
            if length > MAX_CONTROL_PAYLOAD:
                raise _Broken(CloseCode.PROTOCOL_ERROR, "a control frame carries at most 125 bytes")
        elif opcode == Opcode.CONTINUATION:
            if self._message is None:
                raise _Broken(CloseCode.PROTOCOL_ERROR, "there is no message to continue")
        elif self._message is not None:
            raise _Broken(CloseCode.PROTOCOL_ERROR, "a message began before the last one was finished")

    def _deliver(self, first: int, payload: bytes, events: list[Event]) -> None:
        """Act on a complete frame that is no whole message."""
        match first & 0x0F:
            case Opcode.PING:
                events.append(Ping(payload))
            case Opcode.PONG:
                events.append(Pong(payload))
            case Opcode.CLOSE:
                events.append(_close(payload))
                self._end()
            case opcode:
                if self._message is None:
                    self._message = bytearray()
                    self._kind = Opcode(opcode)
                    self._fragments = 0
                self._message += payload
                self._room -= len(payload)
                self._fragments += 1
                if self._fragments > FREE_FRAGMENTS + len(self._message) // MIN_FRAGMENT:
                    raise _Broken(CloseCode.POLICY_VIOLATION, "a message came in too many small fragments")
                if first & _FIN:
                    message = bytes(self._message)
                    self._message = None
                    self._room = self.max_message
                    events.append(_text(message) if self._kind is Opcode.TEXT else Binary(message))

    def _end(self) -> None:
        self.ended = True
        self._pending = self._message = None


def _text(payload: bytes) -> Text:
    if not payload.isascii():
        try:
            payload.decode("utf-8")
        except UnicodeDecodeError:
            raise _Broken(CloseCode.INVALID_DATA, "a text message must be UTF-8") from None
    return Text(payload)


def _extended_length(field: bytes | bytearray) -> int:
    """Read the length in the two or eight bytes that follow the short one (RFC 6455 section 5.2)."""
    length = int.from_bytes(field, "big")
    if length >> 63:
        raise _Broken(CloseCode.PROTOCOL_ERROR, "the highest bit of a length must be 0")
    if length < (_LENGTH_16 if len(field) == 2 else 1 << 16):
        raise _Broken(CloseCode.PROTOCOL_ERROR, "a length must take as few bytes as it can")
    return length


def _close(payload: bytes) -> Close:
    """Read the body of a close frame (RFC 6455 section 5.5.1)."""
    if not payload:
        return Close(None, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not _may_travel(code):
        raise _Broken(CloseCode.PROTOCOL_ERROR, "a close frame must carry a valid code, or nothing")
    try:
        return Close(code, payload[2:].decode("utf-8"))
    except UnicodeDecodeError:
        raise _Broken(CloseCode.INVALID_DATA, "the reason of a close frame must be UTF-8") from None


def _may_travel(code: int) -> bool:
    """Tell whether a code may stand in a close frame; 3000 to 4999 belong to libraries and applications."""
    return code in _CLOSE_CODES or 3000 <= code <= 4999
