"""Cookies that pages of other sites and of sibling hosts carry along: the CSRF check stands by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from routeguard import Routeguard, Settings, public, unsafe_without_csrf
from routeguard.core.errors import ConfigError
from routeguard.core.request import SAFE_METHODS, RequestView
from routeguard.settings.cookies import CookieSettings
from tests.passwords.world import GOOD, World

COVERS = ("identity/sessions/forgery",)

ISSUER: Final = "https://id.example.com"
FRAMED: Final = CookieSettings(same_site="none")
SHARED: Final = CookieSettings(domain="example.com")

FOREIGN: Final = {
    "cross-site": {"origin": "https://attacker.example", "sec-fetch-site": "cross-site"},
    "an older browser": {"origin": "https://attacker.example"},
    "a sandboxed frame": {"origin": "null", "sec-fetch-site": "cross-site"},
    "no Origin": {"sec-fetch-site": "cross-site"},
    "a sibling": {"origin": "https://blog.example.com", "sec-fetch-site": "same-site"},
    "a sibling without Origin": {"sec-fetch-site": "same-site"},
    "the parent": {"origin": "https://example.com", "sec-fetch-site": "same-site"},
    "nothing said": {},
}


@pytest.fixture(params=[FRAMED, SHARED], ids=["frames", "sub-domains"])
async def world(request: pytest.FixtureRequest, sqlite_url: str) -> AsyncIterator[World]:
    async with World.open(sqlite_url, issuer=ISSUER, environment="development", cookies=request.param) as opened:
        yield opened


def client(world: World) -> Any:
    found = world.client()
    found.base_url = ISSUER
    del found.headers["origin"]
    return found


@pytest.mark.anyio
async def test_a_foreign_page_reaches_no_identity_route(world: World) -> None:
    """CSRF-01, CSRF-03: with the session's cookie, which the browser adds, and without: login CSRF."""
    rows = [row for row in world.guard.matrix() if row.method not in {*SAFE_METHODS, "WS", "MOUNT"}]
    unsafe = [row for row in rows if "signed by a registered client" not in row.policy]
    assert {"/auth/sign-in", "/auth/sign-up", "/auth/sign-out", "/auth/token", "/auth/password/change"} <= {
        row.path for row in unsafe
    }
    async with client(world) as browser:
        ours = {"origin": ISSUER}
        await browser.post("/auth/sign-up", json={"email": "a@example.com", "password": GOOD}, headers=ours)
        body = {"email": "a@example.com", "password": GOOD}
        assert (await browser.post("/auth/sign-in", json=body, headers=ours)).status_code == 200
        await browser.post("/auth/token", json={"cookies": True}, headers=ours)
        for row in unsafe:
            path = row.path.replace("{id:str}", "ses_1").replace("{id:api_key}", "key_1")
            for name, headers in FOREIGN.items():
                answer = await browser.request(row.method, path, json={}, headers=headers)
                assert answer.status_code == 403, (row, name, answer.text)
                assert answer.json()["type"].endswith("forgery-suspected"), (row, name)
        assert (await browser.get("/auth/session")).status_code == 200
    async with client(world) as guest:
        for name, headers in FOREIGN.items():
            answer = await guest.post("/auth/sign-in", json=body, headers=headers)
            assert answer.status_code == (403 if headers else 200), name


@dataclass(frozen=True)
class Ann:
    id: str = "ann"


async def by_cookie(request: RequestView) -> Ann | None:
    return Ann() if request.cookie("application") else None


def guarded(
    cookies: CookieSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Routeguard[Any], FastAPI]:
    monkeypatch.chdir(tmp_path)
    settings = Settings(issuer=ISSUER, environment="development", cookies=cookies)
    return Routeguard(settings, identify=by_cookie), FastAPI()


