"""Which pages may open sockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.errors import ConfigurationError
from backbeat.server.origins import Origins


@pytest.mark.parametrize("allowed", [(), ("*",), ("https://a.example", "*")])
def test_every_page_may_unless_there_is_a_list(allowed: tuple[str, ...]) -> None:
    """`*` is a list of everybody."""
    assert Origins(allowed).allow("https://anything.example")


def test_a_program_that_is_no_browser_may() -> None:
    """It sends no Origin, and could send any."""
    assert Origins(("https://a.example",)).allow(None)


@pytest.mark.parametrize(
    ("entry", "origin", "allowed"),
    [
        ("https://a.example", "https://a.example", True),
        ("https://A.example/", "https://a.EXAMPLE", True),
        ("https://a.example:443", "https://a.example", True),
        ("http://a.example:80", "http://a.example", True),
        ("https://a.example:8443", "https://a.example:8443", True),
        ("http://[::1]:5173", "http://[::1]:5173", True),
        ("capacitor://localhost", "capacitor://localhost", True),
        ("null", "null", True),
        ("https://a.example", "null", False),
        ("https://a.example", "", False),
        ("https://a.example", "http://a.example", False),
        ("https://a.example", "https://a.example:8443", False),
        ("https://a.example", "https://a.example.evil.example", False),
        ("https://a.example", "https://b.a.example", False),
        ("https://*.a.example", "https://b.a.example", True),
        ("https://*.a.example", "https://c.b.a.example", True),
        ("https://*.a.example:8443", "https://b.a.example:8443", True),
        ("https://*.a.example", "https://a.example", False),
        ("https://*.a.example", "https://.a.example", False),
        ("https://*.a.example", "https://evila.example", False),
        ("https://*.a.example", "http://b.a.example", False),
        ("https://*.a.example", "https://b.a.example:8443", False),
        ("https://*.a.example", "https://evil.example/.a.example", False),
        ("https://*.a.example", "https://evil.example?.a.example", False),
        ("https://*.a.example", "https://evil@b.a.example", False),
    ],
)
def test_an_origin_is_compared_as_a_whole(entry: str, origin: str, allowed: bool) -> None:
    """Scheme, host and port; a wildcard stands for one or more labels in front."""
    assert Origins((entry,)).allow(origin) is allowed


@pytest.mark.parametrize(
    "entry", ["a.example", "*.a.example", "https://", "https://a.example/path", "", "a b"]
)
def test_what_is_no_origin_is_refused(entry: str) -> None:
    """Before anything starts, and with what to write."""
    with pytest.raises(ConfigurationError, match="allowed_origins") as caught:
        Origins((entry,))
    assert "https://app.example.com" in caught.value.hint


@given(st.text())
def test_any_text_gets_an_answer(origin: str) -> None:
    """And never the wrong one."""
    allowed = Origins(("https://*.a.example",)).allow(origin)
    assert not allowed or origin.strip().lower().endswith(".a.example")
