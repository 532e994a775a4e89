"""Gives units of limits back when an outage, and nothing the caller did, kept the request's work from being done.

A limit is counted before the work, in the step that allows it, so that any number of racing requests get no more than
the limit. An answer of 503 says that the work was not done for a reason of ours: without a refund, a caller that tries
again during an outage is 429 when it is over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio

from routeguard.core.errors import Unavailable

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange

Refund = Callable[[], Awaitable[object]]

_UNAVAILABLE: Final = 503


class Refunds:
    """What one request has spent and may get back. Each unit is given back once at most."""

    __slots__ = ("_before", "_pending")

    def __init__(self) -> None:
        self._pending: list[Refund] = []
        self._before: Callable[[int | None], Awaitable[None]] | None = None

    def add(self, refund: Refund) -> None:
        """Remember how to give back what was just spent."""
        self._pending.append(refund)

    async def give_back(self) -> None:
        """Give everything back. What a store that is away now has counted stays counted."""
        pending, self._pending = self._pending, []
        # Shielded: the client may be gone by now, and the next request of the same user needs the units.
        with anyio.CancelScope(shield=True):
            for refund in pending:
                with contextlib.suppress(Unavailable):
                    await refund()

    @classmethod
    def of(cls, exchange: Exchange) -> Refunds:
        """Return the refunds of a request; they happen by themselves when it is answered with 503.

        Not when its client leaves: hanging up early must not be a way around a limit.
        """
        found = exchange.facts.get(Refunds)
        if not isinstance(found, Refunds):
            found = exchange.facts[Refunds] = cls()
            original = exchange.original
            found._before, original.ended = original.ended, found._answered
        return found

    async def _answered(self, status: int | None) -> None:
        try:
            if status == _UNAVAILABLE:
                await self.give_back()
        finally:
            if self._before is not None:
                await self._before(status)
