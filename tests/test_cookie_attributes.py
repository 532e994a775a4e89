"""The attributes of our cookies by setting: on each one that is set or cleared, and what may not be set."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar
from typing import Any, Final

import httpx2 as httpx
import pytest

from routeguard.core.errors import ConfigError
from routeguard.settings import Settings
from routeguard.settings.cookies import CookieSettings
from tests.passwords.world import GOOD, World
from tests.test_settings import production

COVERS = ("settings/cookies",)

ISSUER: Final = "https://id.example.com"
EMAIL: Final = "ada@example.com"
NEXT: Final = "brown owls count nine stars"
PARTS: Final = ("", "-access", "-refresh", "-csrf", "-next")

SCHEMES: Final[dict[str, tuple[CookieSettings, str, set[str]]]] = {
    "lax": (CookieSettings(), "__Host-routeguard", {"SameSite=Lax"}),
    "strict": (CookieSettings(same_site="strict"), "__Host-routeguard", {"SameSite=Strict"}),
    "none": (CookieSettings(same_site="none"), "__Host-routeguard-partitioned", {"SameSite=None", "Partitioned"}),
    "one jar": (CookieSettings(same_site="none", partitioned=False), "__Host-routeguard", {"SameSite=None"}),
    "domain": (CookieSettings(domain="example.com"), "__Secure-routeguard", {"Domain=example.com", "SameSite=Lax"}),
    "own domain": (
        CookieSettings(domain="id.example.com", same_site="strict"),
        "__Secure-routeguard",
        {"Domain=id.example.com", "SameSite=Strict"},
    ),
    "domain in frames": (
        CookieSettings(domain="example.com", same_site="none"),
        "__Secure-routeguard-partitioned",
        {"Domain=example.com", "SameSite=None", "Partitioned"},
    ),
}


@asynccontextmanager
async def opened(database_url: str, cookies: CookieSettings, **more: Any) -> AsyncIterator[World]:
    given: dict[str, Any] = {"issuer": ISSUER, "environment": "development"} | more
    async with World.open(database_url, cookies=cookies, **given) as world:
        yield world


class Visitor:
    """A browser over TLS with a real jar, which notes every Set-Cookie it gets."""

    def __init__(self, world: World, jar: CookieJar | None = None) -> None:
        self.lines: list[str] = []
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(world.app), base_url=ISSUER, headers={"origin": ISSUER}, cookies=jar
        )

    @property
    def names(self) -> set[str]:
        return {cookie.name for cookie in self.client.cookies.jar}

    async def get(self, path: str) -> httpx.Response:
        answer = await self.client.get(path)
        self.lines += answer.headers.get_list("set-cookie")
        return answer

    async def post(self, path: str, body: dict[str, Any], expected: int, **form: Any) -> httpx.Response:
        answer = await (self.client.post(path, data=form) if form else self.client.post(path, json=body))
        assert answer.status_code == expected, (path, answer.text)
        self.lines += answer.headers.get_list("set-cookie")
        return answer

    async def sign_in(self, password: str = GOOD) -> None:
        await self.post("/auth/sign-in", {"email": EMAIL, "password": password}, 200)
        await self.post("/auth/token", {"cookies": True}, 200)

    async def live(self) -> None:
        """Make every route send every cookie that it ever sends, and end with none."""
        fields = {"email": EMAIL, "password": GOOD, "name": "Ada", "next": "/account/name"}
        await self.get("/auth/csrf")
        self.client.headers["accept"] = "text/html"
        await self.post("/auth/sign-up", {}, 303, **fields)
        await self.post("/auth/sign-in", {}, 303, email=EMAIL, password=GOOD)
        del self.client.headers["accept"]
        await self.post("/auth/token", {"cookies": True}, 200)
        await self.post("/auth/token/refresh", {}, 200)
        await self.post("/auth/password/change", {"current_password": GOOD, "new_password": NEXT}, 204)
        assert (await self.get("/auth/session")).status_code == 200
        await self.post("/auth/sign-out", {}, 204)
        await self.sign_in(NEXT)
        await self.post("/auth/sign-out-everywhere", {}, 204)


@pytest.mark.anyio
@pytest.mark.parametrize("name", SCHEMES)
async def test_each_cookie_has_the_attributes_where_it_is_set_and_where_it_is_cleared(
    sqlite_url: str, name: str
) -> None:
    """CK-12, CK-14."""
    cookies, base, expected = SCHEMES[name]
    async with opened(sqlite_url, cookies) as world:
        visitor = Visitor(world)
        await visitor.live()
    seen: dict[str, set[bool]] = {}
    for line in visitor.lines:
        pair, *attributes = line.split("; ")
        key, _, value = pair.partition("=")
        seen.setdefault(key, set()).add(not value)
        lives = {attribute for attribute in attributes if attribute.startswith("Max-Age=")}
        assert value or lives == {"Max-Age=0"}, line
        terms = {"Path=/", "Secure", "HttpOnly", *expected}
        if not value and key.startswith("__Secure-") and not terms <= set(attributes):
            # One of the same name that a former setting, or a sibling, put on another domain of this host.
            (other,) = {"Domain=id.example.com", "Domain=example.com"} - terms
            terms = {other, *(term for term in terms if not term.startswith("Domain="))}
        assert set(attributes) - lives == terms, line
    # Each of them was set, and all but the guest's were taken away again.
    csrf = f"{base}-csrf"
    assert seen == {f"{base}{part}": {False, True} for part in PARTS if part != "-csrf"} | {csrf: {False}}
    assert visitor.names == {csrf}


SWITCHES: Final = [
    ("lax", "domain"),
    ("domain", "lax"),
    ("lax", "none"),
    ("none", "lax"),
    ("none", "one jar"),
    ("one jar", "none"),
    ("domain", "own domain"),
    ("own domain", "domain"),
    ("none", "domain in frames"),
    ("domain in frames", "lax"),
    ("lax", "strict"),
    ("lax", "one jar"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("before", "after"), SWITCHES)
@pytest.mark.parametrize("signs_in", [True, False])
async def test_a_switch_leaves_no_live_cookie_of_the_former_setting_behind(
    sqlite_url: str, before: str, after: str, signs_in: bool
) -> None:
    """CK-12: also where the former cookie and the new one have one name, so that two of them would be refused."""
    former, former_base, _ = SCHEMES[before]
    own, base, _ = SCHEMES[after]
    async with opened(sqlite_url, former) as world:
        visitor = Visitor(world)
        await visitor.post("/auth/sign-up", {"email": EMAIL, "password": GOOD, "name": "Ada"}, 201)
        await visitor.sign_in()
        jar = visitor.client.cookies.jar
    async with opened(sqlite_url, own) as world:
        visitor = Visitor(world, jar)
        # The former cookie counts where only words about SameSite differ, or the Domain in a cookie of one name.
        status = 200 if former_base == base else 401
        assert (await visitor.get("/auth/session")).status_code == status
        if signs_in:
            await visitor.sign_in()
            assert (await visitor.get("/auth/session")).status_code == 200
            await visitor.post("/auth/sign-in", {"email": EMAIL, "password": GOOD}, 200)
            assert (await visitor.get("/auth/session")).status_code == 200
        await visitor.post("/auth/sign-out", {}, 204)
        assert visitor.names == set()
        assert (await visitor.get("/auth/session")).status_code == 401


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["domain", "none", "lax"])
async def test_a_planted_session_beside_the_user_s_own_is_refused(sqlite_url: str, name: str) -> None:
    """CSRF-16, SES-34: a sibling's cookie of the same name fixes nobody in its session, whatever comes first."""
    cookies, base, _ = SCHEMES[name]
    async with opened(sqlite_url, cookies) as world:
        sessions = []
        for email in (EMAIL, "mallory@example.com"):
            visitor = Visitor(world)
            await visitor.post("/auth/sign-up", {"email": email, "password": GOOD, "name": "A"}, 201)
            await visitor.post("/auth/sign-in", {"email": email, "password": GOOD}, 200)
            (value,) = [one.value for one in visitor.client.cookies.jar if one.name == base]
            sessions.append(f"{base}={value}")
        for sent, status in ((sessions[:1], 200), (sessions, 401), (sessions[::-1], 401)):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ISSUER) as client:
                answer = await client.get("/auth/session", headers={"cookie": "; ".join(sent)})
                assert answer.status_code == status


