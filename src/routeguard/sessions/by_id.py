"""From a session's id to the session: for credentials that name one and prove it by themselves, such as tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from routeguard.sessions import store
from routeguard.sessions.live import LiveSessions
from routeguard.sessions.remembered import Remembered

if TYPE_CHECKING:
    from routeguard.db.database import Database
    from routeguard.sessions.clock import SteadyClock
    from routeguard.sessions.invalidation import Invalidations
    from routeguard.sessions.models import SessionSettings, UserSession
    from routeguard.users.store import UserReader

U = TypeVar("U")

_CAPACITY: Final = 8192
"""Sessions remembered by a process; the oldest makes room. About 2 KB each."""


def proof_second(session: UserSession[Any]) -> int:
    """Return when the user of a session last proved himself, in whole seconds: the `auth_time` of its tokens."""
    return int(session.authenticated_at.timestamp())


class SessionsById(Generic[U]):
    """Live sessions by the ids of user and session.

    **Whoever asks has to have proven that the session is the caller's**: knowing an id grants nothing. The answer is
    from memory for `envelope_life`, while this process hears of what is invalidated and neither id was; else it is
    one query, which also notes that the session is in use.
    """

    def __init__(
        self, database: Database, users: UserReader[U], *, clock: SteadyClock, settings: SessionSettings,
        invalidations: Invalidations,
    ) -> None:  # fmt: skip
        self._live = LiveSessions(database, users, clock=clock, settings=settings, invalidations=invalidations)
        self._lookup = database.prepare(store.lookup_by_id(users.columns))
        self._known: Remembered[tuple[str, str], UserSession[U]] = Remembered(
            invalidations, clock, capacity=_CAPACITY, life=self._live.life
        )

    async def find(self, user_id: str, session_id: str, *, proven_at: int) -> UserSession[U] | None:
        """Return the live session of a user, or None: ended, expired, of somebody else, or its user is suspended.

        `proven_at` is when, as the credential says, its user had last proven himself, in whole seconds since the
        epoch. One from before a later proof (a changed password) is no good any more: a copy of it may be why he
        changed it (attack SES-02). Raises Unavailable when that cannot be told.
        """
        known = self._known.get((user_id, session_id))
        # Where they differ this process may not have heard of the proof yet, so the store is asked.
        if known is not None and proof_second(known) == proven_at:
            return known
        found = await self._find(user_id, session_id)
        return found if found is not None and proof_second(found) == proven_at else None

    async def _find(self, user_id: str, session_id: str) -> UserSession[U] | None:
        asked_at = self._known.began()
        found = await self._live.find(partial(self._lookup.one, user_id=user_id, id=session_id))
        if found is None:
            return None
        state, user = found
        session = state.session(user)
        key = (state.user_id, state.id)
        self._known.put(key, session, subjects=key, ends_at=state.ends_at, asked_at=asked_at)
        return session
