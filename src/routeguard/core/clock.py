"""Time as a dependency, so that expiry can be tested and a stepped clock cannot surprise."""

from __future__ import annotations

import time as _time
from datetime import UTC, datetime
from typing import Protocol


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
