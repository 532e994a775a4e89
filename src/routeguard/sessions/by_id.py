"""From a session's id to the session: for credentials that name one and prove it by themselves, such as tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from routeguard.sessions import store
from routeguard.sessions.live import LiveSessions

if TYPE_CHECKING:
    from routeguard.db.database import Database
    from routeguard.sessions.clock import SteadyClock
    from routeguard.sessions.invalidation import Invalidations
    from routeguard.sessions.models import SessionSettings, SessionState, UserSession
    from routeguard.users.store import UserReader

U = TypeVar("U")

_CAPACITY: Final = 8192
"""Sessions remembered by a process; the oldest makes room. About 2 KB each."""


@dataclass(frozen=True, slots=True)
class _Known(Generic[U]):
    """A session that was found alive. `tick` is the state of the invalidation feed that this finding knew of."""

    session: UserSession[U]
    until: float
    """Monotonic seconds."""
    ends_at: float
    """Wall seconds: when the session itself ends unless used."""
    tick: int


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
        self._clock = clock
        self._feed = invalidations
        self._lookup = database.prepare(store.lookup_by_id(users.columns))
        self._known: dict[tuple[str, str], _Known[U]] = {}

    async def find(self, user_id: str, session_id: str, *, proven_at: int) -> UserSession[U] | None:
        """Return the live session of a user, or None: ended, expired, of somebody else, or its user is suspended.

        `proven_at` is when, as the credential says, its user had last proven himself, in whole seconds since the
        epoch. One from before a later proof (a changed password) is no good any more: a copy of it may be why he
        changed it (attack SES-02). Raises Unavailable when that cannot be told.
        """
        known = self._known.get((user_id, session_id))
        # Where they differ this process may not have heard of the proof yet, so the store is asked.
        if (
            known is not None
            and self._counts(known, user_id, session_id)
            and proof_second(known.session) == proven_at
        ):  # fmt: skip
            return known.session
        found = await self._find(user_id, session_id)
        return found if found is not None and proof_second(found) == proven_at else None

    async def _find(self, user_id: str, session_id: str) -> UserSession[U] | None:
        # What is learned while the query runs may be missing from its answer.
        tick = self._feed.tick
        found = await self._live.find(partial(self._lookup.one, user_id=user_id, id=session_id))
        if found is None:
            return None
        state, user = found
        session = state.session(user)
        self._remember(session, state, tick)
        return session

    def _counts(self, known: _Known[U], user_id: str, session_id: str) -> bool:
        feed, now = self._feed, self._clock.monotonic()
        if now >= known.until or now >= feed.trusted_until or self._clock.wall() >= known.ends_at:
            return False
        stale = feed.stale
        return not stale or (stale.get(session_id, 0) <= known.tick and stale.get(user_id, 0) <= known.tick)

    def _remember(self, session: UserSession[U], state: SessionState, tick: int) -> None:
        known, key = self._known, (state.user_id, state.id)
        if len(known) >= _CAPACITY and key not in known:
            del known[next(iter(known))]
        until = self._clock.monotonic() + min(self._live.life, state.ends_at - self._clock.time())
        known[key] = _Known(session, until, state.ends_at, tick)
