"""The session cookie as browsers get it."""

from __future__ import annotations

import pytest

from routeguard.core.cookies import CookieAttributes, CookieScheme
from routeguard.core.exchange import Exchange
from routeguard.identity.sessions.cookies import SessionCookie
from tests.sessions.fakes import make_exchange

PLAIN = CookieScheme(prefixed=False, attributes=CookieAttributes(secure=False))


def only_cookie(answer: Exchange) -> str:
    (found,) = [value for name, value in answer.effects if name == b"set-cookie"]
    return found.decode()


def attributes(cookie: str) -> set[str]:
    return {part for part in cookie.split("; ")[1:] if not part.startswith("Max-Age")}


def test_the_cookie_of_https() -> None:
    answer = make_exchange()
    SessionCookie().set(answer, "a.b", max_age=60)
    assert only_cookie(answer) == "__Host-routeguard=a.b; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax"


def test_the_cookie_of_http_on_loopback() -> None:
    answer = make_exchange()
    SessionCookie(PLAIN).set(answer, "a.b", max_age=60)
    assert only_cookie(answer) == "routeguard=a.b; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize("scheme", [CookieScheme(), PLAIN], ids=["https", "http on loopback"])
def test_clearing_names_the_same_cookie(scheme: CookieScheme) -> None:
    """CK-12."""
    cookie, put, cleared = SessionCookie(scheme), make_exchange(), make_exchange()
    cookie.set(put, "a.b", max_age=60)
    cookie.clear(cleared)
    assert attributes(only_cookie(cleared)) == attributes(only_cookie(put))
    assert only_cookie(cleared).startswith(f"{cookie.name}=; ")
    assert "Max-Age=0" in only_cookie(cleared)


def test_a_response_says_one_thing_about_the_session() -> None:
    answer = make_exchange()
    answer.add_header(b"set-cookie", b"__Host-routeguard-other=1")
    cookie = SessionCookie()
    cookie.set(answer, "a.b", max_age=60)
    cookie.set(answer, "c.d", max_age=60)
    cookie.clear(answer)
    values = [value for _, value in answer.effects]
    assert values[0] == b"__Host-routeguard-other=1"
    assert len(values) == 2
    assert values[1].startswith(b"__Host-routeguard=; ")


def test_a_cookie_too_long_is_never_sent() -> None:
    """CK-09."""
    answer = make_exchange()
    with pytest.raises(ValueError, match="4096"):
        SessionCookie().set(answer, "a" * 4096, max_age=60)
    assert answer.effects == []
