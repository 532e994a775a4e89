"""The feed of invalidations as sessions need it: it reaches as far back as a signed cookie lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.foundation.invalidation.service import Invalidations
from routeguard.identity.sessions import store

if TYPE_CHECKING:
    from routeguard.core.clock import Clock
    from routeguard.foundation.db.database import Database, Transaction
    from routeguard.identity.sessions.models import SessionSettings

_EXPIRED_FOR: Final = 86400.0
"""Seconds an expired session that is not presented is kept, so that a clock an hour ahead deletes nothing alive."""


def invalidations_of(database: Database, *, clock: Clock, settings: SessionSettings) -> Invalidations:
    """Return the feed, which also deletes sessions long expired."""

    async def prune(tx: Transaction) -> None:
        await store.delete_long_expired(tx, before=clock.time() - _EXPIRED_FOR)

    return Invalidations(
        database,
        clock=clock,
        poll=settings.poll.total_seconds(),
        trust=settings.trust.total_seconds(),
        # A cookie issued just before, on a machine whose clock is ahead, lives this long (attack SES-27).
        keep=(settings.envelope_life + settings.skew).total_seconds(),
        prune=prune,
    )
