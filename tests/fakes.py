"""Fakes of what a test must be able to set: time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Both clocks of `core.clock.Clock`, standing still until told otherwise."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.seconds = start
        self.steady = 1_000.0

    def time(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.steady

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def advance(self, by: float | timedelta) -> None:
        """Let both clocks run."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        self.seconds += seconds
        self.steady += seconds

    def step(self, by: float) -> None:
        """Set the wall clock only, as NTP or an operator does."""
        self.seconds += by
