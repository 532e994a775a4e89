"""From a request's cookie to its session: from memory, else from the signed cookie, else from the store."""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from routeguard.core.cookies import find_cookie
from routeguard.core.secret import digest
from routeguard.foundation.invalidation.remembered import Remembered
from routeguard.identity.sessions import store
from routeguard.identity.sessions.envelope import Envelope, EnvelopeCodec
from routeguard.identity.sessions.live import LiveSessions

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.core.exchange import Exchange
    from routeguard.foundation.db.database import Database
    from routeguard.foundation.invalidation.remembered import Tick
    from routeguard.foundation.invalidation.service import Invalidations
    from routeguard.identity.sessions.cookies import SessionCookie
    from routeguard.identity.sessions.models import SessionSettings, SessionState, UserSession
    from routeguard.identity.users.store import UserReader

U = TypeVar("U")

_CAPACITY: Final = 8192
"""Cookies remembered by a process; the oldest makes room. About 2 KB each."""
_SHAPE_SIZE: Final = 8
"""Bytes; two classes of one application have to differ in it, no attacker can choose it."""


class CookieSessions(Generic[U]):
    """The session behind our own cookie.

    Most requests are answered from memory without a suspension point; a signed cookie younger than
    `envelope_life` from its own content; the rest by one query. Whatever is invalidated goes to the store.
    """

    def __init__(
        self,
        database: Database,
        users: UserReader[U],
        *,
        clock: SteadyClock,
        codec: EnvelopeCodec,
        cookie: SessionCookie,
        settings: SessionSettings,
        invalidations: Invalidations,
    ) -> None:
        self._live = LiveSessions(database, users, clock=clock, settings=settings, invalidations=invalidations)
        self._users = users
        self._clock = clock
        self._codec = codec
        self._cookie = cookie
        self._name = cookie.name.encode()
        self._feed = invalidations
        self._life = self._live.life
        self._skew = settings.skew.total_seconds()
        self._lookup = database.prepare(store.lookup(users.columns))
        self._decoder = msgspec.msgpack.Decoder(users.user_class)
        self._shape = _shape_of(users.user_class)
        # A cookie is signed, not encrypted: a user with fields that are hidden from the user stays out of it.
        self._speaks = all(field.metadata.get("public") for field in users.codec.extra)
        self._known: Remembered[bytes, UserSession[U]] = Remembered(
            invalidations, clock, capacity=_CAPACITY, life=self._life
        )

    @property
    def user_class(self) -> type[U]:
        """The class of the users in sessions."""
        return self._users.user_class

    async def resume(self, exchange: Exchange) -> UserSession[U] | None:
        """Return the live session of a request, or None. Raises Unavailable when that cannot be told."""
        value = self._sent(exchange)
        if value is None:
            return None
        known = self._known.get(value)
        if known is not None:
            return known
        envelope = self._codec.open(value)
        if envelope is None:
            return None
        return self._read(value, envelope) or await self._find(exchange, value, envelope)

    def presents(self, exchange: Exchange) -> bool:
        """Return whether a session cookie was sent."""
        return self._name + b"=" in exchange.request.headers.get(b"cookie", b"")

    def presented(self, exchange: Exchange) -> Envelope | None:
        """Return what a request's cookie says if we signed it. Whether that session still lives is another question."""
        value = self._sent(exchange)
        return None if value is None else self._codec.open(value)

    def issue(
        self, exchange: Exchange, state: SessionState, user: U, *, secret: bytes, asked_at: Tick | None = None
    ) -> UserSession[U]:
        """Put a fresh cookie for a session on the response. `asked_at` is from before `state` was read."""
        now = self._clock.time()
        snapshot = self._shape + msgspec.msgpack.encode(user) if self._speaks else b""
        value = self._codec.seal(Envelope(state, secret, now, snapshot))
        self._cookie.set(exchange, value, max_age=max(int(state.expires_at - now), 0) if state.lasting else None)
        session = state.session(user)
        asked_at = self._known.began() if asked_at is None else asked_at
        self._remember(value.encode(), session, state, asked_at=asked_at)
        return session

    def clear(self, exchange: Exchange) -> None:
        """Take the cookie from the browser."""
        self._cookie.clear(exchange)

    def _sent(self, exchange: Exchange) -> bytes | None:
        header = exchange.request.headers.get(b"cookie")
        if header is None:
            return None
        value, doubled = find_cookie(header, self._name)
        # Two of them: one was planted by an attacker, and order does not tell which (attack CSRF-16).
        return None if doubled else value

    def _read(self, value: bytes, envelope: Envelope) -> UserSession[U] | None:
        """Return the session a cookie speaks for by itself, or None when the store must be asked."""
        state, now = envelope.state, self._clock.time()
        if not self._feed.trusts() or self._is_stale(state):
            return None
        # Empty, or of another user class: fields that one did not have would quietly be their defaults here, and a
        # role or a limit among them would not be the user's (attack SES-26).
        if not envelope.user.startswith(self._shape):
            return None
        # A cookie from the future was signed before a clock went back, perhaps before a revocation that this
        # process has forgotten by now (attack SES-27).
        if not -self._skew <= now - envelope.issued_at < self._life or now >= state.ends_at:
            return None
        try:
            session = state.session(self._decoder.decode(envelope.user[_SHAPE_SIZE:]))
        except msgspec.DecodeError:
            return None  # By another version of what encodes it.
        # No word about it is in the feed now, so only what comes later can contradict it.
        left = envelope.issued_at + self._life - now
        self._remember(value, session, state, asked_at=self._known.began(), life=left)
        return session

    async def _find(self, exchange: Exchange, value: bytes, envelope: Envelope) -> UserSession[U] | None:
        """Return the session the store knows under a cookie's secret, noting that it was used."""
        asked_at = self._known.began()
        proven, secret_hash = envelope.state, digest(envelope.secret)
        found = await self._live.find(
            partial(self._lookup.one, user_id=proven.user_id, id=proven.id, secret_hash=secret_hash)
        )
        if found is None:
            return None
        state, user = found
        now = self._clock.time()
        if 0 <= now - envelope.issued_at < self._life and not self._is_stale(envelope.state):
            session = state.session(user)
        else:
            session = self.issue(exchange, state, user, secret=envelope.secret, asked_at=asked_at)
        # The old cookie as well: a page sends many requests before it has seen the answer to the first.
        self._remember(value, session, state, asked_at=asked_at)
        return session

    def _is_stale(self, state: SessionState) -> bool:
        return self._feed.is_stale(state.id, state.user_id)

    def _remember(
        self, value: bytes, session: UserSession[U], state: SessionState, *, asked_at: Tick, life: float | None = None
    ) -> None:
        subjects = (state.id, state.user_id)
        self._known.put(value, session, subjects=subjects, ends_at=state.ends_at, asked_at=asked_at, life=life)


def _shape_of(user_class: type[Any]) -> bytes:
    """Return the fingerprint of a user class: names, types and defaults of its fields, and of theirs."""
    schema = msgspec.json.schema(user_class, schema_hook=_foreign)
    return blake2b(msgspec.json.encode(_sorted(schema)), digest_size=_SHAPE_SIZE).digest()


def _foreign(kind: type[Any]) -> dict[str, str]:
    return {"title": f"{kind.__module__}.{kind.__qualname__}"}


def _sorted(value: Any) -> Any:
    """Return a schema in one order: that of a set differs from process to process."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return sorted(map(_sorted, value), key=msgspec.json.encode) if isinstance(value, list | tuple) else value
