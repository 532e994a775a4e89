"""A clock that does not go back while the process runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from routeguard.core.clock import Clock

_LIMIT: Final = 25 * 3600.0


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
        if carried - wall > _LIMIT:
            self._base, self._base_monotonic = wall, self.monotonic()
            return wall
        return max(wall, carried)

    def now(self) -> datetime:
        """Return the aware UTC time of `time()`."""
        return datetime.fromtimestamp(self.time(), UTC)
