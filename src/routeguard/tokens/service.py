"""Token pairs: issued to a session, and renewed once for all who ask at the same moment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from routeguard.core.secret import digest
from routeguard.tokens.families import binding_of

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.db.database import Transaction
    from routeguard.sessions.clock import SteadyClock
    from routeguard.sessions.models import UserSession
    from routeguard.tokens.access import AccessTokens
    from routeguard.tokens.families import Refreshed, RefreshFamilies
    from routeguard.tokens.models import TokenSettings

U = TypeVar("U")

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


class Tokens(Generic[U]):
    """Issues and renews token pairs."""

    def __init__(
        self, families: RefreshFamilies[U], access: AccessTokens, *, clock: SteadyClock, settings: TokenSettings
    ) -> None:
        self._families = families
        self._access = access
        self._clock = clock
        self._life = settings.access.total_seconds()
        self._flights: dict[bytes, asyncio.Task[TokenPair[U] | None]] = {}

    async def issue(self, session: UserSession[U], exchange: Exchange, *, lean: bool = False) -> TokenPair[U]:
        """Return the first pair of a new family. Raises ProblemError 401 when the session has ended.

        A `lean` access token says nothing of the user: cookies have little room, and only we read them (CK-09).
        """
        begun = await self._families.start(session, client_id=FIRST_PARTY, binding=binding_of(exchange))
        return self._pair(begun, lean=lean)

    async def reissue(self, tx: Transaction, session: UserSession[U], exchange: Exchange) -> TokenPair[U]:
        """Return a lean first pair of a new family that begins when `tx` commits. Raises ProblemError 401."""
        begun = await self._families.begin(tx, session, client_id=FIRST_PARTY, binding=binding_of(exchange))
        return self._pair(begun, lean=True)

    async def refresh(self, text: str | bytes, exchange: Exchange, *, lean: bool = False) -> TokenPair[U] | None:
        """Return the next pair, or None when the refresh token is not good. Raises Unavailable when that is unknown.

        The requests of one page that come with one token are answered by one rotation; it goes on when the request
        that began it is given up, for others wait for it.
        """
        binding = binding_of(exchange)
        key = digest(text.encode("utf-8", "replace") if isinstance(text, str) else text) + binding + bytes([lean])
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._refresh(text, binding, exchange, lean=lean), name="routeguard-refresh")
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    async def _refresh(
        self, text: str | bytes, binding: bytes, exchange: Exchange, *, lean: bool
    ) -> TokenPair[U] | None:  # fmt: skip
        found = await self._families.rotate(text, binding=binding, exchange=exchange)
        return None if found is None else self._pair(found, lean=lean)

    def _landed(self, key: bytes, done: asyncio.Task[TokenPair[U] | None]) -> None:
        del self._flights[key]
        if not done.cancelled():
            done.exception()  # Seen, also when nobody waits any more.

    def _pair(self, found: Refreshed[U], *, lean: bool) -> TokenPair[U]:
        now, session = self._clock.time(), found.session
        return TokenPair(
            access_token=self._access.mint(session, client_id=found.client_id, now=now, lean=lean),
            refresh_token=found.refresh_token,
            expires_in=max(int(min(self._life, session.expires_at.timestamp() - now)), 0),
            refresh_expires_in=max(int(found.expires_at - now), 0),
            session=session,
        )
