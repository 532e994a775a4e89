"""Sessions by the cookies of tokens, renewed on the way: the handler runs with the new ones, whatever it then does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from routeguard.core.errors import ProblemError, Unavailable
from routeguard.foundation.jose.models import InvalidToken
from routeguard.identity.tokens.bearer import tell_refused

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.core.exchange import Exchange
    from routeguard.foundation.db.database import Transaction
    from routeguard.identity.sessions.by_id import SessionsById
    from routeguard.identity.sessions.models import UserSession
    from routeguard.identity.sessions.service import Sessions
    from routeguard.identity.tokens.access import AccessTokens, Claims
    from routeguard.identity.tokens.cookies import TokenCookies
    from routeguard.identity.tokens.families import RefreshFamilies
    from routeguard.identity.tokens.models import TokenSettings
    from routeguard.identity.tokens.service import Admit, TokenPair, Tokens

U = TypeVar("U")

_NEAR: Final = 60.0
"""Seconds before its end in which an access token is renewed: a page's next requests should not all come too late."""
_FOREIGN: Final = frozenset({b"cross-site", b"same-site"})


class CookieTokens(Generic[U]):
    """A `TokenSource` of sessions, and the `LinkedCredential` that ends them with the browser's session.

    An access token that is good for a while is all that is needed. One that is missing, spent or near its end is
    renewed by the refresh token before the handler runs; the new cookies are on the answer even if that is an error.
    """

    def __init__(
        self,
        cookies: TokenCookies,
        tokens: Tokens[U],
        families: RefreshFamilies[U],
        *,
        access: AccessTokens,
        by_id: SessionsById[U],
        sessions: Sessions[U],
        clock: SteadyClock,
        settings: TokenSettings,
        admit: Admit | None = None,
    ) -> None:
        self._cookies = cookies
        self._tokens = tokens
        self._families = families
        self._access = access
        self._by_id = by_id
        self._sessions = sessions
        self._clock = clock
        self._admit = admit
        self._near = min(_NEAR, settings.access.total_seconds() / 4)

    # -- a source of sessions --------------------------------------------------------------------------------------

    def presents(self, exchange: Exchange) -> bool:
        """Return whether a token came as a cookie."""
        return self._cookies.presented(exchange)

    def access(self, exchange: Exchange) -> bytes | None:
        """Return the access token in the cookie."""
        return self._cookies.access(exchange)

    async def resume(self, exchange: Exchange) -> UserSession[U] | None:
        """Return the live session, with tokens renewed where that was due, or None.

        Raises Unavailable when the store is needed and away: then no cookie is touched.
        """
        sent, refresh = self._cookies.access(exchange), self._cookies.refresh(exchange)
        # For the whole request: another branch of a `|` would present the spent token again.
        key = (CookieTokens, sent, refresh)
        if key not in exchange.memo:
            exchange.memo[key] = await self._resume(exchange, sent, refresh)
        found: UserSession[U] | None = exchange.memo[key]
        return found

    async def _resume(self, exchange: Exchange, sent: bytes | None, refresh: bytes | None) -> UserSession[U] | None:
        claims = None if sent is None else await self._read(exchange, sent)
        if claims is None:
            return None if refresh is None else await self._start_anew(exchange, refresh)
        due = claims.exp - self._clock.time() <= self._near and self._keeps_cookies(exchange)
        # Another user's refresh token beside this one was planted: no session changes hands.
        if refresh is None or not due or self._families.owner_of(refresh) != claims.sub:
            return await self._find(claims)
        return await self._renew(exchange, claims)

    def _keeps_cookies(self, exchange: Exchange) -> bool:
        """Return whether the cookies of the answer are sure enough to be kept for a rotation that could wait.

        A page of another site that includes ours starts requests whose answers it may cut off, or a browser may not
        keep their cookies: it could sign a visitor out.
        """
        return exchange.request.kind == "http" and exchange.request.headers.get(b"sec-fetch-site") not in _FOREIGN

    async def _start_anew(self, exchange: Exchange, refresh: bytes) -> UserSession[U] | None:
        # A handshake that is refused cannot carry cookies, so on a socket nothing is spent.
        if exchange.request.kind != "http":
            return await self._tokens.find(refresh, exchange)
        pair = await self._tokens.renew(refresh, exchange, admit=self._admit)
        self._settle(exchange, pair)
        return None if pair is None else pair.session

    async def _read(self, exchange: Exchange, token: bytes) -> Claims | None:
        try:
            return await self._access.find(token)
        except InvalidToken as error:
            tell_refused(exchange, error)
            return None

    async def _renew(self, exchange: Exchange, claims: Claims) -> UserSession[U] | None:
        """Renew an access token that still is good, and go on with it where that cannot be done.

        A spent refresh token beside it ends nothing, nor is it taken away: the answer with its successor may be on
        its way, and taking the cookie away after that came would sign the user out.
        """
        refresh = self._cookies.refresh(exchange)
        assert refresh is not None
        try:
            pair = await self._tokens.renew(refresh, exchange, revoke_on_reuse=False, admit=self._admit)
        except (Unavailable, ProblemError):
            pair = None
        if pair is None:
            return await self._find(claims)
        self.put(exchange, pair)
        return pair.session

    async def _find(self, claims: Claims) -> UserSession[U] | None:
        return await self._by_id.find(
            claims.sub, claims.sid, proven_at=claims.proven_at, whole_seconds=claims.whole_seconds
        )

    # -- for the routes --------------------------------------------------------------------------------------------

    async def refresh(self, exchange: Exchange) -> TokenPair[U] | None:
        """Rotate the refresh token in the cookie and put its successor in its place; a dead one is taken away."""
        text = self._cookies.refresh(exchange)
        if text is None:
            return None
        pair = await self._tokens.renew(text, exchange)
        self._settle(exchange, pair)
        return pair

    def _settle(self, exchange: Exchange, pair: TokenPair[U] | None) -> None:
        if pair is None:
            self._cookies.clear(exchange)
        else:
            self.put(exchange, pair)

    def put(self, exchange: Exchange, pair: TokenPair[U]) -> None:
        """Put a pair on the response as cookies."""
        lasting = pair.session.lasting
        self._cookies.put_access(exchange, pair.access_token, max_age=pair.expires_in if lasting else None)
        self._cookies.put_refresh(exchange, pair.refresh_token, max_age=pair.refresh_expires_in if lasting else None)

    # -- as the linked credential of a session -------------------------------------------------------------------------

    async def end_presented(self, tx: Transaction, exchange: Exchange, *, reason: str) -> None:
        """End the sessions behind the refresh token and the access token a browser sent; they may be two."""
        text, sent = self._cookies.refresh(exchange), self._cookies.access(exchange)
        if text is not None:
            await self._families.end_presented(tx, text, reason=reason)
        claims = None if sent is None else self._access.verify(sent)
        if claims is not None:
            await self._sessions.revoke_proven(
                tx,
                claims.sub,
                claims.sid,
                proven_at=claims.proven_at,
                whole_seconds=claims.whole_seconds,
                reason=reason,
            )

    async def end_named(self, tx: Transaction, token: str, *, reason: str) -> None:
        """End the session of a live refresh token that a program sent."""
        await self._families.end_presented(tx, token, reason=reason)

    async def replace(self, tx: Transaction, exchange: Exchange, session: UserSession[U]) -> None:
        """Make all refresh tokens of a session void, and give this browser new ones if it has any."""
        await self._families.end_all(tx, session)
        if self.presents(exchange):
            pair = await self._tokens.reissue(tx, session, exchange)
            tx.after_commit(partial(self.put, exchange, pair))

    def clear(self, exchange: Exchange) -> None:
        """Take from the browser the cookies it sent."""
        self._cookies.clear_sent(exchange)
