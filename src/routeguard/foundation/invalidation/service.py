"""Which ids (of sessions, users, keys) nothing remembered speaks for any more, here and soon in all other processes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from routeguard.foundation.invalidation import store
from routeguard.foundation.invalidation.feed import Feed

if TYPE_CHECKING:
    from routeguard.core.clock import Clock
    from routeguard.foundation.db.database import Database, Transaction

Prune = Callable[["Transaction"], Awaitable[None]]

_PRUNE_EVERY: Final = 300.0
RETENTION: Final = 3600.0
"""Seconds an invalidation is kept for other services to read; what they remember longer, they ask for anew."""


class Invalidations(Feed):
    """The feed of the identity service's own processes.

    Each change writes a row in its own transaction. This process learns of it at the commit, the others by asking
    the database. Now and then rows that are over are deleted, and with them whatever `prune` deletes.
    """

    def __init__(
        self, database: Database, *, clock: Clock, poll: float, trust: float, keep: float, prune: Prune | None = None
    ) -> None:
        """`poll`, `trust` and `keep` are in seconds."""
        super().__init__(partial(store.read_invalidations, database), clock=clock, poll=poll, trust=trust, keep=keep)
        self._database = database
        self._prune = prune
        self._pruned_at = -math.inf

    async def invalidate(self, tx: Transaction, *subjects: str) -> None:
        """Make every process forget what it remembers about `subjects`, if and when `tx` commits."""
        await store.insert_invalidations(tx, subjects)
        # Attack OPS-04: what may have been ended is looked up again, so that asking once more does end it here.
        tx.after_commit(lambda: self.learn(*subjects), in_doubt=True)

    async def poll(self) -> None:
        """Ask the database once, and drop what is over now and then. Raises Unavailable."""
        asked_at = self._clock.monotonic()
        await super().poll()
        if asked_at - self._pruned_at > _PRUNE_EVERY:
            self._pruned_at = asked_at
            async with self._database.transaction() as tx:
                await store.delete_invalidations(tx, older_than=max(RETENTION, 2 * self.keep))
                if self._prune is not None:
                    await self._prune(tx)
