"""How often keys are used: counted in memory, written in batches, so that no request waits for a write."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from routeguard.core.errors import Unavailable
from routeguard.core.periodic import Periodic
from routeguard.identity.api_keys import store

if TYPE_CHECKING:
    from datetime import timedelta

    from routeguard.core.clock import SteadyClock
    from routeguard.foundation.db.database import Database, Transaction

logger = logging.getLogger("routeguard.api_keys")

_BATCH: Final = 500


class UseCounter:
    """Counts uses of keys and adds them to the table every `flush`, and once more at the end.

    Exact after a shutdown in order, whatever number of processes; a process that is killed loses what it counted
    since its last write, at most `flush` of it.
    """

    def __init__(self, database: Database, *, clock: SteadyClock, flush: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._counted: dict[str, store.Uses] = {}
        self._writing: dict[str, store.Uses] = {}
        self._lock = asyncio.Lock()
        self._flushing = Periodic("routeguard-api-key-uses", self.flush, pause=flush.total_seconds)

    async def start(self) -> None:
        """Begin writing."""
        self._lock = asyncio.Lock()
        self._flushing.start()

    async def close(self) -> None:
        """Write what is left. What cannot be written now is lost, and said in the log."""
        # Waited for and not cancelled: the outcome of a cancelled write is unknown.
        await self._flushing.close(patience=None)
        # No writer is left; the previous lock may belong to an event loop that has ended.
        self._lock = asyncio.Lock()
        try:
            await self.flush()
        except Unavailable:
            lost = sum(use.number for use in self._counted.values())
            logger.warning("the database is away: %d uses of API keys were counted and not written", lost)

    def count(self, key_id: str, owner_id: str) -> None:
        """Note one use now."""
        _add(self._counted, key_id, store.Uses(owner_id, 1, self._clock.time()))

    def pending(self, key_id: str) -> store.Uses | None:
        """Return what this process has counted for a key and not written yet."""
        found = [uses[key_id] for uses in (self._writing, self._counted) if key_id in uses]
        if not found:
            return None
        return store.Uses(found[0].owner_id, sum(use.number for use in found), max(use.last for use in found))

    def added_to(self, stored: store.StoredKey) -> store.StoredKey:
        """Return a row with what this process has counted for its key and not written yet."""
        pending = self.pending(stored.id)
        if pending is None:
            return stored
        last = max(stored.last_used_at or 0.0, pending.last)
        return stored._replace(usage_count=stored.usage_count + pending.number, last_used_at=last)

    async def flush(self) -> None:
        """Write what was counted up to now. Raises Unavailable, and keeps the counts for the next time."""
        async with self._lock:
            self._writing, self._counted = self._counted, {}
            # In one order everywhere: two processes that write the same keys do not wait for each other in a circle.
            waiting = sorted(self._writing.items())
            try:
                for start in range(0, len(waiting), _BATCH):
                    batch = waiting[start : start + _BATCH]
                    await self._database.run(partial(_added, batch=batch))
                    for key_id, _ in batch:
                        del self._writing[key_id]
            finally:
                for key_id, use in self._writing.items():
                    _add(self._counted, key_id, use)
                self._writing = {}


async def _added(tx: Transaction, *, batch: list[tuple[str, store.Uses]]) -> None:
    await store.add_uses(tx, batch)


def _add(uses: dict[str, store.Uses], key_id: str, more: store.Uses) -> None:
    known = uses.get(key_id)
    if known is not None:
        more = store.Uses(more.owner_id, known.number + more.number, max(known.last, more.last))
    uses[key_id] = more