@pytest.mark.anyio
async def test_one_planted_cookie_of_another_domain_is_cleared_at_the_next_sign_in(sqlite_url: str) -> None:
    """CSRF-16: or the user would be signed out at once, again and again, until it expires."""
    async with opened(sqlite_url, CookieSettings(domain="example.com")) as world:
        visitor = Visitor(world)
        await visitor.post("/auth/sign-up", {"email": EMAIL, "password": GOOD, "name": "Ada"}, 201)
        await visitor.post("/auth/sign-in", {"email": EMAIL, "password": GOOD}, 200)
        visitor.client.cookies.set("__Secure-routeguard", "planted", domain=".id.example.com", path="/")
        assert (await visitor.get("/auth/session")).status_code == 401
        await visitor.post("/auth/sign-in", {"email": EMAIL, "password": GOOD}, 200)
        assert (await visitor.get("/auth/session")).status_code == 200


def cookie_findings(**changes: Any) -> list[str]:
    return [finding for finding in production(**changes).findings() if "cookies." in finding]


DOMAINS: Final = [
    ("other.com", "neither the issuer's host"),
    ("d.example.com", "neither the issuer's host"),
    ("ample.com", "neither the issuer's host"),
    ("a.id.example.com", "neither the issuer's host"),
    ("com", "single label"),
    ("localhost", "single label"),
    (".com", "single label"),
    ("127.0.0.1", "IP address"),
    ("10.1", "neither the issuer's host"),
    ("[::1]", "IP address"),
    ("::1", "IP address"),
    (".example.com", "must be a name"),
    ("example.com.", "must be a name"),
    ("Example.com", "must be a name"),
    ("exämple.com", "must be a name"),
    ("https://example.com", "must be a name"),
    ("example.com; Secure", "must be a name"),
    ("co.uk", "public suffix"),
    ("github.io", "public suffix"),
]


