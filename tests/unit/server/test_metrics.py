"""What is counted, as Prometheus reads it."""

from __future__ import annotations

import re
from dataclasses import fields
from math import inf
from pathlib import Path

import pytest

from backbeat.server.metrics import FAMILIES, Family, Histogram, Metrics

METRICS_PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([a-z]+)="((?:[^"\\\n]|\\["\\n])*)"\})? (\S+)')


def parsed(text: str) -> dict[str, float]:
    """The samples of an exposition, each with its label: a second reading of the format, strict about it."""
    assert text.endswith("\n")
    samples: dict[str, float] = {}
    family, described = "", set()
    for line in text.splitlines():
        if line.startswith("#"):
            _, keyword, family, _ = line.split(" ", 3)
            assert (family, keyword) not in described
            described.add((family, keyword))
            continue
        match = SAMPLE.fullmatch(line)
        assert match is not None, line
        name, _, value, number = match.groups()
        assert name.startswith(family)
        assert {(family, "HELP"), (family, "TYPE")} <= described
        key = name if value is None else f"{name} {value}"
        assert key not in samples
        samples[key] = float(number)
    return samples


def test_a_counter_is_exported_under_the_name_dashboards_know() -> None:
    """`realtime_channel_joins`, without a suffix."""
    text = Metrics(joins=3).exposition()
    assert "# TYPE realtime_channel_joins counter\nrealtime_channel_joins 3\n" in text


def test_every_line_is_well_formed() -> None:
    """Each family is described once, before its samples, and no sample comes twice."""
    metrics = Metrics()
    metrics.refusals["Unauthorized"] += 1
    metrics.payload_sizes.observe(17.5)
    assert parsed(metrics.exposition())["realtime_payload_size_sum"] == 17.5


def test_refusals_are_told_apart_by_code() -> None:
    """One sample a code."""
    metrics = Metrics()
    metrics.refusals.update({"Unauthorized": 2, "ChannelRateLimitReached": 1})
    samples = parsed(metrics.exposition())
    assert samples["realtime_channel_error Unauthorized"] == 2
    assert samples["realtime_channel_error ChannelRateLimitReached"] == 1


def test_auth_failures_are_the_refusals_of_tokens_and_policies() -> None:
    """A limit is no auth failure."""
    metrics = Metrics()
    metrics.refusals.update({"JwtSignatureError": 2, "Unauthorized": 1, "ChannelRateLimitReached": 4})
    assert metrics.auth_failures == {"JwtSignatureError": 2, "Unauthorized": 1}


def test_a_label_cannot_break_out_of_its_quotes() -> None:
    """Codes are ours, but the format does not depend on that."""
    metrics = Metrics()
    metrics.refusals['a"b\\c\nd'] += 1
    assert r'realtime_channel_error{code="a\"b\\c\nd"} 1' in metrics.exposition()


def test_each_range_of_a_histogram_includes_those_below_it() -> None:
    """A value on a bound belongs to its range; what is above all bounds is in `+Inf`."""
    histogram = Histogram((1.0, 2.5))
    for value in (0.5, 1.0, 2.0, 9.0):
        histogram.observe(value)
    assert list(histogram.samples()) == [
        ("_bucket", '{le="1"}', 2),
        ("_bucket", '{le="2.5"}', 3),
        ("_bucket", '{le="+Inf"}', 4),
        ("_sum", "", 12.5),
        ("_count", "", 4),
    ]


def test_durations_are_exported_in_milliseconds() -> None:
    """They are observed in seconds; the known names have always been in milliseconds."""
    metrics = Metrics()
    metrics.authorizations.observe(0.25)
    samples = parsed(metrics.exposition())
    assert samples["realtime_tenants_read_authorization_check_sum"] == 250
    assert samples["realtime_tenants_read_authorization_check_bucket 100"] == 0
    assert samples["realtime_tenants_read_authorization_check_bucket 250"] == 1


def test_what_is_watched_is_read_when_somebody_looks() -> None:
    """Not before."""
    metrics, buffered = Metrics(), 0
    metrics.watch("backbeat_write_buffer_bytes", lambda: buffered)
    buffered = 4096
    assert parsed(metrics.exposition())["backbeat_write_buffer_bytes"] == 4096


def test_what_has_no_value_is_left_out() -> None:
    """Neither what nobody watches, nor what has no value yet; not even its description."""
    metrics = Metrics()
    metrics.watch("backbeat_replication_lag_seconds", lambda: None)
    text = metrics.exposition()
    assert "backbeat_replication_lag_seconds" not in text
    assert "backbeat_stream_up" not in text


def test_a_limit_that_is_none_is_infinite() -> None:
    """As Prometheus writes it."""
    metrics = Metrics()
    metrics.watch("phoenix_connections_max", lambda: inf)
    assert "phoenix_connections_max +Inf\n" in metrics.exposition()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_metric_is_documented(family: Family) -> None:
    """docs/metrics.md has a line for it, in the words of the exposition."""
    line = f"| `{family.name}` | {family.kind} | {family.help} |"
    assert line in METRICS_PAGE.read_text().splitlines()


def test_no_metric_is_documented_that_is_not_exported() -> None:
    """Nor does one come twice."""
    documented = re.findall(r"^\| `([a-z_]+)` \|", METRICS_PAGE.read_text(), re.MULTILINE)
    assert documented == [family.name for family in FAMILIES]


def test_everything_that_is_counted_is_exported() -> None:
    """Each attribute has a family."""
    counted = {each.name for each in fields(Metrics) if not each.name.startswith("_")}
    assert counted == {family.attribute for family in FAMILIES if family.attribute} - {"auth_failures"}
