"""From a session's id to the session: for credentials that name one and prove it by themselves, such as tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from routeguard.foundation.invalidation.remembered import Remembered
from routeguard.identity.sessions import store
from routeguard.identity.sessions.live import LiveSessions

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.foundation.db.database import Database
    from routeguard.foundation.invalidation.service import Invalidations
    from routeguard.identity.sessions.models import SessionSettings, UserSession
    from routeguard.identity.users.store import UserReader

U = TypeVar("U")

_CAPACITY: Final = 8192
"""Sessions remembered by a process; the oldest makes room. About 2 KB each."""


def proof_time(session: UserSession[Any]) -> float:
    """Return when the user of a session last proved who they are: seconds since the epoch, to the microsecond."""
    return session.authenticated_at.timestamp()


def is_last_proof(session: UserSession[Any], proven_at: float, *, whole_seconds: bool) -> bool:
    """Whether a credential that names `proven_at` is from after the last proof of a session's user.

    `whole_seconds` is for access tokens of an earlier release, which name no more.
    """
    last = proof_time(session)
    return (int(last) if whole_seconds else last) == proven_at


class SessionsById(Generic[U]):
    """Live sessions by the ids of user and session.

    **The caller of this has checked that the session is the requester's**: knowing an id grants nothing. The answer is
    from memory for `envelope_life`, while this process hears of what is invalidated and neither id was; else it is
    one query, which also notes that the session is in use.
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
        self._live = LiveSessions(database, users, clock=clock, settings=settings, invalidations=invalidations)
        self._lookup = database.prepare(store.lookup_by_id(users.columns))
        self._known: Remembered[tuple[str, str], UserSession[U]] = Remembered(
            invalidations, clock, capacity=_CAPACITY, life=self._live.life
        )

    async def find(
        self, user_id: str, session_id: str, *, proven_at: float, whole_seconds: bool = False
    ) -> UserSession[U] | None:
        """Return the live session of a user, or None: ended, expired, of another user, or its user is suspended.

        `proven_at` is the `proof_time` that the credential names. A credential from before a later proof, such as a
        changed password, is refused even within the same second: a copy of it may be the reason for the change (attack
        SES-02). Raises Unavailable when that cannot be told.
        """
        known = self._known.get((user_id, session_id))
        # Where they differ this process may not have heard of the proof yet, so the store is asked.
        if known is not None and is_last_proof(known, proven_at, whole_seconds=whole_seconds):
            return known
        found = await self._find(user_id, session_id)
        if found is None or not is_last_proof(found, proven_at, whole_seconds=whole_seconds):
            return None
        return found

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
