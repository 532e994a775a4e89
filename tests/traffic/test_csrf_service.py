"""Forged requests against the whole service: clients with a token, browsers with forms, and foreign pages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2 as httpx
import pytest

from tests.passwords.world import GOOD, ORIGIN, World

pytestmark = pytest.mark.anyio

ADA = {"email": "ada@example.com", "password": GOOD}
PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate"}


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    async with World.open(sqlite_url) as world:
        await world.sign_up("ada@example.com")
        yield world


def plain(world: World, **headers: str) -> httpx.AsyncClient:
    """A client that says nothing of its origin, as programs and old browsers do."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN, headers=headers)


async def token_of(client: httpx.AsyncClient) -> dict[str, str]:
    answer = await client.get("/auth/csrf")
    assert answer.status_code == 200
    assert "no-store" in answer.headers["cache-control"]
    return {"x-csrf-token": answer.json()["csrf_token"]}


async def test_a_token_lives_from_sign_in_to_sign_out(world: World) -> None:
    """CSRF-14: the guest's token ends with signing in, the session's with signing out."""
    async with plain(world) as client:
        guest = await token_of(client)
        assert (await client.post("/auth/sign-in", json=ADA)).status_code == 403
        assert (await client.post("/auth/sign-in", json=ADA, headers=guest)).status_code == 200

        refused = await client.post("/auth/sign-out", headers=guest)
        assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (403, "forgery-suspected")
        assert (await client.get("/auth/session")).status_code == 200

        session = await token_of(client)
        assert (await client.post("/account/name", json={"name": "Ada L"})).status_code == 403
        assert (await client.post("/account/name", json={"name": "Ada L"}, headers=session)).status_code == 204
        assert (await client.get("/auth/session")).json()["user"]["name"] == "Ada L"
        assert (await client.post("/auth/sign-out", headers=session)).status_code == 204

        # The guest's cookie is still there, and what was the session's is not its.
        assert (await client.post("/auth/sign-in", json=ADA, headers=session)).status_code == 403
        assert (await client.post("/auth/sign-in", json=ADA, headers=await token_of(client))).status_code == 200
        # Nor is it the next session's.
        assert (await client.post("/auth/sign-out", headers=session)).status_code == 403


async def test_nobody_uses_anothers_token(world: World) -> None:
    """CSRF-15: a token is a session's, not the site's; a planted cookie makes none."""
    await world.sign_up("eve@example.com")
    async with plain(world) as ada, plain(world) as eve:
        await ada.post("/auth/sign-in", json=ADA)
        await eve.post("/auth/sign-in", json={**ADA, "email": "eve@example.com"})
        of_eve = await token_of(eve)
        assert (await ada.post("/auth/sign-out", headers=of_eve)).status_code == 403
        assert (await eve.post("/auth/sign-out", headers=of_eve)).status_code == 204
    async with plain(world) as guest, plain(world) as other:
        tokens = await token_of(guest)
        await token_of(other)
        assert (await other.post("/auth/sign-in", json=ADA, headers=tokens)).status_code == 403


async def test_a_program_without_cookies_needs_no_token(world: World) -> None:
    async with plain(world) as client:
        assert (await client.post("/auth/sign-in", json=ADA)).status_code == 200


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"origin": ORIGIN, "sec-fetch-site": "same-origin"}, id="browser of today"),
        pytest.param({"origin": ORIGIN}, id="browser without Fetch Metadata"),
        pytest.param({"sec-fetch-site": "same-origin"}, id="browser that hides Origin"),
    ],
)
async def test_forms_work_without_javascript_and_without_a_token(world: World, said: dict[str, str]) -> None:
    async with plain(world, **PAGE, **said) as browser:
        for path, fields, onward in (
            ("/auth/sign-up", {**ADA, "email": "new@example.com", "name": "New"}, "/auth/sign-in?notice=signed-up"),
            ("/auth/sign-in", {**ADA, "next": "/account/name"}, "/account/name"),
            ("/account/name", {"name": "Countess"}, "/account?notice=name-changed"),
            ("/auth/sign-out", {"next": ""}, "/"),
        ):
            answer = await browser.post(path, data=fields)
            assert (answer.status_code, answer.headers.get("location")) == (303, onward), path
        assert (await browser.get("/account")).headers["location"].startswith("/auth/sign-in")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"origin": "https://attacker.example", "sec-fetch-site": "cross-site"}, id="CSRF-01"),
        pytest.param({"origin": "null", "sec-fetch-site": "cross-site"}, id="sandboxed frame"),
        pytest.param({"origin": "http://127.0.0.1:8001"}, id="CSRF-07-port"),
        pytest.param({"sec-fetch-site": "same-site"}, id="sibling host"),
        pytest.param({}, id="silent"),
    ],
)
async def test_forms_of_foreign_pages_do_nothing(world: World, said: dict[str, str]) -> None:
    """Login CSRF too: nobody is signed in as somebody else by a page he looks at."""
    async with plain(world) as browser:
        await browser.post("/auth/sign-in", json=ADA)
        for path, fields in (
            ("/account/name", {"name": "Mallory"}),
            ("/auth/sign-in", {"email": "eve@example.com", "password": GOOD}),
            ("/auth/sign-out", {"next": ""}),
        ):
            answer = await browser.post(path, data=fields, headers={**PAGE, **said})
            assert answer.status_code == 403, path
            assert answer.headers["content-type"].startswith("text/html")
            assert "set-cookie" not in answer.headers
        assert (await browser.get("/auth/session")).json()["user"]["name"] == "Ada"
