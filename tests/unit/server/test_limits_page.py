"""docs/limits.md is about this server: its settings, defaults, texts and counters."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from backbeat.errors import TokenRefused
from backbeat.protocol.closings import CLOSINGS, Closing
from backbeat.protocol.reasons import REASONS, Reason, Where
from backbeat.server.entrance import ConnectionSettings
from backbeat.server.limits import LimitSettings
from backbeat.server.metrics import FAMILIES
from backbeat.server.settings import Settings
from backbeat.websocket.frames import CloseCode

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "limits.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| Limit ")
]
SETTINGS = Settings(database_url="", jwt_secret="a secret of at least thirty-two bytes")
GROUPS = (SETTINGS, ConnectionSettings(), LimitSettings())
NO_LIMIT = {"trusted_proxies"}
CODES = {reason.code for reason in REASONS.values()} | CLOSINGS.keys() | {code.name for code in CloseCode}


def named(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([A-Za-z_]+)`", cell)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_each_row_names_a_setting_with_its_default(row: list[str]) -> None:
    """The default begins the cell, as a number or a word."""
    _, settings, default, *_ = row
    for name in named(settings):
        values = [getattr(group, name) for group in GROUPS if hasattr(group, name)]
        assert values, name
        if settings == f"`{name}`":
            shown = re.match(r"[\d.]+", default)
            assert (float(shown[0]) if shown else ()) == values[0], name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_each_row_names_codes_that_are_counted(row: list[str]) -> None:
    """Those of refusals, of closings, or of RFC 6455."""
    codes = named(row[4])
    assert codes
    assert set(codes) <= CODES


@pytest.mark.parametrize(
    "name",
    [
        each.name
        for group in (ConnectionSettings, LimitSettings)
        for each in fields(group)
        if each.name not in NO_LIMIT
    ],
)
def test_every_limit_is_on_the_page(name: str) -> None:
    """In a row of its own."""
    assert any(name in named(row[1]) for row in ROWS)


@pytest.mark.parametrize("closing", CLOSINGS.values(), ids=CLOSINGS.keys())
def test_every_closing_is_on_the_page_with_its_code_and_text(closing: Closing) -> None:
    """As the client reads it."""
    said = [row[3] for row in ROWS if closing.name in named(row[4])]
    assert said
    assert str(closing.code) in said[0]
    assert closing.text in said[0]


AT_THE_DOOR = {
    name: reason
    for name, reason in REASONS.items()
    if set(reason.where) == {Where.CONNECT, Where.HTTP} and reason.error is not TokenRefused
}


@pytest.mark.parametrize("reason", AT_THE_DOOR.values(), ids=AT_THE_DOOR.keys())
def test_every_refusal_at_the_door_is_on_the_page_with_its_status_and_text(reason: Reason) -> None:
    """As the client reads it."""
    said = [row[3] for row in ROWS if reason.code in named(row[4])]
    assert said
    assert all(str(reason.status) in each and reason.text in each for each in said)


def test_every_metric_the_page_names_is_exported() -> None:
    """Under that name."""
    names = set(re.findall(r"\b(?:realtime|backbeat|phoenix)_[a-z_]+", PAGE))
    assert names
    assert names <= {family.name for family in FAMILIES}


@pytest.mark.parametrize("page", ["limits.md", "proxy.md"])
def test_every_flag_of_the_pages_exists(page: str) -> None:
    """As `backbeat serve` spells it."""
    known = {each.name for group in GROUPS for each in fields(group)} | {
        "host",
        "port",
        "tls_cert",
        "tls_key",
    }
    flags = {flag.replace("-", "_") for flag in re.findall(r"--([a-z][a-z-]+)", (DOCS / page).read_text())}
    assert flags
    assert flags <= known
