"""Whether the process lives, and whether it can work: for whatever restarts and balances."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from routeguard.core.errors import Unavailable
from routeguard.core.policy import public
from routeguard.core.single_flight import SingleFlight
from routeguard.foundation.web.reply import reply
from routeguard.foundation.web.routes import get

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

Probe = Callable[[], Awaitable[object]]

_PATIENCE: Final = 2.0
"""Seconds after which a part that has not answered counts as away."""


class Readiness:
    """Whether this process should be sent requests: each part it needs answers, and it is not about to stop.

    A probe is awaited and raises Unavailable when its part is away. All that ask at the same time share one look, so
    that a flood of `/readyz` is no flood of the database.
    """

    def __init__(self, *probes: Probe) -> None:
        self._probes = list(probes)
        self._looks: SingleFlight[None, None] = SingleFlight("routeguard-readiness")
        self.draining = False
        """Whether the process was told to stop."""

    def require(self, probe: Probe) -> None:
        """Ask one part more."""
        self._probes.append(probe)

    def drain(self) -> None:
        """Say no from now on. Does nothing else, so that a signal handler may call it."""
        self.draining = True

    async def check(self) -> None:
        """Return when this process can work. Raises Unavailable when it cannot, or will not for long."""
        try:
            # Only the waiting ends: probes have limits of their own, and are not cut off in the middle.
            await asyncio.wait_for(self._looks.run(None, self._ask), _PATIENCE)
        except TimeoutError:
            raise Unavailable("not ready: a part does not answer") from None
        # After the look and not before: the signal may have come in between.
        if self.draining:
            raise Unavailable("not ready: about to stop")

    async def _ask(self) -> None:
        for answer in await asyncio.gather(*(probe() for probe in self._probes), return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer


def health_routes(ready: Probe) -> list[Route]:
    """Return `/healthz` (200 while the process answers) and `/readyz` (200, or 503 when `ready` raises Unavailable).

    They say nothing else: which part is away is for the log (attack OPS-22).
    """

    async def healthy(request: Request) -> Response:  # noqa: ARG001 - a handler's shape
        return reply({"status": "ok"})

    async def able(request: Request) -> Response:  # noqa: ARG001 - a handler's shape
        await ready()
        return reply({"status": "ok"})

    return [get("/healthz", healthy, public), get("/readyz", able, public)]
