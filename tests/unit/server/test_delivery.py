"""What is sent: one frame for each version of the protocol."""

from __future__ import annotations

import pytest

from backbeat.errors import ProtocolError
from backbeat.protocol.codec import V1, V2
from backbeat.server.delivery import TextDelivery, UserBroadcast
from backbeat.websocket.frames import binary_frame, text_frame


def test_an_event_is_text_to_both_versions() -> None:
    """Neither join ref nor ref: it belongs to no join."""
    delivery = TextDelivery("broadcast", b'{"n":1}')
    assert delivery.frame(V1, "t") == text_frame(
        b'{"topic":"t","event":"broadcast","payload":{"n":1},"ref":null}'
    )
    assert delivery.frame(V2, "t") == text_frame(b'[null,null,"t","broadcast",{"n":1}]')


def test_a_user_broadcast_is_binary_to_vsn_2_and_text_to_vsn_1() -> None:
    """Section 2.4."""
    delivery = UserBroadcast('a"b', b'{"n":1}', is_json=True, metadata=b'{"id":"7"}')
    assert delivery.frame(V2, "t") == binary_frame(b'\x04\x01\x03\x0a\x01ta"b{"id":"7"}{"n":1}')
    payload = b'{"event":"a\\"b","payload":{"n":1},"type":"broadcast","meta":{"id":"7"}}'
    assert delivery.frame(V1, "t") == text_frame(
        b'{"topic":"t","event":"broadcast","payload":' + payload + b',"ref":null}'
    )


def test_opaque_bytes_have_no_frame_for_vsn_1() -> None:
    """There is no way to write them."""
    assert UserBroadcast("e", b"\x00", is_json=False).frame(V1, "t") == b""


def test_a_topic_too_long_for_a_header_is_written_as_text() -> None:
    """Whoever joined it hears the broadcast all the same."""
    frame = UserBroadcast("e", b"1", is_json=True).frame(V2, "t" * 256)
    assert b'"broadcast",{"event":"e","payload":1,"type":"broadcast"}]' in frame


@pytest.mark.parametrize("too_long", [{"user_event": "ü" * 128}, {"metadata": b'{"x":"%b"}' % (b"y" * 250)}])
def test_what_fits_no_header_is_refused_at_its_sender(too_long: dict[str, object]) -> None:
    """The error comes while it is made, not while others are being served."""
    arguments: dict[str, object] = {"user_event": "e", "payload": b"1", "is_json": True} | too_long
    with pytest.raises(ProtocolError):
        UserBroadcast(**arguments)  # type: ignore[arg-type]
