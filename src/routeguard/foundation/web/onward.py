"""Where a browser goes after a form post, and the place that a sign-in was asked for while other pages come between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from routeguard.core.cookies import MAXIMUM_SIZE, CookieScheme
from routeguard.core.redirect import safe_redirect

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

_NAME: Final = "next"
_LIFE: Final = 3600
"""Seconds: the time a user may need to open a mail and return."""


class NextCookie:
    """Keeps a place for after the next sign-in in the browser that asked for it, for an hour.

    It is in no mail: an attacker who signs up with, or asks a reset for, a foreign address would choose where its
    owner is sent. What comes back is checked again, as any `next` is.
    """

    __slots__ = ("_cookie",)

    def __init__(self, scheme: CookieScheme | None = None) -> None:
        self._cookie = (scheme or CookieScheme()).cookie(_NAME)

    @classmethod
    def of(cls, services: Services) -> NextCookie:
        """Return the cookie as the settings have it."""
        return cls(services.find(CookieScheme))

    def find(self, exchange: Exchange) -> str:
        """Return the place, '' for none."""
        value = exchange.request.cookie(self._cookie.name)
        return "" if value is None else safe_redirect(unquote(value), "", root=exchange.root)

    def keep(self, exchange: Exchange, place: str) -> None:
        """Put the place on the response. One that no cookie can hold is left out."""
        value = quote(place, safe="/")
        if len(self._cookie.name) + len(value) < MAXIMUM_SIZE:
            self._put(exchange, self._cookie.setting(value, max_age=_LIFE))

    def clear(self, exchange: Exchange) -> None:
        """Take it from a browser that sent it."""
        if self._cookie.find(exchange.request.headers.get(b"cookie", b""))[0] is not None:
            self._put(exchange, self._cookie.clearing())

    def _put(self, exchange: Exchange, line: bytes) -> None:
        for one in (line, *self._cookie.clearing_former(exchange.request.headers.get(b"cookie", b""))):
            exchange.add_header(b"set-cookie", one)


@dataclass(frozen=True, slots=True)
class Then:
    """Where a browser goes after a form post that succeeded: to the form's `next` field, else to `path`.

    `path` is a path of ours without the prefix of the application. With `carry` it always goes to `path`, and `next`
    goes along, as a parameter and in `cookie`, until a sign-in leads there. Without, `cookie` ends.
    """

    path: str
    carry: bool = False
    cookie: NextCookie | None = None

    def location(self, exchange: Exchange, wanted: str | None) -> str:
        """Return where to go. `wanted` is the form's `next` as it was sent."""
        place = safe_redirect(wanted, "", root=exchange.root)
        if not self.carry:
            if self.cookie is not None:
                self.cookie.clear(exchange)
            return place or exchange.root + self.path
        if place and self.cookie is not None:
            self.cookie.keep(exchange, place)
        return exchange.root + with_next(self.path, place)


def with_next(path: str, place: str) -> str:
    """Return `path` with `next` as one more parameter; unchanged without a place."""
    return f"{path}{'&' if '?' in path else '?'}next={quote(place, safe='/')}" if place else path
