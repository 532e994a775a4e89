"""The session cookie: set and cleared in one place, so that the two always agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from routeguard.core.cookies import cookie_name, format_cookie
from routeguard.sessions.models import PLAIN_COOKIE_NAME

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """`__Host-routeguard`, or `routeguard` where browsers refuse the prefix: decided once, at start-up.

    `base` is another name in place of `routeguard` (setting `cookie_name`).

    Secure follows from the name, never from the scheme a request seems to have (attack CK-13).
    """

    secure: bool = True
    base: str = PLAIN_COOKIE_NAME

    @property
    def name(self) -> str:
        """The one name that is read and written."""
        return cookie_name(self.base, secure=self.secure)

    def set(self, exchange: Exchange, value: str, *, max_age: int | None) -> None:
        """Put the cookie on the response, in place of one already put there.

        `max_age` is in seconds; None makes a cookie that ends with the browser (RFC 6265 section 5.3).
        """
        self._put(exchange, format_cookie(self.name, value, max_age=max_age, secure=self.secure))

    def clear(self, exchange: Exchange) -> None:
        """Take the cookie from the browser: same name, path and attributes, or it would stay (attack CK-12)."""
        self._put(exchange, format_cookie(self.name, "", max_age=0, secure=self.secure))

    def _put(self, exchange: Exchange, cookie: bytes) -> None:
        # One response never says two things about the session (RFC 6265bis section 4.1.1).
        mine = self.name.encode() + b"="
        exchange.effects[:] = [
            pair for pair in exchange.effects if pair[0] != b"set-cookie" or not pair[1].startswith(mine)
        ]
        exchange.add_header(b"set-cookie", cookie)
