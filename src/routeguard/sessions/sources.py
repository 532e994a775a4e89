"""Where a session comes from: an access token in `Authorization`, else our cookie, else what a feature adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from routeguard.core.credentials import may_carry

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.sessions.models import UserSession

U = TypeVar("U")


class Source(Protocol):
    """Finds the session behind one kind of credential."""

    def presents(self, exchange: Exchange) -> bool:
        """Return whether that kind of credential was sent."""
        ...

    async def resume(self, exchange: Exchange) -> UserSession[Any] | None:
        """Return the live session, or None. Raises Unavailable when that cannot be told."""
        ...


class Cookies(Source, Protocol[U]):
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

    A credential in a header field was put there on purpose, so it alone counts: an access token that is no good is
    401, whatever cookies came along. `explicit` and `ambient` are filled by features before the first request.
    """

    def __init__(self, cookies: Cookies[U]) -> None:
        self._cookies = cookies
        self.explicit: Source | None = None
        """Access tokens as Bearer."""
        self.ambient: Source | None = None
        """Cookies of another kind than the session's own, asked where that one says nothing."""

    @property
    def user_class(self) -> type[U]:
        """The class of the users in sessions."""
        return self._cookies.user_class

    async def resume(self, exchange: Exchange) -> UserSession[U] | None:
        """Return the live session of a request, or None. Raises Unavailable when that cannot be told."""
        if self.explicit is not None and may_carry(exchange.request) and self.explicit.presents(exchange):
            return await self.explicit.resume(exchange)
        found = await self._cookies.resume(exchange)
        if found is None and self.ambient is not None and self.ambient.presents(exchange):
            return await self.ambient.resume(exchange)
        return found

    def presents(self, exchange: Exchange) -> bool:
        """Return whether any of these credentials was sent."""
        return (
            (self.explicit is not None and self.explicit.presents(exchange))
            or self._cookies.presents(exchange)
            or (self.ambient is not None and self.ambient.presents(exchange))
        )
