"""Reading the bodies of writes and calls."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.local.rest.errors import RestError
from backbeat.local.rest.payload import Arguments, Payload, read_arguments, read_row, read_rows


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}', Payload('[{"a":1}]', ("a",), 1)),
        (b'[{"a":1,"b":2},{"b":1,"a":2}]', Payload('[{"a":1,"b":2},{"b":1,"a":2}]', ("a", "b"), 2)),
        (b'[{"a":1},{}]', Payload('[{"a":1},{}]', ("a",), 2, uniform=False)),
        (b"[]", Payload("[]", (), 0)),
    ],
)
def test_rows(body: bytes, expected: Payload) -> None:
    """One object is an array of one; the keys are those of the first."""
    assert read_rows(body) == expected


@pytest.mark.parametrize(
    "body", [b"", b"1", b'"a"', b"[1]", b"{", b'{"a":\xff}', b"[" * 100_000, b'{"\\ud800":1}', b"null"]
)
def test_rows_refuse(body: bytes) -> None:
    """Anything but objects is 400 PGRST102."""
    with pytest.raises(RestError) as caught:
        read_rows(body)
    assert (caught.value.status, caught.value.code) == (400, "PGRST102")


def test_row_refuses_arrays() -> None:
    """An update takes one object."""
    with pytest.raises(RestError, match="An update takes one JSON object"):
        read_row(b'[{"a":1}]')


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"", Arguments((), "{}")), (b' {"a":1} ', Arguments(("a",), '{"a":1}'))],
)
def test_arguments(body: bytes, expected: Arguments) -> None:
    """No body means no arguments."""
    assert read_arguments(body) == expected


def test_arguments_refuse_arrays() -> None:
    """A call takes one object."""
    with pytest.raises(RestError, match="A function takes one JSON object"):
        read_arguments(b"[]")


@given(st.binary(max_size=40))
def test_one_error(body: bytes) -> None:
    """Whatever bytes come in, reading them succeeds or raises its own error."""
    with suppress(RestError):
        assert read_rows(body).rows >= 0
