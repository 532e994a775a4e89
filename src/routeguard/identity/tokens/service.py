"""Token pairs: issued to a session, and renewed once for all who ask at the same moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from routeguard.core.errors import Unavailable
from routeguard.core.problem import Problem
from routeguard.core.secret import digest
from routeguard.core.security_log import note
from routeguard.core.single_flight import SingleFlight
from routeguard.identity.tokens.families import binding_of

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.core.exchange import Exchange
    from routeguard.foundation.db.database import Transaction
    from routeguard.identity.sessions.models import UserSession
    from routeguard.identity.tokens.access import AccessTokens
    from routeguard.identity.tokens.families import Refreshed, RefreshFamilies
    from routeguard.identity.tokens.models import TokenSettings
    from routeguard.protection.traffic.refunds import Refunds

U = TypeVar("U")

Admit = Callable[["Exchange"], Awaitable["Problem | Refunds"]]
"""Says whether one more rotation may be: the refusal, or what to give back when an outage keeps it from being done."""

_LONGEST_ANSWER: Final = 120.0
"""Seconds for which a rotation waits for its answer to begin."""
_CAPACITY: Final = 4096
"""Rotations whose answers are waited for; the oldest makes room, and has the plain grace."""

FIRST_PARTY: Final = "routeguard"
"""The `client_id` of tokens that a session gets for itself (RFC 9068 section 2.2 wants one)."""


@dataclass(frozen=True, slots=True)
class TokenPair(Generic[U]):
    """An access token with the refresh token that follows it. Both lives are in seconds from now."""

    access_token: str
    refresh_token: str
    expires_in: int
    refresh_expires_in: int
    session: UserSession[U]

    def __repr__(self) -> str:
        return f"TokenPair({self.session.id})"


@dataclass(slots=True)
class _Underway:
    """A rotation whose cookies may not have reached the browser. `until` is in monotonic seconds."""

    successor: str = field(repr=False)
    until: float


class Tokens(Generic[U]):
    """Issues and renews token pairs."""

    def __init__(
        self, families: RefreshFamilies[U], access: AccessTokens, *, clock: SteadyClock, settings: TokenSettings
    ) -> None:
        self._families = families
        self._access = access
        self._clock = clock
        self._life = settings.access.total_seconds()
        self._grace = settings.grace.total_seconds()
        self._underway: dict[bytes, _Underway] = {}
        self._rotations: SingleFlight[bytes, TokenPair[U] | None] = SingleFlight("routeguard-refresh")

    async def issue(self, session: UserSession[U], exchange: Exchange, *, include_user: bool = True) -> TokenPair[U]:
        """Return the first pair of a new family. Raises ProblemError 401 when the session has ended.

        Without `include_user` the access token has no `user` claim: a cookie has little room, and only this
        service reads it (CK-09).
        """
        begun = await self._families.start(session, client_id=FIRST_PARTY, binding=binding_of(exchange))
        _note("token-issued", begun, exchange)
        return self._pair(begun, include_user=include_user)

    async def reissue(self, tx: Transaction, session: UserSession[U], exchange: Exchange) -> TokenPair[U]:
        """Return the first pair of a family that begins when `tx` commits. The access token has no `user` claim.

        Raises ProblemError 401.
        """
        begun = await self._families.begin(tx, session, client_id=FIRST_PARTY, binding=binding_of(exchange))
        tx.after_commit(partial(_note, "token-issued", begun, exchange))
        return self._pair(begun, include_user=False)

    async def renew(
        self, text: str | bytes, exchange: Exchange, *, revoke_on_reuse: bool = True, admit: Admit | None = None
    ) -> TokenPair[U] | None:
        """Rotate the refresh token of a cookie: return the next pair without `user` claim, or None if it is invalid.

        New cookies travel on an answer, and that may begin much later than the rotation. So a caller that presents the
        same cookie to this process until it begins, and for the grace after it, gets the same refresh token again,
        while that is the live one of a live session. Raises ProblemError with what `admit` refused, and Unavailable.
        """
        key = _key(text, binding_of(exchange))
        found = await self._find_underway(key, exchange)
        if found is not None:
            return self._pair(found, include_user=False)
        pair = await self.refresh(text, exchange, include_user=False, revoke_on_reuse=revoke_on_reuse, admit=admit)
        if pair is not None and key not in self._underway:
            self._begin(key, pair, exchange)
        return pair

    async def find(self, text: str | bytes, exchange: Exchange) -> UserSession[U] | None:
        """Return the session of a refresh token that could be rotated now, and rotate nothing. Raises Unavailable."""
        binding = binding_of(exchange)
        found = await self._find_underway(_key(text, binding), exchange)
        found = found or await self._families.find(text, binding=binding, allow_grace=True)
        return None if found is None else found.session

    def _begin(self, key: bytes, pair: TokenPair[U], exchange: Exchange) -> None:
        underway, now = self._underway, self._clock.monotonic()
        while underway:
            oldest = next(iter(underway))
            if len(underway) < _CAPACITY and underway[oldest].until > now:
                break
            del underway[oldest]
        underway[key] = _Underway(pair.refresh_token, now + _LONGEST_ANSWER)
        exchange.original.departed = partial(self._departed, key)

    def _departed(self, key: bytes) -> None:
        found = self._underway.get(key)
        if found is not None:
            found.until = min(found.until, self._clock.monotonic() + self._grace)

    async def _find_underway(self, key: bytes, exchange: Exchange) -> Refreshed[U] | None:
        underway = self._underway.get(key)
        if underway is None:
            return None
        if self._clock.monotonic() < underway.until:
            # Asked each time: it ends with the session, and once its successor is used it is spent for good.
            found = await self._families.find(underway.successor, binding=binding_of(exchange))
            if found is not None:
                return found
        if self._underway.get(key) is underway:
            del self._underway[key]
        return None

    async def refresh(
        self,
        text: str | bytes,
        exchange: Exchange,
        *,
        include_user: bool = True,
        revoke_on_reuse: bool = True,
        admit: Admit | None = None,
    ) -> TokenPair[U] | None:
        """Return the next pair, or None when the refresh token is not good. Raises Unavailable when that is unknown.

        The requests of one page that come with one token are answered by one rotation; it goes on when the request
        that began it is given up, for others wait for it. A reused token revokes its family
        unless `revoke_on_reuse` is False. `admit` is called once a rotation; raises ProblemError with its refusal.
        """
        binding = binding_of(exchange)
        key = _key(text, binding) + bytes([include_user, revoke_on_reuse])
        rotate = partial(self._rotate, text, binding=binding, exchange=exchange, revoke_on_reuse=revoke_on_reuse)
        ask = None if admit is None else partial(admit, exchange)
        return await self._rotations.run(key, partial(self._refresh, rotate, ask, include_user=include_user))

    async def _refresh(
        self,
        rotate: Callable[[], Awaitable[Refreshed[U] | None]],
        ask: Callable[[], Awaitable[Problem | Refunds]] | None,
        *,
        include_user: bool,
    ) -> TokenPair[U] | None:
        admitted = None if ask is None else await ask()
        if isinstance(admitted, Problem):
            raise admitted.error()
        try:
            found = await rotate()
        except Unavailable:
            if admitted is not None:
                await admitted.give_back()
            raise
        return None if found is None else self._pair(found, include_user=include_user)

    async def _rotate(
        self, text: str | bytes, *, binding: bytes, exchange: Exchange, revoke_on_reuse: bool
    ) -> Refreshed[U] | None:
        found = await self._families.rotate(text, binding=binding, exchange=exchange, revoke_on_reuse=revoke_on_reuse)
        if found is not None:
            _note("token-refreshed", found, exchange)
        return found

    def _pair(self, found: Refreshed[U], *, include_user: bool) -> TokenPair[U]:
        now, session = self._clock.time(), found.session
        return TokenPair(
            access_token=self._access.mint(session, client_id=found.client_id, now=now, include_user=include_user),
            refresh_token=found.refresh_token,
            expires_in=max(int(min(self._life, session.expires_at.timestamp() - now)), 0),
            refresh_expires_in=max(int(found.expires_at - now), 0),
            session=session,
        )


def _note(event: str, found: Refreshed[Any], exchange: Exchange) -> None:
    session = found.session
    note(event, exchange, user=session.principal_id, session=session.id, client=found.client_id)


def _key(text: str | bytes, binding: bytes) -> bytes:
    """Return what equal tokens of one client have in common, and nothing of the token."""
    return digest(text.encode("utf-8", "replace") if isinstance(text, str) else text) + binding
