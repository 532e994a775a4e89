"""What rotations on the way to a handler spend: the budget of `POST /auth/token/refresh`, for it is the same work."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from routeguard.core.problem import Problem
from routeguard.protection.traffic.operations import REFRESH, operation
from routeguard.protection.traffic.rate_limit import RateLimit
from routeguard.protection.traffic.refunds import Refunds

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.policy import BoundCheck
    from routeguard.core.services import Services


class RenewalBudget:
    """Admits rotations by the caller's address. Counted in this process while the store is away. An `Admit`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._checks: list[BoundCheck] | None = None

    async def __call__(self, exchange: Exchange) -> Problem | Refunds:
        """Return 429 `quota-exceeded`, or how to give the rotation back when an outage keeps it from being done.

        What it says of the budget is left out of answers that pass.
        """
        if self._checks is None:
            limits = operation(self._services, REFRESH)
            # A browser's page must not fail because the counters do: there the rotation is not what was asked for.
            local = (dataclasses.replace(check, on_outage="local") for check in limits.find(RateLimit))
            self._checks = [check.bind(self._services) for check in local]
        fork = exchange.fork()
        # Of its own: the request goes on when the rotation fails, so its answer does not tell what became of it.
        refunds = fork.facts[Refunds] = Refunds()
        for check in self._checks:
            outcome = await check(fork)
            if isinstance(outcome, Problem):
                return outcome
        return refunds
