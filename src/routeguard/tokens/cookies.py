"""The cookies of tokens: an access token and the refresh token that renews it, for browsers that hold no token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from routeguard.core.cookies import cookie_name, find_cookie, format_cookie

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange

_ACCESS: Final = "access"
_REFRESH: Final = "refresh"


@dataclass(frozen=True, slots=True)
class TokenCookies:
    """`__Host-routeguard-access` and `__Host-routeguard-refresh`, without the prefix where browsers refuse it.

    Both are HttpOnly, for the path `/` as the prefix demands, and SameSite=Lax. Strict would keep the refresh token
    back when somebody follows a link from another site, and a guard that is to renew his tokens on that very request
    would find him signed out. What Strict would stop, the forgery check stops.
    """

    secure: bool = True
    base: str = "routeguard"

    def access(self, exchange: Exchange) -> bytes | None:
        """Return the access token a browser sent; None also for two of them (attack CSRF-16)."""
        return self._sent(exchange, _ACCESS)

    def refresh(self, exchange: Exchange) -> bytes | None:
        """Return the refresh token a browser sent; None also for two of them."""
        return self._sent(exchange, _REFRESH)

    def presented(self, exchange: Exchange) -> bool:
        """Return whether a cookie of either name was sent, whatever is in it."""
        header = exchange.request.headers.get(b"cookie", b"")
        return any(find_cookie(header, self._name(name).encode())[0] is not None for name in (_ACCESS, _REFRESH))

    def put_access(self, exchange: Exchange, token: str, *, max_age: int | None) -> None:
        """Put the access token on the response. `max_age` is in seconds; None ends it with the browser."""
        self._put(exchange, _ACCESS, token, max_age)

    def put_refresh(self, exchange: Exchange, token: str, *, max_age: int | None) -> None:
        """Put the refresh token on the response. `max_age` is in seconds; None ends it with the browser."""
        self._put(exchange, _REFRESH, token, max_age)

    def clear(self, exchange: Exchange) -> None:
        """Take both from the browser: same names, path and attributes, or they would stay (attack CK-12)."""
        self._put(exchange, _ACCESS, "", 0)
        self._put(exchange, _REFRESH, "", 0)

    def _name(self, name: str) -> str:
        return cookie_name(self.base, name, secure=self.secure)

    def _sent(self, exchange: Exchange, name: str) -> bytes | None:
        header = exchange.request.headers.get(b"cookie")
        if header is None:
            return None
        value, doubled = find_cookie(header, self._name(name).encode())
        return None if doubled else value

    def _put(self, exchange: Exchange, name: str, value: str, max_age: int | None) -> None:
        full = self._name(name)
        # Also where this branch of a `|` is refused: the presented token is spent either way, and a browser that is
        # not told its successor would be taken for a thief a few seconds later.
        cookie = format_cookie(full, value, max_age=max_age, secure=self.secure)
        exchange.replace_cookie(full.encode(), cookie)
