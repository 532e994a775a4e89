"""The session cookie: set and cleared in one place, so that the two always agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routeguard.core.cookies import CookieScheme

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange


class SessionCookie:
    """`__Host-routeguard`, or what the settings make of it: decided once, at start-up."""

    __slots__ = ("_cookie", "name")

    def __init__(self, scheme: CookieScheme | None = None) -> None:
        self._cookie = (scheme or CookieScheme()).cookie()
        self.name = self._cookie.name
        """The one name that is read and written."""

    def set(self, exchange: Exchange, value: str, *, max_age: int | None) -> None:
        """Put the cookie on the response, in place of one already put there.

        `max_age` is in seconds; None makes a cookie that ends with the browser (RFC 6265 section 5.3).
        """
        self._put(exchange, self._cookie.setting(value, max_age=max_age))

    def clear(self, exchange: Exchange) -> None:
        """Take the cookie from the browser: same name, path and attributes, or it would stay (attack CK-12)."""
        self._put(exchange, self._cookie.clearing())

    def _put(self, exchange: Exchange, cookie: bytes) -> None:
        # One response never says two things about the session (RFC 6265bis section 4.1.1).
        mine = (cookie, *self._cookie.clearing_former(exchange.request.headers.get(b"cookie", b"")))
        names = tuple(one[: one.index(b"=") + 1] for one in mine)
        exchange.effects[:] = [
            pair for pair in exchange.effects if pair[0] != b"set-cookie" or not pair[1].startswith(names)
        ]
        for one in mine:
            exchange.add_header(b"set-cookie", one)
