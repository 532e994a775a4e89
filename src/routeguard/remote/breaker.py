"""The circuit breaker: while the identity service is away, no caller waits to be told so."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from routeguard.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from routeguard.core.clock import Clock

SERVICE: Final = "the identity service"
_FAILURES: Final = 3
"""In a row. The feed asks twice a second, so an outage is known within seconds without any request."""
_PAUSE: Final = (0.25, 0.75)
"""Seconds between two probes, drawn anew each time: the processes of a fleet must not come back in step."""


class Away(Unavailable):
    """The service cannot be reached: no connection, no answer in time, or 502, 503 or 504 in its place.

    Only this opens a breaker and lets access tokens go on for `remote.offline`. An answer that is refused, or cannot
    be read, comes from a service that is there and can be asked about each token.
    """


class Breaker:
    """Lets calls through until some in a row were `Away`; then one at a time, now and then, until one is not."""

    def __init__(self, *, clock: Clock, draw: Callable[[float, float], float] = random.uniform) -> None:  # noqa: S311 - spreads load
        self._clock = clock
        self._draw = draw
        self._failures = 0
        self._closed_until = 0.0
        self._probing = False

    @property
    def open(self) -> bool:
        """Whether calls fail at once, but for the probe."""
        return self._failures >= _FAILURES

    @contextmanager
    def call(self) -> Iterator[None]:
        """Make a call inside; Away says that it failed, any other Unavailable that there was an answer.

        Raises Away at once while the service is known to be away.
        """
        probe = self.open
        if probe:
            if self._probing or self._clock.monotonic() < self._closed_until:
                raise Away(SERVICE)
            self._probing = True
        try:
            yield
        except Away:
            self._failures += 1
            self._closed_until = self._clock.monotonic() + self._draw(*_PAUSE)
            raise
        except Unavailable:
            self._failures = 0
            raise
        else:
            self._failures = 0
        finally:
            if probe:
                self._probing = False
