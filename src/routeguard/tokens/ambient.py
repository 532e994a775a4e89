"""Sessions by the cookies of tokens, renewed on the way: the handler runs with the new ones, whatever it then does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from routeguard.core.credentials import credential_of
from routeguard.core.errors import Unavailable
from routeguard.core.problem import MALFORMED_REQUEST
from routeguard.tokens.jwk import InvalidToken

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.db.database import Transaction
    from routeguard.sessions.by_id import SessionsById
    from routeguard.sessions.clock import SteadyClock
    from routeguard.sessions.models import UserSession
    from routeguard.sessions.sources import Source
    from routeguard.tokens.access import AccessTokens, Claims
    from routeguard.tokens.cookies import TokenCookies
    from routeguard.tokens.families import RefreshFamilies
    from routeguard.tokens.models import TokenSettings
    from routeguard.tokens.service import TokenPair, Tokens

U = TypeVar("U")

_NEAR: Final = 60.0
"""Seconds before its end in which an access token is renewed: a page's next requests should not all come too late."""
_ABSENT: Final = object()


class CookieTokens(Generic[U]):
    """A `Source` of sessions, and the `Companion` that ends them with the browser's session.

    An access token that is good for a while is all that is needed. One that is missing, spent or near its end is
    renewed by the refresh token before the handler runs; the new cookies are on the answer even if that is an error.
    """

    def __init__(
        self, cookies: TokenCookies, tokens: Tokens[U], families: RefreshFamilies[U], *, access: AccessTokens,
        by_id: SessionsById[U], clock: SteadyClock, settings: TokenSettings,
    ) -> None:  # fmt: skip
        self._cookies = cookies
        self._tokens = tokens
        self._families = families
        self._access = access
        self._by_id = by_id
        self._clock = clock
        self._near = min(_NEAR, settings.access.total_seconds() / 4)

    # -- a source of sessions --------------------------------------------------------------------------------------

    def presents(self, exchange: Exchange) -> bool:
        """Return whether a token came as a cookie."""
        return self._cookies.presented(exchange)

    async def resume(self, exchange: Exchange) -> UserSession[U] | None:
        """Return the live session, with tokens renewed where that was due, or None.

        Raises Unavailable when the store is needed and away: then no cookie is touched.
        """
        known: Any = exchange.facts.get(CookieTokens, _ABSENT)
        if known is _ABSENT:
            known = await self._resume(exchange)
            # For the whole request: another branch of a `|` would present the spent token again.
            for one in exchange.lineage():
                one.facts[CookieTokens] = known
        found: UserSession[U] | None = known
        return found

    async def _resume(self, exchange: Exchange) -> UserSession[U] | None:
        sent, refresh = self._cookies.access(exchange), self._cookies.refresh(exchange)
        claims = None if sent is None else await self._read(sent)
        if claims is None:
            pair = None if refresh is None else await self.refresh(exchange)
            return None if pair is None else pair.session
        due = claims.exp - self._clock.time() <= self._near
        # Another user's refresh token beside this one was put there by somebody: nobody's session changes hands.
        if refresh is None or not due or self._families.owner_of(refresh) != claims.sub:
            return await self._find(claims)
        return await self._renew(exchange, claims)

    async def _read(self, token: bytes) -> Claims | None:
        try:
            return await self._access.find(token)
        except InvalidToken:
            return None

    async def _renew(self, exchange: Exchange, claims: Claims) -> UserSession[U] | None:
        """Renew an access token that still is good, and go on with it where that cannot be done."""
        try:
            pair = await self.refresh(exchange, of=claims)
        except Unavailable:
            return await self._find(claims)
        return await self._find(claims) if pair is None else pair.session

    async def _find(self, claims: Claims) -> UserSession[U] | None:
        return await self._by_id.find(claims.sub, claims.sid)

    # -- for the routes --------------------------------------------------------------------------------------------

    async def refresh(self, exchange: Exchange, *, of: Claims | None = None) -> TokenPair[U] | None:
        """Rotate the refresh token in the cookie and put its successor in its place; a dead one is taken away.

        `of` is what a good access token beside it says, which stays.
        """
        text = self._cookies.refresh(exchange)
        if text is None:
            return None
        pair = await self._tokens.refresh(text, exchange, lean=True)
        if pair is not None:
            self.put(exchange, pair)
        elif of is None:
            self._cookies.clear(exchange)
        else:
            self._cookies.clear_refresh(exchange)
        return pair

    def put(self, exchange: Exchange, pair: TokenPair[U]) -> None:
        """Put a pair on the response as cookies."""
        self._cookies.put_access(exchange, pair.access_token, max_age=pair.expires_in)
        self._cookies.put_refresh(exchange, pair.refresh_token, max_age=pair.refresh_expires_in)

    # -- the companion of the session cookie -------------------------------------------------------------------------

    async def end_presented(self, tx: Transaction, exchange: Exchange, *, reason: str) -> None:
        """End the session behind the refresh token a browser sent."""
        text = self._cookies.refresh(exchange)
        if text is not None:
            await self._families.end_presented(tx, text, reason=reason)

    async def replace(self, tx: Transaction, exchange: Exchange, session: UserSession[U]) -> None:
        """Make all refresh tokens of a session void, and give this browser new ones if it has any."""
        await self._families.end_all(tx, session)
        if self.presents(exchange):
            pair = await self._tokens.reissue(tx, session, exchange)
            tx.after_commit(partial(self.put, exchange, pair))

    def clear(self, exchange: Exchange) -> None:
        """Take from the browser the cookies it sent."""
        if self._cookies.presented(exchange):
            self._cookies.clear(exchange)


class OneWay:
    """Access tokens as Bearer, and as nothing else beside (RFC 6750 section 2, attack JWT-39)."""

    def __init__(self, bearer: Source, cookies: TokenCookies) -> None:
        self._bearer = bearer
        self._cookies = cookies

    def presents(self, exchange: Exchange) -> bool:
        """Return whether a token came as Bearer."""
        return self._bearer.presents(exchange)

    async def resume(self, exchange: Exchange) -> UserSession[Any] | None:
        """Return its session, or None. Raises ProblemError 400 for a token sent in two ways."""
        credential = credential_of(exchange.request)
        if credential is not None and credential.value and credential.value == self._cookies.access(exchange):
            raise MALFORMED_REQUEST(debug="an access token as Bearer and as a cookie").error()
        return await self._bearer.resume(exchange)
