"""Time as a dependency, so that expiry can be tested and a stepped clock cannot surprise."""

from __future__ import annotations

import time as _time
from datetime import UTC, datetime
from typing import Final, Protocol

_LARGEST_STEP: Final = 25 * 3600.0
"""Seconds back that a steady clock rides out."""


class Clock(Protocol):
    """The two clocks a server needs."""

    def time(self) -> float:
        """Return seconds since the epoch (UTC). May step; use for what is stored or sent."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back. Use for durations inside this process."""
        ...

    def now(self) -> datetime:
        """Return the aware UTC time of `time()`."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    # Bound directly: both are called on every guarded request.
    time = staticmethod(_time.time)
    monotonic = staticmethod(_time.monotonic)

    def now(self) -> datetime:
        """Return the aware UTC time."""
        return datetime.fromtimestamp(_time.time(), UTC)


class SteadyClock:
    """Wall time that rides out steps back of up to a day, so that none revives an ended session (attack SES-27).

    It is what the wall clock says or, if that is later, what it said at start-up plus the time gone by since. A
    larger step back is a clock that was wrong and got corrected: then the wall clock counts again.
    """

    __slots__ = ("_base", "_base_monotonic", "monotonic", "wall")

    def __init__(self, clock: Clock) -> None:
        self.wall = clock.time
        self.monotonic = clock.monotonic
        self._base = clock.time()
        self._base_monotonic = clock.monotonic()

    def time(self) -> float:
        """Return seconds since the epoch (UTC)."""
        wall = self.wall()
        carried = self._base + self.monotonic() - self._base_monotonic
        if carried - wall > _LARGEST_STEP:
            self._base, self._base_monotonic = wall, self.monotonic()
            return wall
        return max(wall, carried)

    def now(self) -> datetime:
        """Return the aware UTC time of `time()`."""
        return datetime.fromtimestamp(self.time(), UTC)
