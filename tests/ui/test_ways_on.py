"""No dead ends: where a sign-in was to lead is kept, used links and refusals show a way on, typed text stays."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode

import httpx2 as httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from routeguard.identity.ui import refusals
from routeguard.protection.traffic.models import ThrottleSettings, TrafficSettings
from tests.conformance.wire import send
from tests.passwords.world import GOOD, ORIGIN, World

COVERS = ("core/refusal", "foundation/web/onward", "identity/ui/refusals", "identity/ui/routes")

pytestmark = pytest.mark.anyio

PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    async with World.open(sqlite_url) as opened:
        yield opened


async def form(browser: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None, **fields: str) -> Any:
    return await browser.post(path, content=urlencode(fields), headers=FORM | (headers or {}))


def field(html: str, name: str) -> str | None:
    """Return the value of an input."""
    found = re.search(rf'<input[^>]* name="{name}"[^>]* value="([^"]*)"', html)
    return None if found is None else unescape(found[1])


async def mailed(world: World, to: str) -> str:
    await world.settle()
    return world.mailbox.token(to)


# -- where a sign-in was to lead ------------------------------------------------------------------------------------


async def test_the_place_of_a_sign_in_survives_sign_up_and_verification(world: World) -> None:
    async with world.client(**PAGE) as browser:
        page = await browser.get("/auth/sign-in?next=/api/me%3Fa%3D1%26b")
        [link] = re.findall(r'href="(/auth/sign-up[^"]*)"', page.text)
        page = await browser.get(link.replace("&amp;", "&"))
        assert field(page.text, "next") == "/api/me?a=1&b"
        # And back, which may come before or instead.
        assert '"/auth/sign-in?next=/api/me%3Fa%3D1%26b"' in page.text
        made = await form(
            browser, "/auth/sign-up", email="ada@example.com", password=GOOD, name="Ada", next="/api/me?a=1&b"
        )
        assert made.headers["location"] == "/auth/sign-in?notice=signed-up&next=/api/me%3Fa%3D1%26b"
        token = await mailed(world, "ada@example.com")
        page = await browser.get("/auth/email/verify")
        proven = await form(browser, "/auth/email/verify", token=token, next=field(page.text, "next") or "")
        assert proven.headers["location"].startswith("/auth/sign-in?notice=email-verified&next=/api/me")
        # A sign-in page opened by itself knows it too, until somebody has signed in.
        assert field((await browser.get("/auth/sign-in")).text, "next") == "/api/me?a=1&b"
        entered = await form(browser, "/auth/sign-in", email="ada@example.com", password=GOOD, next="/api/me?a=1&b")
        assert entered.headers["location"] == "/api/me?a=1&b"
        await form(browser, "/auth/sign-out")
        assert field((await browser.get("/auth/sign-in")).text, "next") is None


async def test_the_place_of_a_sign_in_survives_a_reset(world: World) -> None:
    await world.sign_up("ada@example.com")
    async with world.client(**PAGE) as browser:
        page = await browser.get("/auth/sign-in?next=/api/me")
        [link] = re.findall(r'href="(/auth/password/forgot[^"]*)"', page.text)
        page = await browser.get(link)
        assert field(page.text, "next") == "/api/me"
        sent = await form(browser, "/auth/password/forgot", email="ada@example.com", next="/api/me")
        assert sent.headers["location"] == "/auth/password/forgot?notice=sent&next=/api/me"
        assert '"/auth/sign-in?next=/api/me"' in (await browser.get(sent.headers["location"])).text
        token = await mailed(world, "ada@example.com")
        page = await browser.get("/auth/password/reset")
        assert field(page.text, "next") == "/api/me"
        changed = await form(
            browser, "/auth/password/reset", token=token, password="another good set of words", next="/api/me"
        )
        assert changed.headers["location"] == "/auth/sign-in?notice=password-reset&next=/api/me"


@pytest.mark.parametrize("target", ["//evil.example", "/\\evil.example", "https://evil.example/", "/a/..;/b", "x"])
async def test_no_place_elsewhere_is_kept(world: World, target: str) -> None:
    """RED-02 to RED-12: neither in a link, nor in the cookie, nor when the cookie says so."""
    async with world.client(**PAGE) as browser:
        page = await browser.get("/auth/sign-in", params={"next": target})
        assert "next=" not in page.text
        made = await form(browser, "/auth/sign-up", email="ada@example.com", password=GOOD, name="Ada", next=target)
        assert made.headers["location"] == "/auth/sign-in?notice=signed-up"
        assert "set-cookie" not in made.headers
    async with world.client(**PAGE, cookie=f"routeguard-next={quote(target, safe='')}") as browser:
        assert field((await browser.get("/auth/sign-in")).text, "next") is None


async def test_a_place_that_no_cookie_holds_is_carried_without_it(world: World) -> None:
    long = "/a?" + "\u00e9" * 300
    async with world.client(**PAGE) as browser:
        made = await form(browser, "/auth/sign-up", email="ada@example.com", password=GOOD, name="Ada", next=long)
        assert made.headers["location"].startswith("/auth/sign-in?notice=signed-up&next=/a%3F%25C3%25A9")
        assert (await browser.get(made.headers["location"])).status_code == 200


# -- links that no longer work --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "again"), [("/auth/email/verify", "/auth/email/resend"), ("/auth/password/reset", "/auth/password/forgot")]
)
async def test_a_link_that_no_longer_works_shows_what_to_do(world: World, path: str, again: str) -> None:
    await world.sign_up("ada@example.com")
    token = await mailed(world, "ada@example.com")
    async with world.client(**PAGE) as browser:
        if path.endswith("reset"):
            await form(browser, "/auth/password/forgot", email="ada@example.com")
            token = await mailed(world, "ada@example.com")
        answers = []
        more = {"password": "another good set of words"} if path.endswith("reset") else {}
        assert (await form(browser, path, token=token, **more)).status_code == 303
        for tried in (token, "usr_nobody.made-up", "x"):
            answer = await form(browser, path, token=tried, next="/api/me", **more)
            assert answer.status_code == 400
            assert "This link no longer works" in answer.text
            assert f'href="{again}?next=/api/me"' in answer.text
            assert 'href="/auth/sign-in?next=/api/me"' in answer.text
            assert f'action="{path}"' not in answer.text
            answers.append(re.sub(r'nonce="[^"]*"', "", answer.text))
        # Used, for nobody and made up look alike.
        assert len(set(answers)) == 1
        page = await browser.get(again)
        assert f'action="{again}"' in page.text


async def test_a_new_link_is_sent_from_the_page_that_offers_it(world: World) -> None:
    await world.sign_up("ada@example.com")
    older = await mailed(world, "ada@example.com")
    await world.pass_time(60 * 25)
    async with world.client(**PAGE) as browser:
        assert (await form(browser, "/auth/email/verify", token=older)).status_code == 400
        sent = await form(browser, "/auth/email/resend", email="ada@example.com", next="/api/me")
        assert sent.headers["location"] == "/auth/sign-in?notice=sent&next=/api/me"
        token = await mailed(world, "ada@example.com")
        assert token != older
        proven = await form(browser, "/auth/email/verify", token=token)
        assert proven.headers["location"] == "/auth/sign-in?notice=email-verified"


# -- too many tries -------------------------------------------------------------------------------------------------

LIMITS: dict[str, dict[str, Any]] = {
    "by address, before the body is read": {
        "traffic": TrafficSettings(sign_in="1/hour", sign_up="1/hour", identity="1/hour", refresh="off")
    },
    "by account": {"throttle": ThrottleSettings(free=1)},
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_too_many_tries_keep_the_address_and_say_how_long(sqlite_url: str, limit: str) -> None:
    async with World.open(sqlite_url, **LIMITS[limit]) as world, world.client(**PAGE) as browser:
        for _ in range(80):
            answer = await form(
                browser, "/auth/sign-in", email="ada@example.com", password="not the password", next="/api/me"
            )
            if answer.status_code == 429:
                break
            assert answer.status_code == 401
        assert answer.status_code == 429
        assert field(answer.text, "email") == "ada@example.com"
        assert field(answer.text, "next") == "/api/me"
        assert "not the password" not in answer.text
        assert re.search(r"Too many tries\. Try again in \d+ (seconds|minutes|hours)\.", answer.text)
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("path", "fields", "kept"),
    [
        ("/auth/sign-up", {"email": "a@example.com", "name": "Ada", "password": GOOD}, {"email", "name"}),
        ("/auth/password/forgot", {"email": "a@example.com"}, {"email"}),
        ("/auth/password/reset", {"token": "usr_x.y", "password": GOOD}, {"token"}),
        ("/auth/email/resend", {"email": "a@example.com"}, {"email"}),
    ],
)
async def test_every_form_keeps_what_was_typed_when_it_is_refused_unread(
    sqlite_url: str, path: str, fields: dict[str, str], kept: set[str]
) -> None:
    limits = TrafficSettings(sign_in="1/hour", sign_up="1/hour", identity="1/hour", refresh="off")
    async with World.open(sqlite_url, traffic=limits) as world, world.client(**PAGE) as browser:
        for _ in range(5):
            answer = await form(browser, path, **fields)
            if answer.status_code == 429:
                break
        assert answer.status_code == 429
        for name in kept:
            assert field(answer.text, name) == fields[name]
        assert GOOD not in answer.text


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_a_foreign_page_puts_nothing_into_our_form(sqlite_url: str, site: str) -> None:
    limits = TrafficSettings(sign_in="1/hour", sign_up="off", identity="off", refresh="off")
    async with World.open(sqlite_url, traffic=limits) as world, world.client(**PAGE) as browser:
        await form(browser, "/auth/sign-in", email="ada@example.com", password="x")
        answer = await form(
            browser, "/auth/sign-in", {"sec-fetch-site": site}, email="eve@example.com", password="x", next="/eve"
        )
        assert answer.status_code == 429
        assert "eve@" not in answer.text
        assert "/eve" not in answer.text


@pytest.mark.parametrize("body", [b"email=%ff", b"email=a&email=b", b"x=" + b"a" * 9000, b"", b"&&=&"])
async def test_a_form_that_cannot_be_read_changes_no_refusal(sqlite_url: str, body: bytes) -> None:
    limits = TrafficSettings(sign_in="1/hour", sign_up="off", identity="off", refresh="off")
    async with World.open(sqlite_url, traffic=limits) as world, world.client(**PAGE) as browser:
        await form(browser, "/auth/sign-in", email="ada@example.com", password="x")
        answer = await browser.post("/auth/sign-in", content=body, headers=FORM)
        assert answer.status_code == 429
        assert field(answer.text, "email") == ""


async def test_a_refusal_does_not_wait_for_a_form_that_does_not_come(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP-10: its sender holds nothing but this connection."""
    monkeypatch.setattr(refusals, "_PATIENCE", 0.01)
    limits = TrafficSettings(sign_in="1/hour", sign_up="off", identity="off", refresh="off")
    async with World.open(sqlite_url, traffic=limits) as world, world.client(**PAGE) as browser:
        await form(browser, "/auth/sign-in", email="ada@example.com", password="x")
        headers = [(name.encode(), value.encode()) for name, value in (PAGE | FORM | {"origin": ORIGIN}).items()]
        headers += [(b"host", b"127.0.0.1:8000"), (b"content-length", b"40")]
        half = {"type": "http.request", "body": b"email=ada", "more_body": True}
        answer = await send(world.app, "POST", "/auth/sign-in", headers, body=[half], client=("127.0.0.1", 123))
        assert answer.status == 429


