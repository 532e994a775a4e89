"""Sessions in an app without their store: by access tokens read here, else by the service's word."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from routeguard.core.cookies import find_cookie
from routeguard.core.secret import digest
from routeguard.foundation.jose.models import InvalidToken
from routeguard.identity.sessions.models import SessionId, UserSession
from routeguard.identity.tokens.bearer import tell_refused
from routeguard.remote.answers import Answers, Finding
from routeguard.remote.breaker import Away
from routeguard.remote.introspection import assurance_of, session_of

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.core.exchange import Exchange
    from routeguard.foundation.invalidation.feed import Feed
    from routeguard.identity.tokens.access import AccessTokens, Claims
    from routeguard.identity.tokens.cookies import TokenCookies
    from routeguard.remote.introspection import IntrospectionResult, Introspector
    from routeguard.remote.keys import RemoteKeys
    from routeguard.remote.users import RemoteUsers

U = TypeVar("U")

_CAPACITY: Final = 8192
"""Sessions of tokens remembered; the oldest makes room. About 2 KB each."""
_COOKIE_VALUE: Final = re.compile(rb"[A-Za-z0-9_-]{1,4096}\.[A-Za-z0-9_-]{1,128}")
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]{1,4096}\.[A-Za-z0-9_-]{1,16384}\.[A-Za-z0-9_-]{1,4096}")


class OfflinePolicy(NamedTuple):
    """How far a token's own word goes, in seconds.

    One `fresh` or younger counts if the feed had nothing against it; the feed has to have been heard within
    `offline` after what it says stopped being trusted.
    """

    fresh: float
    offline: float


class ExpectedToken(NamedTuple):
    """For whom, and by whom, a token has to be issued to count here."""

    audience: str
    issuer: str


class RemoteSessions(Generic[U]):
    """Asks the service about a credential and remembers the answer while the feed says nothing against it."""

    def __init__(
        self,
        introspector: Introspector,
        users: RemoteUsers[U],
        *,
        answers: Answers[UserSession[U] | None],
        expected: ExpectedToken,
    ) -> None:
        self._introspector = introspector
        self._users = users
        self._answers = answers
        self._expected = expected

    async def find(self, credential: bytes) -> UserSession[U] | None:
        """Return the live session of a cookie's value or of an access token, or None. Raises Unavailable."""

        async def ask() -> Finding[UserSession[U] | None]:
            result = await self._introspector.ask(credential.decode("ascii"), known=self._answers.was_good(key))
            if not result.active or not self._counts(result):
                return Finding(None, refused=True)
            session = session_of(result, self._users)
            ends_at = min(session.expires_at.timestamp(), result.exp or float("inf"))
            return Finding(session, (session.id, session.principal_id), ends_at)

        key = digest(credential)
        return await self._answers.get(key, ask)

    def _counts(self, result: IntrospectionResult) -> bool:
        """Whether it is a session's cookie, or a token for this app.

        Attack JWT-21: the service vouches for every token of its own, so also for one made for another application.
        """
        if result.token_type == "access_token":  # noqa: S105 - a kind of token
            return (result.aud, result.iss) == self._expected
        return result.token_type == "session"  # noqa: S105 - likewise


class RemoteCookies(Generic[U]):
    """The session behind the service's own cookie, where the app shares its origin."""

    def __init__(self, sessions: RemoteSessions[U], *, name: str, user_class: type[U]) -> None:
        self._sessions = sessions
        self._name = name.encode("ascii")
        self.user_class = user_class

    def presents(self, exchange: Exchange) -> bool:
        """Return whether a session cookie was sent."""
        return self._name + b"=" in exchange.request.headers.get(b"cookie", b"")

    async def resume(self, exchange: Exchange) -> UserSession[U] | None:
        """Return the live session of a request, or None. Raises Unavailable when that cannot be told."""
        header = exchange.request.headers.get(b"cookie")
        if header is None:
            return None
        value, doubled = find_cookie(header, self._name)
        # Two of them: one was planted, and order does not tell which (attack CSRF-16). What has not the form of one
        # costs no call.
        if value is None or doubled or _COOKIE_VALUE.fullmatch(value) is None:
            return None
        return await self._sessions.find(value)


