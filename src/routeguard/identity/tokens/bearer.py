"""Access tokens in `Authorization: Bearer` (RFC 6750 section 2.1) as a source of sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from routeguard.core.security_log import note
from routeguard.foundation.jose.models import InvalidToken

if TYPE_CHECKING:
    from routeguard.core.credentials import Credential
    from routeguard.core.exchange import Exchange
    from routeguard.identity.sessions.by_id import SessionsById
    from routeguard.identity.sessions.models import UserSession
    from routeguard.identity.tokens.access import AccessTokens, Claims


Find = Callable[["Exchange", bytes], Awaitable["UserSession[Any] | None"]]
"""From an access token to its live session, or None. Raises Unavailable."""


class BearerSessions:
    """A source of sessions; `find` says what a token is worth, here or in an app whose service is elsewhere."""

    def __init__(self, find: Find) -> None:
        self._find = find

    async def resume(self, exchange: Exchange, credential: Credential) -> UserSession[Any] | None:
        """Return the live session of a token, or None. Raises Unavailable."""
        return await self._find(exchange, credential.value)


class TokensOfSessions:
    """The session an access token names, if it lives: the token is verified here, the session is looked up.

    So a sign-out ends what it should although the token has not expired (attack SES-18), and the user is as stored
    now, not as when it was signed.
    """

    def __init__(self, tokens: AccessTokens, sessions: SessionsById[Any]) -> None:
        self._tokens = tokens
        self._sessions = sessions

    async def find(self, exchange: Exchange, token: bytes) -> UserSession[Any] | None:
        """Return the live session of a token, or None. Raises Unavailable."""
        claims = self._tokens.verify(token) or await self._ask(exchange, token)
        if claims is None:
            return None
        return await self._sessions.find(
            claims.sub, claims.sid, proven_at=claims.proven_at, whole_seconds=claims.whole_seconds
        )

    async def _ask(self, exchange: Exchange, token: bytes) -> Claims | None:
        try:
            return await self._tokens.find(token)
        except InvalidToken as error:
            tell_refused(exchange, error)
            return None


def tell_refused(exchange: Exchange, error: InvalidToken) -> None:
    """Write to the security log that a token was refused, and nothing of the token with it (attack JWT-01).

    Expiry is everybody's daily business.
    """
    if error.reason != "expired":
        note("token-refused", exchange, reason=error.reason)
