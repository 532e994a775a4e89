"""Parsing of the three quantities people write as text: rates, durations and sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from routeguard.core.errors import ConfigError

_SECONDS: Final = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "seconds": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "minutes": 60,
    "h": 3600,
    "hour": 3600,
    "hours": 3600,
    "d": 86400,
    "day": 86400,
    "days": 86400,
    "w": 604800,
    "week": 604800,
    "weeks": 604800,
}
_BYTES: Final = {"": 1, "b": 1, "kb": 1024, "kib": 1024, "mb": 1024**2, "mib": 1024**2, "gb": 1024**3, "gib": 1024**3}
_RATE: Final = re.compile(r"([0-9]{1,9})\s*(?:/|per)\s*([0-9]{0,6})\s*([a-z]{1,7})", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,9})\s*([a-z]{1,7})", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,12})\s*([a-z]{0,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` requests in any `period`."""

    limit: int
    period: timedelta

    @property
    def seconds(self) -> float:
        """The period in seconds."""
        return self.period.total_seconds()

    def __str__(self) -> str:
        return f"{self.limit}/{_words(int(self.seconds))}"


def parse_rate(text: str) -> Rate:
    """Read a rate such as ``"60/minute"``, ``"5 per 15m"`` or ``"10000/day"``.

    Raises ConfigError for anything else, zero included.
    """
    match = _RATE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    if match is None or match[3] not in _SECONDS:
        raise ConfigError(f"rate {text!r} is not of the form '60/minute'")
    limit, period = int(match[1]), int(match[2] or 1) * _SECONDS[match[3]]
    if limit < 1 or period < 1:
        raise ConfigError(f"rate {text!r} must allow at least one request in at least one second")
    return Rate(limit, timedelta(seconds=period))


def parse_duration(text: str | timedelta) -> timedelta:
    """Read a duration such as ``"500ms"``, ``"15m"`` or ``"14d"``. Raises ConfigError."""
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    if match is not None and match[2] == "ms":
        return timedelta(milliseconds=int(match[1]))
    if match is None or match[2] not in _SECONDS:
        raise ConfigError(f"duration {text!r} is not of the form '15m' or '14d'")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def parse_size(text: str | int) -> int:
    """Read a size such as ``"2 KB"`` (1 KB is 1,024 bytes) into bytes. Raises ConfigError."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = _SIZE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    if match is None or match[2] not in _BYTES:
        raise ConfigError(f"size {text!r} is not of the form '2 KB'")
    return int(match[1]) * _BYTES[match[2]]


def _words(seconds: int) -> str:
    for name in ("week", "day", "hour", "minute"):
        if seconds % _SECONDS[name] == 0:
            count = seconds // _SECONDS[name]
            return name if count == 1 else f"{count} {name}s"
    return "second" if seconds == 1 else f"{seconds} seconds"
