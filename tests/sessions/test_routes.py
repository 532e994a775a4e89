"""The session's endpoints, as features wire them, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from routeguard.app import Routeguard
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.policy import public
from routeguard.core.secret import Secret
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.foundation.web.routes import post
from routeguard.identity.sessions.feature import feature as sessions
from routeguard.identity.sessions.models import UserSession
from routeguard.identity.sessions.sign_in import SignIn
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.feature import feature as users
from routeguard.identity.users.models import User
from routeguard.identity.users.service import Users
from routeguard.settings import Settings
from tests.sessions.fakes import enter

COVERS = ("identity/sessions/feature", "identity/sessions/models")

pytestmark = pytest.mark.anyio

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


class Site:
    """An application with sessions, and a door that signs in whoever it is told to."""

    def __init__(self, guard: Routeguard[User], issuer: str) -> None:
        self.guard = guard
        self.issuer = issuer
        self.app = Starlette(routes=[post("/enter/{id}", self.enter, public)])
        guard.install(self.app)

    async def enter(self, request: Request) -> Response:
        found = await enter(self.guard.services.get(SignIn), request.path_params["id"], request.scope[SCOPE_KEY])
        return JSONResponse({"signed_in": isinstance(found, UserSession)})

    async def user(self, email: str) -> str:
        async with self.guard.services.get(Database).transaction() as tx:
            user: Any = await self.guard.services.get(Users).create(tx, read_email(email), name="Ann")
        return str(user.id)

    def browser(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, client=("192.0.2.7", 4711))
        return httpx.AsyncClient(transport=transport, base_url=self.issuer, headers=SAME_ORIGIN)


@asynccontextmanager
async def open_site(url: str, issuer: str) -> AsyncIterator[Site]:
    settings = Settings(
        issuer=issuer, database_url=url, secret=Secret(b"0123456789abcdefghijklmnopqrstuv"), environment="development"
    )
    guard = Routeguard(settings, user=User, features=[users, sessions])
    site = Site(guard, issuer)
    await guard.start()
    await migrate(guard.services.get(Database))
    try:
        yield site
    finally:
        await guard.close()


@pytest.fixture
async def site(sqlite_url: str) -> AsyncIterator[Site]:
    async with open_site(sqlite_url, "https://id.example.test") as site:
        yield site


async def test_the_session_of_somebody_and_of_nobody(site: Site) -> None:
    async with site.browser() as browser:
        refused = await browser.get("/auth/session")
        assert refused.status_code == 401
        assert refused.headers["content-type"].startswith("application/problem+json")
        await browser.post(f"/enter/{await site.user('ann@example.test')}")
        answer = await browser.get("/auth/session")
        assert answer.status_code == 200
        body = answer.json()
        assert body.keys() == {"user", "organization", "role", "expires_at"}
        assert (
            body["user"].items()
            >= {
                "email": "ann@example.test",
                "name": "Ann",
                "email_verified": False,
                "image": None,
                "role": "user",
            }.items()
        )
        assert body["organization"] is None
        assert body["role"] is None
        assert "private" in answer.headers["cache-control"]
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("issuer", "start", "attributes"),
    [
        ("https://id.example.test", "__Host-routeguard=", "Secure; HttpOnly; SameSite=Lax"),
        ("http://127.0.0.1:8000", "routeguard=", "HttpOnly; SameSite=Lax"),
    ],
)
async def test_the_cookie_s_name_follows_the_issuer(sqlite_url: str, issuer: str, start: str, attributes: str) -> None:
    """SES-34, CK-13: decided at start-up, not by what a request looks like."""
    async with open_site(sqlite_url, issuer) as site, site.browser() as browser:
        entered = await browser.post(f"/enter/{await site.user('ann@example.test')}")
        cookie = entered.headers["set-cookie"]
        assert cookie.startswith(start)
        assert cookie.endswith(attributes)
        value = cookie.partition("=")[2].partition(";")[0]
        other = {"__Host-routeguard=": "routeguard", "routeguard=": "__Host-routeguard"}[start]
        async with site.browser() as thief:
            answer = await thief.get("/auth/session", headers={"cookie": f"{other}={value}"})
            assert answer.status_code == 401


async def test_signing_out(site: Site) -> None:
    """SES-17, CK-12: a real cookie jar forgets, the server knows, the browser is told to clear what it kept."""
    async with site.browser() as browser, site.browser() as thief:
        await browser.post(f"/enter/{await site.user('ann@example.test')}")
        stolen = {"cookie": f"__Host-routeguard={browser.cookies['__Host-routeguard']}"}
        assert (await thief.get("/auth/session", headers=stolen)).status_code == 200
        answer = await browser.post("/auth/sign-out")
        assert answer.status_code == 204
        assert answer.headers["clear-site-data"] == '"cookies", "storage"'
        assert "__Host-routeguard" not in browser.cookies
        assert (await thief.get("/auth/session", headers=stolen)).status_code == 401
        # Already signed out: with the dead cookie, and without any.
        assert (await thief.post("/auth/sign-out", headers=stolen)).status_code == 204
        assert (await browser.post("/auth/sign-out")).status_code == 204


async def test_signing_out_everywhere(site: Site) -> None:
    """SES-18."""
    user = await site.user("ann@example.test")
    async with site.browser() as first, site.browser() as second:
        for browser in (first, second):
            await browser.post(f"/enter/{user}")
        assert (await first.post("/auth/sign-out-everywhere")).status_code == 204
        assert (await second.get("/auth/session")).status_code == 401
        assert (await first.post("/auth/sign-out-everywhere")).status_code == 401


async def test_own_sessions_are_listed_and_ended_one_by_one(site: Site) -> None:
    """SES-24."""
    ann, eve = await site.user("ann@example.test"), await site.user("eve@example.test")
    async with site.browser() as first, site.browser() as second, site.browser() as other:
        await first.post(f"/enter/{ann}", headers={"user-agent": "Lynx " + "x" * 500})
        await second.post(f"/enter/{ann}")
        await other.post(f"/enter/{eve}")
        mine = (await first.get("/auth/sessions")).json()["sessions"]
        assert len(mine) == 2
        (current,) = [one for one in mine if one["current"]]
        (spare,) = [one for one in mine if not one["current"]]
        assert current["user_agent"].startswith("Lynx ")
        assert len(current["user_agent"]) == 200
        assert current["address"] == "192.0.2.7"
        assert current.keys() == {"id", "created_at", "last_seen_at", "expires_at", "user_agent", "address", "current"}
        for unknown in (current["id"], "ses_none", "a" * 5000, "..%2F..", "\u00fc"):
            assert (await other.delete(f"/auth/sessions/{unknown}")).status_code == 404
        assert (await other.delete("/auth/sessions/%00")).status_code == 400
        assert (await first.get("/auth/session")).status_code == 200
        assert (await first.delete(f"/auth/sessions/{spare['id']}")).status_code == 204
        assert (await first.delete(f"/auth/sessions/{spare['id']}")).status_code == 404
        assert (await second.get("/auth/session")).status_code == 401
        assert (await first.delete(f"/auth/sessions/{current['id']}")).status_code == 204
        assert "__Host-routeguard" not in first.cookies


async def test_cross_site_requests_end_nothing(site: Site) -> None:
    async with site.browser() as browser:
        await browser.post(f"/enter/{await site.user('ann@example.test')}")
        for path in ("/auth/sign-out", "/auth/sign-out-everywhere"):
            answer = await browser.post(path, headers={"sec-fetch-site": "cross-site", "origin": "https://evil.test"})
            assert answer.status_code == 403
        assert (await browser.get("/auth/session")).status_code == 200


async def test_hostile_cookies_are_401_and_never_500(site: Site) -> None:
    """SES-30, CK-07."""
    async with site.browser() as browser:
        await browser.post(f"/enter/{await site.user('ann@example.test')}")
        value = browser.cookies["__Host-routeguard"]
        good = f"__Host-routeguard={value}"
        browser.cookies.clear()
        for cookie in (
            b"__Host-routeguard=",
            b"__Host-routeguard",
            b"__Host-routeguard=.",
            b"__Host-routeguard=\xff.\xff",
            b"__Host-routeguard=" + b"A" * 60_000,
            f"{good}; {good}".encode(),
            f"{good}A".encode(),
            good[:-1].encode(),
        ):
            answer = await browser.get("/auth/session", headers={b"cookie": cookie})
            assert answer.status_code == 401
        answer = await browser.get("/auth/session", headers={b"cookie": b"\xff=\x01; " + good.encode()})
        assert answer.status_code == 200
