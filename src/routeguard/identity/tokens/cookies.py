"""The cookies of tokens: an access token and the refresh token that renews it, for browsers that hold no token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routeguard.core.cookies import CookieScheme

if TYPE_CHECKING:
    from routeguard.core.cookies import Cookie
    from routeguard.core.exchange import Exchange


class TokenCookies:
    """`__Host-routeguard-access` and `__Host-routeguard-refresh`, or what the settings make of them.

    Both are HttpOnly, for the path `/` as the prefix demands, and SameSite=Lax by default. Strict keeps the refresh
    token back when a link from another site is followed, and a guard that is to renew the tokens on that very request
    finds the user signed out. What Strict would stop, the forgery check stops.
    """

    __slots__ = ("_access", "_refresh")

    def __init__(self, scheme: CookieScheme | None = None) -> None:
        scheme = scheme or CookieScheme()
        self._access, self._refresh = scheme.cookie("access"), scheme.cookie("refresh")

    def access(self, exchange: Exchange) -> bytes | None:
        """Return the access token a browser sent; None also for two of them (attack CSRF-16)."""
        return _sent(exchange, self._access)

    def refresh(self, exchange: Exchange) -> bytes | None:
        """Return the refresh token a browser sent; None also for two of them."""
        return _sent(exchange, self._refresh)

    def presented(self, exchange: Exchange) -> bool:
        """Return whether a cookie of either name was sent, whatever is in it."""
        header = exchange.request.headers.get(b"cookie", b"")
        return any(cookie.find(header)[0] is not None for cookie in (self._access, self._refresh))

    def put_access(self, exchange: Exchange, token: str, *, max_age: int | None) -> None:
        """Put the access token on the response. `max_age` is in seconds; None ends it with the browser."""
        _put(exchange, self._access, self._access.setting(token, max_age=max_age))

    def put_refresh(self, exchange: Exchange, token: str, *, max_age: int | None) -> None:
        """Put the refresh token on the response. `max_age` is in seconds; None ends it with the browser."""
        _put(exchange, self._refresh, self._refresh.setting(token, max_age=max_age))

    def clear(self, exchange: Exchange) -> None:
        """Take both from the browser: same names, path and attributes, or they would stay (attack CK-12)."""
        _put(exchange, self._access, self._access.clearing())
        _put(exchange, self._refresh, self._refresh.clearing())

    def clear_sent(self, exchange: Exchange) -> None:
        """Take both from a browser that sent one, also one from before the settings changed."""
        header = exchange.request.headers.get(b"cookie", b"")
        if self.presented(exchange) or any(one.clearing_former(header) for one in (self._access, self._refresh)):
            self.clear(exchange)


def _sent(exchange: Exchange, cookie: Cookie) -> bytes | None:
    header = exchange.request.headers.get(b"cookie")
    if header is None:
        return None
    value, doubled = cookie.find(header)
    return None if doubled else value


def _put(exchange: Exchange, cookie: Cookie, line: bytes) -> None:
    # Also where this branch of a `|` is refused: the presented token is spent either way, and a browser that is
    # not told its successor would be taken for a thief a few seconds later.
    exchange.replace_cookies(line, *cookie.clearing_former(exchange.request.headers.get(b"cookie", b"")))
