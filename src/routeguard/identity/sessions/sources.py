"""Where a session comes from: a credential in a header field, else our cookie, else a cookie that a feature adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from routeguard.core.credentials import credential_of, may_carry
from routeguard.core.errors import ConfigError
from routeguard.core.problem import MALFORMED_REQUEST

if TYPE_CHECKING:
    from routeguard.core.credentials import Credential
    from routeguard.core.exchange import Exchange
    from routeguard.identity.sessions.models import UserSession

U = TypeVar("U")


class HeaderSource(Protocol):
    """Finds the session behind credentials of one kind, which programs put into a header field."""

    async def resume(self, exchange: Exchange, credential: Credential) -> UserSession[Any] | None:
        """Return the live session of a credential, or None. Raises Unavailable when that cannot be told."""
        ...


class CookieSource(Protocol):
    """Finds the session behind a cookie, which browsers add by themselves."""

    def presents(self, exchange: Exchange) -> bool:
        """Return whether such a cookie was sent."""
        ...

    async def resume(self, exchange: Exchange) -> UserSession[Any] | None:
        """Return the live session, or None. Raises Unavailable when that cannot be told."""
        ...


class TokenSource(CookieSource, Protocol):
    """Finds the session behind an access token in a cookie."""

    def access(self, exchange: Exchange) -> bytes | None:
        """Return the access token, or None where there is none, or two."""
        ...


class Cookies(CookieSource, Protocol[U]):
    """Finds the session behind our own cookie."""

    @property
    def user_class(self) -> type[U]:
        """The class of the users in sessions."""
        ...

    async def resume(self, exchange: Exchange) -> UserSession[U] | None:
        """Return the live session, or None. Raises Unavailable when that cannot be told."""
        ...


class SessionSources(Generic[U]):
    """The `SessionResolver` of the identity service.

    A credential in a header field was put there on purpose, so it alone counts: an invalid access token is
    401, whatever cookies came along. Sources are registered before the first request.
    """

    def __init__(self, cookies: Cookies[U]) -> None:
        self._cookies = cookies
        self._by_kind: dict[str, HeaderSource] = {}
        self._tokens: TokenSource | None = None

    @property
    def user_class(self) -> type[U]:
        """The class of the users in sessions."""
        return self._cookies.user_class

    def add(self, kind: str, source: HeaderSource) -> None:
        """Take credentials of a kind, in header fields, from now on. Raises ConfigError where another source does."""
        if kind in self._by_kind:
            raise ConfigError(f"two sources of sessions take credentials of the kind {kind!r}")
        self._by_kind[kind] = source

    def takes(self, kind: str) -> bool:
        """Return whether credentials of a kind are taken."""
        return kind in self._by_kind

    def add_token_cookies(self, source: TokenSource) -> None:
        """Ask this source where our own cookie says nothing. Raises ConfigError where there is one."""
        if self._tokens is not None:
            raise ConfigError("two sources of sessions read the cookies of tokens")
        self._tokens = source

    async def resume(self, exchange: Exchange) -> UserSession[U] | None:
        """Return the live session of a request, or None. Raises Unavailable when that cannot be told."""
        if may_carry(exchange.request):
            sent = credential_of(exchange.request)
            if sent is not None and sent.kind in self._by_kind:
                return await self.resume_by(exchange, sent)
        found = await self._cookies.resume(exchange)
        if found is None and self._tokens is not None and self._tokens.presents(exchange):
            return await self._tokens.resume(exchange)
        return found

    async def resume_by(self, exchange: Exchange, credential: Credential) -> UserSession[Any] | None:
        """Return the live session of a credential that stood in a header field, or None.

        Raises ProblemError 400 for a token that came as a cookie too (RFC 6750 section 2, attack JWT-39).
        """
        source = self._by_kind.get(credential.kind)
        if source is None:
            return None
        if self._tokens is not None and credential.value and credential.value == self._tokens.access(exchange):
            raise MALFORMED_REQUEST(debug="an access token as Bearer and as a cookie").error()
        found = await source.resume(exchange, credential)
        if found is not None:
            exchange.record_credential(found, credential)
        return found

    def presents(self, exchange: Exchange) -> bool:
        """Return whether any of these credentials was sent."""
        sent = credential_of(exchange.request) if may_carry(exchange.request) else None
        return (sent is not None and sent.kind in self._by_kind) or self.presents_cookie(exchange)

    def presents_cookie(self, exchange: Exchange) -> bool:
        """Return whether a cookie that stands for a session was sent."""
        return self._cookies.presents(exchange) or (self._tokens is not None and self._tokens.presents(exchange))