@pytest.mark.parametrize(("domain", "why"), DOMAINS)
@pytest.mark.parametrize("environment", ["production", "development"])
def test_a_domain_that_no_browser_takes_or_strangers_share_is_a_finding(
    domain: str, why: str, environment: str
) -> None:
    found = cookie_findings(cookies=CookieSettings(domain=domain), environment=environment)
    assert any(why in finding and repr(domain) in finding for finding in found)


@pytest.mark.parametrize("domain", ["", "id.example.com", "example.com"])
def test_the_issuer_s_host_and_its_parents_are_domains(domain: str) -> None:
    assert cookie_findings(cookies=CookieSettings(domain=domain)) == []


def test_a_public_suffix_is_one_also_where_the_issuer_is_below_it() -> None:
    (found,) = cookie_findings(issuer="https://shop.github.io", cookies=CookieSettings(domain="github.io"))
    assert "public suffix" in found


@pytest.mark.parametrize(
    ("issuer", "environment", "cookies", "words"),
    [
        ("http://id.example.com", "production", {"domain": "example.com"}, ["cookies.domain needs an https issuer"]),
        ("http://app.localhost", "development", {"domain": "app.localhost"}, []),
        ("http://id.example.com", "development", {"same_site": "none"}, ["cookies.same_site 'none' needs an https"]),
        ("http://localhost:8000", "development", {"same_site": "none"}, []),
        (ISSUER, "production", {"same_site": "none"}, []),
        (ISSUER, "production", {"same_site": "none", "partitioned": False}, ["cookies.partitioned is false"]),
        (ISSUER, "development", {"same_site": "none", "partitioned": False}, []),
        (ISSUER, "production", {"partitioned": False}, []),
        (
            ISSUER,
            "production",
            {"same_site": "none", "partitioned": False, "unsafe_unpartitioned_in_production": True},
            [],
        ),
        (
            ISSUER,
            "production",
            {"same_site": "none", "partitioned": False, "domain": "co.uk"},
            ["public suffix", "neither the issuer's host", "cookies.partitioned is false"],
        ),
    ],
)
def test_findings(issuer: str, environment: str, cookies: dict[str, Any], words: list[str]) -> None:
    """CK-14: all at once."""
    found = cookie_findings(issuer=issuer, environment=environment, cookies=CookieSettings(**cookies))
    assert len(found) == len(words)
    assert all(word in finding for word, finding in zip(words, found, strict=True))


@pytest.mark.parametrize("word", ["None", "Lax", "", "off", "unset"])
def test_another_word_for_same_site_is_a_finding(word: str, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="must be lax, strict or none"):
        Settings.load(environ={"ROUTEGUARD_COOKIES_SAME_SITE": word}, directory=tmp_path)


def test_the_settings_come_from_the_environment(tmp_path: Any) -> None:
    given = {"DOMAIN": "id.localhost", "SAME_SITE": "none", "PARTITIONED": "false"}
    environ = {f"ROUTEGUARD_COOKIES_{name}": value for name, value in given.items()}
    found = Settings.load(environ=environ | {"ROUTEGUARD_ISSUER": "http://id.localhost"}, directory=tmp_path)
    assert found.cookies == CookieSettings(domain="id.localhost", same_site="none", partitioned=False)


def test_frames_on_this_machine_have_a_secure_cookie_without_a_prefix() -> None:
    """Browsers keep Secure cookies of http://localhost, and of no other http origin."""
    scheme = Settings(issuer="http://localhost:8000", cookies=CookieSettings(same_site="none")).cookie_scheme
    line = scheme.cookie().setting("v", max_age=None)
    assert line == b"routeguard-partitioned=v; Path=/; Secure; HttpOnly; SameSite=None; Partitioned"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lax", []),
        ("strict", []),
        ("domain", ["every host at or below it"]),
        ("none", ["pages of every site"]),
        ("one jar", ["pages of every site", "one session is used"]),
        ("domain in frames", ["every host at or below it", "pages of every site"]),
    ],
)
async def test_each_start_names_what_the_cookies_cost(
    sqlite_url: str, caplog: pytest.LogCaptureFixture, name: str, words: list[str]
) -> None:
    """CK-14."""
    with caplog.at_level(logging.WARNING, "routeguard"):
        async with opened(sqlite_url, SCHEMES[name][0]) as world:
            await world.guard._start(True)
            await world.guard.close()
    said = [record.getMessage() for record in caplog.records if "cookies." in record.getMessage()]
    assert len(said) == 2 * len(words)
    assert all(any(word in line for line in said) for word in words)
