"""CK: cookies as strangers write them, and as we do."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields, replace
from http.cookiejar import CookieJar
from typing import Any
from urllib.request import Request as UrlRequest

import pytest

from routeguard import ConfigError
from routeguard.core.cookies import MAXIMUM_SIZE, CookieAttributes, find_cookie, format_cookie, parse_cookies
from routeguard.core.secret import Secret
from routeguard.identity.sessions.cookies import SessionCookie
from routeguard.settings import Settings
from routeguard.settings.cookies import CookieSettings, cookie_warnings
from tests.attacks.world import COOKIE, SECRET, Browser, World
from tests.sessions.fakes import make_exchange
from tests.steady import work_of
from tests.test_settings import production

pytestmark = pytest.mark.anyio

# -- CK-15: in the manner of the http-state corpus: what a Cookie field means to a server -----------------------

EMPTY: list[tuple[str, str]] = []
CASES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "one": ("foo=bar", [("foo", "bar")]),
    "two": ("foo=bar; bar=baz", [("foo", "bar"), ("bar", "baz")]),
    "no blank": ("foo=bar;bar=baz", [("foo", "bar"), ("bar", "baz")]),
    "many blanks": ("foo=bar;   bar=baz", [("foo", "bar"), ("bar", "baz")]),
    "tab": ("foo=bar;\tbar=baz", [("foo", "bar"), ("bar", "baz")]),
    "blanks before": ("   foo=bar", [("foo", "bar")]),
    "blanks after": ("foo=bar   ", [("foo", "bar")]),
    "blank round equals": ("foo = bar", [("foo", "bar")]),
    "blank in value": ("foo=bar baz", [("foo", "bar baz")]),
    "blank in name": ("foo bar=baz", [("foo bar", "baz")]),
    "empty": ("", EMPTY),
    "blanks only": ("   ", EMPTY),
    "semicolons only": (";;;", EMPTY),
    "no equals": ("foo", EMPTY),
    "no equals, then one": ("foo; bar=baz", [("bar", "baz")]),
    "equals only": ("=", [("", "")]),
    "no name": ("=bar", [("", "bar")]),
    "no value": ("foo=", [("foo", "")]),
    "no value, then one": ("foo=; bar=baz", [("foo", ""), ("bar", "baz")]),
    "two equals": ("foo=bar=baz", [("foo", "bar=baz")]),
    "equals first": ("==foo", [("", "=foo")]),
    "trailing semicolon": ("foo=bar;", [("foo", "bar")]),
    "leading semicolon": (";foo=bar", [("foo", "bar")]),
    "twice": ("foo=1; foo=2", [("foo", "1"), ("foo", "2")]),
    "twice, others between": ("foo=1; a=b; foo=2", [("foo", "1"), ("a", "b"), ("foo", "2")]),
    "other case": ("foo=1; FOO=2; Foo=3", [("foo", "1"), ("FOO", "2"), ("Foo", "3")]),
    "quoted": ('foo="bar"', [("foo", '"bar"')]),
    "quoted semicolon": ('foo="b;ar"', [("foo", '"b')]),
    "quoted, open": ('foo="bar', [("foo", '"bar')]),
    "quoted empty": ('foo=""', [("foo", '""')]),
    "quote in name": ('"foo"=bar', [('"foo"', "bar")]),
    "backslash": ("foo=b\\ar", [("foo", "b\\ar")]),
    "octal": ('foo="\\142ar"', [("foo", '"\\142ar"')]),
    "escaped quote": ('foo="b\\"ar"; bar=baz', [("foo", '"b\\"ar"'), ("bar", "baz")]),
    "percent": ("foo=%62ar", [("foo", "%62ar")]),
    "percent name": ("%66oo=bar", [("%66oo", "bar")]),
    "plus": ("foo=b+ar", [("foo", "b+ar")]),
    "comma": ("foo=bar, bar=baz", [("foo", "bar, bar=baz")]),
    "comma in name": ("a,foo=bar", [("a,foo", "bar")]),
    "dollar version": ("$Version=1; foo=bar", [("$Version", "1"), ("foo", "bar")]),
    "dollar path": ("foo=bar; $Path=/; $Domain=x", [("foo", "bar"), ("$Path", "/"), ("$Domain", "x")]),
    "attributes are cookies": ("foo=bar; Path=/; Max-Age=1", [("foo", "bar"), ("Path", "/"), ("Max-Age", "1")]),
    "Secure is none": ("foo=bar; Secure; HttpOnly", [("foo", "bar")]),
    "parentheses": ("foo=b(a)r", [("foo", "b(a)r")]),
    "brackets": ("foo[0]=1; foo[1]=2", [("foo[0]", "1"), ("foo[1]", "2")]),
    "braces": ("foo={%22a%22:1}", [("foo", "{%22a%22:1}")]),
    "JSON": ('foo={"a":1}', [("foo", '{"a":1}')]),
    "at": ("f@o=b@r", [("f@o", "b@r")]),
    "slash": ("f/o=b/r", [("f/o", "b/r")]),
    "base64": ("foo=YWJj==; bar=1", [("foo", "YWJj=="), ("bar", "1")]),
    "vertical tab": ("foo=bar;\x0bbar=baz", [("foo", "bar"), ("\x0bbar", "baz")]),
    "form feed": ("foo=bar\x0c", [("foo", "bar\x0c")]),
    "NUL in value": ("foo=b\x00r", [("foo", "b\x00r")]),
    "NUL in name": ("f\x00o=bar", [("f\x00o", "bar")]),
    "control": ("foo=b\x01r; bar=\x7f", [("foo", "b\x01r"), ("bar", "\x7f")]),
    "CR": ("foo=b\rar", [("foo", "b\rar")]),
    "LF": ("foo=b\nar; bar=baz", [("foo", "b\nar"), ("bar", "baz")]),
    "latin-1": ("foo=b\xe4r", [("foo", "b\xe4r")]),
    "UTF-8": ("foo=\xc3\xa4; bar=1", [("foo", "\xc3\xa4"), ("bar", "1")]),
    "NBSP": ("foo=bar;\xa0bar=baz", [("foo", "bar"), ("\xa0bar", "baz")]),
    "NEL": ("\x85foo=bar", [("\x85foo", "bar")]),
    "prefix": ("__Host-foo=bar", [("__Host-foo", "bar")]),
    "prefix nameless": ("=__Host-foo=bar", [("", "__Host-foo=bar")]),
    "longer name": ("xfoo=1; foo=2; foox=3", [("xfoo", "1"), ("foo", "2"), ("foox", "3")]),
    "name in a value": ("bar=foo=1; foo=2", [("bar", "foo=1"), ("foo", "2")]),
}


def test_the_list_is_long_enough() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_what_a_cookie_field_means(name: str) -> None:
    """CK-15: never an exception, and the fast search agrees with the splitting."""
    text, expected = CASES[name]
    found = parse_cookies(text)
    assert found == expected
    values = [value for key, value in found if key == "foo"]
    value, doubled = find_cookie(text.encode("latin-1"), b"foo")
    if name == "blank round equals":
        assert (value, doubled) == (None, False)  # Stricter: no browser writes it so.
    else:
        assert value == (values[0].encode("latin-1") if values else None)
        assert doubled == (len(values) > 1)


@pytest.fixture(scope="module")
async def visitor(world: World) -> Browser:
    """One session for all cases."""
    return await world.browser("alice")


@pytest.mark.parametrize("name", CASES)
async def test_no_other_cookie_hides_or_makes_ours(world: World, visitor: Browser, name: str) -> None:
    """CK-07, CK-15: before ours and after ours; and with ours taken away nobody is signed in."""
    text, ours = CASES[name][0], f"{COOKIE}={visitor.cookies[COOKIE]}"
    for header, status in ((f"{text}; {ours}", 200), (f"{ours}; {text}", 200), (text, 401), ("", 401)):
        answer = await world.ask("GET", "/api/me", [("cookie", header)])
        assert answer.status == status, header


# -- size -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "a=b; " * 10_000,
        "a=b;" * 16_000,
        "a" * 65_536,
        ";" * 65_536,
        "=" * 65_536,
        " " * 65_536,
        f"{COOKIE} " * 6_000,
        f"x{COOKIE}=" * 5_000,
        f"{COOKIE}=; " * 5_000,
    ],
    ids=[
        "10000 small",
        "64 KB small",
        "one name",
        "semicolons",
        "equals",
        "blanks",
        "our name",
        "our name inside",
        "our name 5000 times",
    ],
)
async def test_a_huge_cookie_field_costs_little(world: World, header: str) -> None:
    """CK-08: the search takes less than 5 ms, twice the length about twice the time; and ours is still found."""
    raw = header.encode()
    name = COOKIE.encode()

    def cost(data: bytes) -> float:
        return work_of(lambda: find_cookie(data, name), tries=20)

    assert cost(raw) < 0.005
    assert cost(raw * 4) < max(cost(raw) * 16, 0.002)
    assert (await world.ask("GET", "/api/me", [("cookie", header)])).status in {401, 431}
    if COOKIE not in header:
        alice = await world.browser("alice")
        ours = f"{header}; {COOKIE}={alice.cookies[COOKIE]}"
        assert (await world.ask("GET", "/api/me", [("cookie", ours)])).status in {200, 431}


# -- what we write --------------------------------------------------------------------------------------------------

BAD = ["a\r\nb", "a\rb", "a\nb", "a\x00b", "a;b", "a; Domain=evil", "a b", "a,b", 'a"b', "a\\b", "\x7f", "é", "\u2028"]


@pytest.mark.parametrize("text", BAD, ids=repr)
def test_what_a_cookie_cannot_hold_is_a_value_error(text: str) -> None:
    """CK-10: in the name, the value, the path and the domain."""
    with pytest.raises(ValueError, match="not allowed"):
        format_cookie("a", text)
    with pytest.raises(ValueError, match="not allowed"):
        format_cookie(text, "a")
    if ";" in text or not text.isprintable() or not text.isascii():
        with pytest.raises(ValueError, match="not allowed"):
            format_cookie("a", "b", path=f"/{text}")
    with pytest.raises(ValueError, match="not allowed"):
        CookieAttributes(domain=f"{text}.example")
    # The twin.
    assert format_cookie("a", "b") == b"a=b; Path=/; Secure; HttpOnly; SameSite=Lax"


def test_a_cookie_no_browser_would_keep_is_never_sent() -> None:
    """CK-09."""
    assert len(format_cookie("a", "b" * (MAXIMUM_SIZE - 2))) > MAXIMUM_SIZE
    with pytest.raises(ValueError, match="4096"):
        format_cookie("a", "b" * (MAXIMUM_SIZE - 1))


async def test_every_cookie_of_every_route_is_closed(world: World) -> None:
    """CK-13, CK-14: HttpOnly, SameSite=Lax, whole path, no domain, whatever sets it."""
    seen = 0
    for row in world.routes():
        browser = await world.browser("bob") if "sign-out" in row.path else Browser(world)
        answer = await browser.ask(row.method, row.path)
        for name, value in answer.headers:
            if name == b"set-cookie":
                seen += 1
                parts = value.decode().split("; ")[1:]
                assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(parts), (row, value)
                assert not any(part.lower().startswith("domain") for part in parts)
    assert seen >= 3


# -- settings -------------------------------------------------------------------------------------------------------

WISHES = (
    "SESSIONS_SAME_SITE",
    "SESSIONS_SAMESITE",
    "SESSIONS_COOKIE_SAME_SITE",
    "SESSIONS_SECURE",
    "SESSIONS_COOKIE_SECURE",
    "COOKIE_SECURE",
    "COOKIE_SAMESITE",
    "SESSIONS_HTTP_ONLY",
    "COOKIE_DOMAIN",
    "SESSIONS_COOKIE_DOMAIN",
    "SECURE_COOKIES",
    "COOKIES_SECURE",
    "COOKIES_HTTP_ONLY",
    "COOKIES_PATH",
    "COOKIES_PREFIX",
)


@pytest.mark.parametrize("wish", WISHES)
def test_there_is_no_other_switch_for_weaker_cookies(tmp_path: Any, wish: str) -> None:
    """CK-14: a missing Secure or HttpOnly cannot be configured; who tries is told at start-up."""
    for value in ("None", "false", "", "example.com"):
        with pytest.raises(ConfigError, match="not a setting"):
            Settings.load(environ={f"ROUTEGUARD_{wish}": value}, directory=tmp_path)
    names = {field.name for field in fields(Settings)} | {field.name for field in fields(Settings().sessions)}
    # What a cookie is called weakens none: the prefix follows from the issuer.
    names -= {"cookie_name", "cookies"}
    assert {field.name for field in fields(CookieSettings)} == {
        "domain",
        "same_site",
        "partitioned",
        "unsafe_unpartitioned_in_production",
    }
    assert not any("same" in name or "domain" in name or "cookie" in name for name in names)
    assert Settings(issuer="https://id.example.com", cookie_name="shop").secure_cookies


@pytest.mark.parametrize("environment", ["production", "development"])
def test_no_setting_weakens_a_cookie_in_silence(environment: str) -> None:
    """CK-14: each cookie that more pages or hosts can use than the default one is refused, or named at each start."""
    closed = production().cookie_scheme.attributes
    values = [("", "example.com"), ("lax", "strict", "none"), (True, False), (True, False)]
    for domain, same_site, partitioned, stated in itertools.product(*values):
        own = CookieSettings(
            domain=domain, same_site=same_site, partitioned=partitioned, unsafe_unpartitioned_in_production=stated
        )
        settings = production(cookies=own, environment=environment)
        found, carried = [one for one in settings.findings() if "cookies." in one], settings.cookie_scheme.attributes
        assert carried.secure
        weaker = bool(carried.domain) or carried.same_site == "None"
        assert weaker == (bool(found) or bool(cookie_warnings(settings)))
        if carried.same_site == "None" and not carried.partitioned and environment == "production":
            assert bool(found) != stated
        if not weaker:
            assert replace(carried, same_site="Lax") == closed
        for words in (carried.domain, "same_site" * (carried.same_site == "None")):
            assert any(words in warning for warning in cookie_warnings(settings)) or not words


@pytest.mark.parametrize(
    "issuer", ["http://id.example.com", "http://127.0.0.1:8000", "http://localhost", "http://[::1]"]
)
def test_cookies_without_secure_never_reach_production(issuer: str) -> None:
    """CK-14: only a browser's own machine gets them, and production refuses to start there."""
    settings = replace(production(), issuer=issuer, environment="production")
    assert any("https" in finding for finding in settings.findings())
    assert Settings(issuer="http://id.example.com", secret=SECRET, environment="development").secure_cookies
    assert not production().findings()
    assert production().secure_cookies


def test_a_real_jar_keeps_and_forgets(tmp_path: Any) -> None:
    """CK-12, CK-13: set and cleared with the same attributes; over plain http a jar does not send it."""

    class Answer:
        def __init__(self, *cookies: bytes) -> None:
            self.cookies = [one.decode() for one in cookies]

        def info(self) -> Any:
            from email.message import Message

            message = Message()
            for cookie in self.cookies:
                message["Set-Cookie"] = cookie
            return message

    jar, ours, exchange = CookieJar(), SessionCookie(), make_exchange()
    ours.set(exchange, "value", max_age=60)
    jar.extract_cookies(Answer(exchange.effects[0][1]), UrlRequest("https://id.example.com/"))  # type: ignore[arg-type]
    assert [cookie.name for cookie in jar] == ["__Host-routeguard"]
    plain = UrlRequest("http://id.example.com/")
    jar.add_cookie_header(plain)
    assert not plain.has_header("Cookie")
    ours.clear(exchange)
    jar.extract_cookies(Answer(exchange.effects[0][1]), UrlRequest("https://id.example.com/x"))  # type: ignore[arg-type]
    assert list(jar) == []
    assert json.dumps(str(Secret("x" * 32))).count("x" * 32) == 0