class TokenSessions(Generic[U]):
    """The session of an access token: verified here, and asked about only where its own word does not do.

    That is when the feed named its session or user, when the token is older than the feed reaches back, when it says
    nothing of the user, and when the feed was not heard for long. While the service is away those are 503.
    """

    def __init__(
        self,
        tokens: AccessTokens,
        keys: RemoteKeys,
        users: RemoteUsers[U],
        *,
        sessions: RemoteSessions[U],
        feed: Feed,
        clock: SteadyClock,
        policy: OfflinePolicy,
    ) -> None:
        self._tokens = tokens
        self._keys = keys
        self._users = users
        self._sessions = sessions
        self._feed = feed
        self._clock = clock
        self._policy = policy
        # Not `Remembered`: what a verified token says, read into objects once. It is looked at only after `_speaks` has
        # found that the token's own word counts, which it may longer than an answer would: `OfflinePolicy.offline`.
        self._known: dict[str, UserSession[U]] = {}

    async def find(self, exchange: Exchange, token: bytes) -> UserSession[U] | None:
        """Return the live session of a token, or None. Raises Unavailable when that cannot be told."""
        claims = self._tokens.verify(token)
        if claims is None:
            if self._keys.none_published:
                return await self._sessions.find(token) if _TOKEN.fullmatch(token) else None
            claims = await self._read(exchange, token)
        if claims is None:
            return None
        silent_for = self._feed.silent_for()
        if silent_for >= 0 or not self._speaks(claims, silent_for):
            try:
                session = await self._sessions.find(token)
            except Away:
                # Only of a service that cannot be reached: one that has no feed, but answers, is asked (attack SES-18).
                if not self._speaks(claims, self._feed.silent_for()):
                    raise
            else:
                # Whatever is asked about, the answer is about this token or it does not count.
                return session if session is not None and session.id == claims.sid else None
        return self._known.get(claims.jti) or self._remember(claims)

    def _speaks(self, claims: Claims, silent_for: float) -> bool:
        """Whether a token's own word will do, if need be without the service; `silent_for` is the feed's."""
        feed = self._feed
        if claims.user is None or not feed.heard:
            return False
        if silent_for >= self._policy.offline:
            return False
        # Of what was revoked longer ago, the feed has forgotten: here, or before this process began.
        if self._clock.time() - claims.iat > self._policy.fresh:
            return False
        return not feed.is_stale(claims.sid, claims.sub)

    def _remember(self, claims: Claims) -> UserSession[U]:
        authenticated_at = datetime.fromtimestamp(claims.auth_time, UTC)
        session = UserSession(
            SessionId(claims.sid),
            self._users.read(claims.user or {}),
            datetime.fromtimestamp(claims.session_created_at, UTC),
            authenticated_at,
            datetime.fromtimestamp(claims.session_expires_at, UTC),
            assurance=assurance_of(claims.acr, claims.amr, authenticated_at),
        )
        if len(self._known) >= _CAPACITY:
            del self._known[next(iter(self._known))]
        self._known[claims.jti] = session
        return session

    async def _read(self, exchange: Exchange, token: bytes) -> Claims | None:
        try:
            return await self._tokens.find(token)
        except InvalidToken as error:
            tell_refused(exchange, error)
            return None


class RemoteTokenCookies:
    """The access token in a browser's cookie. Only the service renews it: here, one that has expired is 401."""

    def __init__(self, tokens: TokenSessions[Any], cookies: TokenCookies) -> None:
        self._tokens = tokens
        self._cookies = cookies

    def presents(self, exchange: Exchange) -> bool:
        """Return whether an access token came as a cookie."""
        return self.access(exchange) is not None

    def access(self, exchange: Exchange) -> bytes | None:
        """Return the access token in the cookie."""
        return self._cookies.access(exchange)

    async def resume(self, exchange: Exchange) -> UserSession[Any] | None:
        """Return the live session, or None. Raises Unavailable when that cannot be told."""
        token = self.access(exchange)
        return None if token is None else await self._tokens.find(exchange, token)
