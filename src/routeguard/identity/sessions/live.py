"""What the store says of a session whose credential was found good, and the note that it is in use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import structs

from routeguard.identity.sessions import store

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.foundation.db.database import Database
    from routeguard.foundation.invalidation.service import Invalidations
    from routeguard.identity.sessions.models import SessionSettings, SessionState
    from routeguard.identity.users.store import UserReader

U = TypeVar("U")
Load = Callable[[], Awaitable[Sequence[Any] | None]]
"""Runs the query that finds a session with its user in one row, or None."""


class LiveSessions(Generic[U]):
    """Reads sessions from the store, for callers that have checked what proves them.

    `life` (seconds) is how long an answer may be remembered, and how often a session's use is noted.
    """

    def __init__(
        self,
        database: Database,
        users: UserReader[U],
        *,
        clock: SteadyClock,
        settings: SessionSettings,
        invalidations: Invalidations,
    ) -> None:
        self._database = database
        self._users = users
        self._clock = clock
        self._feed = invalidations
        self._idle = settings.idle.total_seconds()
        # Sessions with a short idle time must be seen often enough to know that they are in use.
        self.life = min(settings.envelope_life.total_seconds(), self._idle / 4)
        self._touching: set[str] = set()

    async def find(self, load: Load) -> tuple[SessionState, U] | None:
        """Return the session `load` finds and its user, or None: ended, expired, or the user is suspended.

        Notes the use at most once in `life`. Raises Unavailable.
        """
        found = self._read(await load())
        if found is None:
            return None
        state, user = found
        now = self._clock.time()
        if now >= state.ends_at:
            await self._expire(state, now)
            return None
        # One note for the many requests of a page.
        if now - state.last_seen_at >= self.life and state.id not in self._touching:
            # None when another process noted it meanwhile, or ended it: then the store tells which.
            found = await self._touch(state, user, now) or self._read(await load())
        return found

    def _read(self, row: Sequence[Any] | None) -> tuple[SessionState, U] | None:
        if row is None:
            return None
        user = self._users.read(row[store.WIDTH :])
        # Suspension ends sessions; should one be left, it opens nothing (ASVS v5.0.0-7.4.2).
        return None if user is None else (store.read_state(row), user)

    async def _touch(self, state: SessionState, user: U, now: float) -> tuple[SessionState, U] | None:
        used = structs.replace(state, last_seen_at=now, idle_expires_at=min(now + self._idle, state.expires_at))
        self._touching.add(state.id)
        try:
            async with self._database.transaction() as tx:
                return (used, user) if await store.touch(tx, used, before=state.last_seen_at) else None
        finally:
            self._touching.discard(state.id)

    async def _expire(self, state: SessionState, now: float) -> None:
        """End what was found expired for good, so that no clock going back revives it (attack SES-27)."""
        async with self._database.transaction() as tx:
            if await store.delete_expired(tx, state, now=now):
                await self._feed.invalidate(tx, state.id)