@pytest.mark.parametrize("cookies", [FRAMED, SHARED], ids=["frames", "sub-domains"])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_page_changes_nothing_and_opens_no_socket(
    name: str, cookies: CookieSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSRF-01, WS-01: browsers send the cookie with both, and no CORS stands before a handshake."""
    guard, app = guarded(cookies, tmp_path, monkeypatch)

    @app.post("/change")
    @guard(guard.session())
    async def change() -> str:
        return "changed"

    @app.websocket("/ws")
    @guard(guard.session())
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    guard.install(app)
    sent = {"cookie": "application=1"}
    with TestClient(app, base_url=ISSUER) as browser:
        assert browser.post("/change", headers=sent | FOREIGN[name]).status_code == 403
        with pytest.raises(WebSocketDisconnect), browser.websocket_connect("/ws", headers=sent | FOREIGN[name]):
            pass
        # The twin: our own page.
        assert browser.post("/change", headers=sent | {"origin": ISSUER}).json() == "changed"
        with browser.websocket_connect("/ws", headers=sent | {"origin": ISSUER}) as opened:
            assert opened.receive()["type"] == "websocket.close"


def exempt(guard: Routeguard[Any], app: FastAPI) -> None:
    """Add routes that say no to the check: the first three with a cookie as their credential."""

    @app.post("/session")
    @guard(guard.session(), unsafe_without_csrf())
    async def by_session() -> str:
        return "changed"

    @app.delete("/guest")
    @guard(guard.optional_session(), unsafe_without_csrf())
    async def by_anybody() -> str:
        return "changed"

    @app.websocket("/ws")
    @guard(guard.session(), unsafe_without_csrf())
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    @app.get("/read")
    @guard(guard.session(), unsafe_without_csrf())
    async def read() -> str:
        return "read"

    @app.post("/hook")
    @guard(public, unsafe_without_csrf())
    async def hook() -> str:
        return "taken"


def test_an_exemption_of_a_route_with_a_cookie_is_a_finding_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSRF-01, CSRF-23, WS-01: nothing else stands between another site's page and this route."""
    guard, app = guarded(FRAMED, tmp_path, monkeypatch)
    exempt(guard, app)
    guard.install(app)
    with pytest.raises(ConfigError) as caught, TestClient(app, base_url=ISSUER):
        pass
    lines = Path(__file__).read_text("utf-8").splitlines()
    found = caught.value.findings
    for (method, path), finding in zip([("POST", "/session"), ("DELETE", "/guest"), ("WS", "/ws")], found, strict=True):
        assert finding.startswith(f"{method} {path} (tests.test_cookies_across_sites.exempt.")
        assert "goes without the CSRF check" in finding
        file, line = finding.partition(" at ")[2].partition(": ")[0].rsplit(":", 1)
        assert file == __file__
        assert path in lines[int(line) - 1]


@pytest.mark.parametrize("cookies", [CookieSettings(), SHARED, CookieSettings(same_site="strict")])
def test_an_exemption_is_the_application_s_own_where_browsers_keep_the_cookie_back(
    cookies: CookieSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, app = guarded(cookies, tmp_path, monkeypatch)
    exempt(guard, app)
    guard.install(app)
    with TestClient(app, base_url=ISSUER) as browser:
        assert browser.post("/session", headers={"cookie": "application=1"}).json() == "changed"


@pytest.mark.parametrize("cookies", [CookieSettings(), FRAMED, SHARED], ids=["lax", "frames", "sub-domains"])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_public_route_knows_nobody_in_an_unsafe_request_of_a_foreign_page(
    name: str, cookies: CookieSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSRF-01: it has no check, and its browser added the cookie; our own page and a safe method are the twins.

    SameSite keeps no cookie from the pages of sibling hosts.
    """
    guard, app = guarded(cookies, tmp_path, monkeypatch)

    @app.api_route("/who", methods=["GET", "POST"])
    @guard(public)
    async def who(request: Request) -> str:
        found = await guard.find_session(request)
        return "nobody" if found is None else found.user.id

    guard.install(app)
    sent = {"cookie": "application=1"}
    with TestClient(app, base_url=ISSUER) as browser:
        assert browser.post("/who", headers=sent | FOREIGN[name]).json() == "nobody"
        assert browser.get("/who", headers=sent | FOREIGN[name]).json() == "ann"
        assert browser.post("/who", headers=sent | {"origin": ISSUER}).json() == "ann"
        assert browser.post("/who", headers={"origin": ISSUER}).json() == "nobody"
