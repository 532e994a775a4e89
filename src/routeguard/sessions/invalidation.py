"""Which sessions and users signed cookies no longer speak for, in this process and soon in all others."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final

from routeguard.sessions import store
from routeguard.sessions.feed import Feed

if TYPE_CHECKING:
    from routeguard.core.clock import Clock
    from routeguard.db.database import Database, Transaction
    from routeguard.sessions.models import SessionSettings

_PRUNE_EVERY: Final = 300.0
RETENTION: Final = 3600.0
"""Seconds an invalidation is kept for other services to read; what they remember longer, they ask for anew."""
_EXPIRED_FOR: Final = 86400.0
"""Seconds an expired session nobody presents is kept, so that a clock an hour ahead deletes nothing alive."""


class Invalidations(Feed):
    """The feed of the identity service's own processes.

    Each change writes a row in its own transaction. This process learns of it at the commit, the others by asking
    the database.
    """

    def __init__(self, database: Database, *, clock: Clock, settings: SessionSettings) -> None:
        super().__init__(
            partial(store.read_invalidations, database), clock=clock,
            poll=settings.poll.total_seconds(), trust=settings.trust.total_seconds(),
            # A cookie issued just before, on a machine whose clock is ahead, lives this long (attack SES-27).
            keep=(settings.envelope_life + settings.skew).total_seconds(),
        )  # fmt: skip
        self._database = database
        self._pruned_at = -math.inf

    async def invalidate(self, tx: Transaction, *subjects: str) -> None:
        """Make every process forget what cookies say about `subjects`, if and when `tx` commits."""
        await store.insert_invalidations(tx, subjects)
        # Attack OPS-04: what may have been ended is looked up again, so that asking once more does end it here.
        tx.after_commit(lambda: self.learn(*subjects), in_doubt=True)

    async def poll(self) -> None:
        """Ask the database once, and drop what is over now and then. Raises Unavailable."""
        asked_at, wall = self._clock.monotonic(), self._clock.time()
        await super().poll()
        if asked_at - self._pruned_at > _PRUNE_EVERY:
            self._pruned_at = asked_at
            await store.prune(
                self._database, older_than=max(RETENTION, 2 * self.keep), expired_before=wall - _EXPIRED_FOR
            )
