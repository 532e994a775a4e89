"""Rates, durations and sizes are read one way or not at all."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.errors import ConfigError
from routeguard.core.rate import Rate, parse_duration, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "limit", "seconds"),
    [
        ("60/minute", 60, 60),
        ("5 per 15m", 5, 900),
        ("10000/day", 10_000, 86_400),
        (" 1 / HOUR ", 1, 3600),
        ("100/2 hours", 100, 7200),
        ("3/s", 3, 1),
        ("7/10 sec", 7, 10),
        ("1/w", 1, 604_800),
    ],
)
def test_rates(text: str, limit: int, seconds: int) -> None:
    rate = parse_rate(text)
    assert (rate.limit, rate.seconds) == (limit, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "60",
        "/minute",
        "60/",
        "0/minute",
        "60/0 minutes",
        "-1/minute",
        "1.5/minute",
        "60/fortnight",
        "60/minute/hour",
        "60//minute",
        "1e3/minute",
        "٣/minute",
        "9999999999/minute",
        "60\u00a0/minute\x00",
        None,
        60,
        b"60/minute",
    ],
)
def test_no_rates(text: Any) -> None:
    with pytest.raises(ConfigError):
        parse_rate(text)


@given(st.integers(1, 10**9 - 1), st.integers(1, 10**6 - 1), st.sampled_from(["s", "minutes", "h", "day"]))
def test_a_rate_reads_what_it_writes(limit: int, count: int, unit: str) -> None:
    rate = parse_rate(f"{limit}/{count} {unit}")
    if rate.seconds < 10**6 or int(rate.seconds) % 60 == 0:
        assert parse_rate(str(rate)) == rate


def test_a_rate_in_words() -> None:
    assert str(Rate(60, timedelta(minutes=1))) == "60/minute"
    assert str(Rate(5, timedelta(minutes=15))) == "5/15 minutes"
    assert str(Rate(5, timedelta(seconds=1))) == "5/second"
    assert str(Rate(5, timedelta(days=7))) == "5/week"


@pytest.mark.parametrize(
    ("text", "seconds"), [("15m", 900), ("14d", 1_209_600), ("1 hour", 3600), ("0s", 0), (timedelta(minutes=2), 120)]
)
def test_durations(text: str | timedelta, seconds: int) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "1.5h", "-1s", "1 year", "1h30m", "9999999999s", None, 5])
def test_no_durations(text: Any) -> None:
    with pytest.raises(ConfigError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2 KB", 2048), ("2kb", 2048), ("10", 10), ("10 b", 10), ("1 MiB", 1024**2), ("3GB", 3 * 1024**3), (7, 7), (0, 0)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KB", "-1", "1.5 KB", "1 XB", "1 kilobyte", -1, True, None, 1.5])
def test_no_sizes(text: Any) -> None:
    with pytest.raises(ConfigError):
        parse_size(text)


@given(st.text(max_size=50))
def test_nothing_but_config_errors(text: str) -> None:
    for parse in (parse_rate, parse_duration, parse_size):
        with contextlib.suppress(ConfigError):
            assert parse(text) is not None