# -- error pages ----------------------------------------------------------------------------------------------------


def links(html: str) -> set[str]:
    return set(re.findall(r'<a [^>]*href="(/[^"]*)"', html))


async def test_every_error_page_has_a_way_out(world: World) -> None:
    @world.guard(world.guard.session(user={"role": "admin"}))
    async def staff(request: Request) -> Response:
        return Response()

    @world.guard(world.guard.optional_session())
    async def broken(request: Request) -> Response:
        raise RuntimeError("broken")

    world.app.router.routes += [Route("/staff", staff), Route("/broken", broken)]
    transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=PAGE) as guest:
        for path, status in (("/nothing-here", 404), ("/auth/sign-out", 405), ("/broken", 500)):
            answer = await guest.get(path)
            assert answer.status_code == status
            assert {"/auth/sign-in", "/"} <= links(answer.text)
        # A start page that is not there does not lead to itself.
        assert '<a class="button quiet" href="/">' not in (await guest.get("/")).text
        assert "/auth/sign-in" in links((await guest.get("/")).text)
    async with world.signed_in("ada@example.com") as user:
        answer = await user.get("/staff", headers=PAGE)
        assert answer.status_code == 403
        assert "/account" in links(answer.text)
        # Somebody who has another account may take that one.
        assert 'action="/auth/sign-out"' in answer.text
        assert (await user.get("/account", headers=PAGE)).status_code == 200
