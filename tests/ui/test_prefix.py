"""Below a prefix: every link, form, redirect, mail and cookie of ours, however the prefix comes about."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import anyio
import httpx2 as httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from routeguard import Routeguard, Settings
from routeguard.cli.serve import below
from routeguard.cli.serve import create as identity_service
from routeguard.core.secret import Secret
from routeguard.foundation.db.outbox import Outbox
from routeguard.foundation.mail.queue import MailQueue
from tests.passwords.world import CHEAP, GOOD, PATIENT, UNLIMITED, Mailbox

COVERS = ("identity/ui/feature", "identity/ui/script")

pytestmark = pytest.mark.anyio

ORIGIN = "https://site.example"
PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin", "origin": ORIGIN}
Asgi = Callable[[Any, Any, Any], Any]


def starlette_app(guard: Routeguard[Any], app: Starlette | None = None) -> Starlette:
    """Return a guarded application with a start page, a page for the signed-in, and one with a slash at its end."""

    @guard(guard.optional_session())
    async def start(request: Request) -> Response:
        return PlainTextResponse("start")

    @guard(guard.session())
    async def me(request: Request) -> Response:
        return PlainTextResponse("me")

    app = app or Starlette()
    app.router.routes += [Route("/", start), Route("/me", me), Route("/folder/", me)]
    guard.install(app)
    return app


def stripped(app: Asgi, prefix: str) -> Asgi:
    """A proxy that takes the prefix away."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith(prefix + "/"), scope["path"]
            quoted = len(httpx.URL(prefix).raw_path)
            scope = {**scope, "path": scope["path"][len(prefix) :], "raw_path": scope["raw_path"][quoted:]}
        await app(scope, receive, send)

    return proxy


def told(app: Asgi, prefix: str) -> Asgi:
    """A server that was told the prefix, as `uvicorn --root-path` tells it: the path holds it."""

    async def server(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": prefix}, receive, send)

    return server


def mounted(guard: Routeguard[Any], at: str) -> Asgi:
    return Starlette(routes=[Mount(at, starlette_app(guard))])


def mounted_twice(guard: Routeguard[Any], at: str) -> Asgi:
    outer, inner = re.findall(r"/[^/]+", at)
    return Starlette(routes=[Mount(outer, mounted(guard, inner))])


def mounted_in_fastapi(guard: Routeguard[Any], at: str) -> Asgi:
    outer = FastAPI()
    outer.mount(at, starlette_app(guard, FastAPI()))
    return outer


def fastapi_app(guard: Routeguard[Any], at: str) -> Asgi:
    app = FastAPI()
    app.root_path = at
    return starlette_app(guard, app)


WAYS: dict[str, tuple[str, Callable[[Routeguard[Any], str], Asgi]]] = {
    "mounted": ("/x", mounted),
    "mounted, not ASCII": ("/caf\u00e9", mounted),
    "mounted twice": ("/a/b", mounted_twice),
    "mounted by a parameter": ("/acme", lambda guard, _: mounted(guard, "/{tenant}")),
    "mounted in FastAPI": ("/x", mounted_in_fastapi),
    "like the start of a path of ours": ("/acc", mounted),
    "like a path of ours": ("/auth", mounted),
    "server": ("/x", lambda guard, at: told(starlette_app(guard), at)),
    "server and mount": ("/x/y", lambda guard, _: told(mounted(guard, "/y"), "/x")),
    "FastAPI and a proxy that keeps it": ("/x", fastapi_app),
    "FastAPI and a proxy that takes it": ("/x", lambda guard, at: stripped(fastapi_app(guard, at), at)),
    "FastAPI, acc, and a proxy that takes it": ("/acc", lambda guard, at: stripped(fastapi_app(guard, at), at)),
}
"""A prefix, and what makes an application that is reached below it."""
BY_SETTING: dict[str, tuple[str, Callable[[Routeguard[Any], str], Asgi]]] = {
    "a proxy that takes it": ("/x", lambda guard, at: stripped(starlette_app(guard), at)),
    "a proxy that takes what is beyond a mount": ("/x/y", lambda guard, _: stripped(mounted(guard, "/y"), "/x")),
}
"""The same where only the setting `root_path` says so."""
CASES = [(way, said) for way in WAYS for said in (False, True) if not said or "ASCII" not in way]
CASES += [(way, True) for way in BY_SETTING]


@dataclass(frozen=True, slots=True)
class Site:
    prefix: str
    app: Asgi
    guard: Routeguard[Any]
    mailbox: Mailbox

    def browser(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=ORIGIN, headers=PAGE | headers)

    async def mailed(self, to: str) -> str:
        box = self.guard.services.get(Outbox)
        with anyio.fail_after(60):
            while not self.mailbox.to(to):
                await box.deliver_due()
        return re.findall(r"https?://\S+", self.mailbox.to(to)[-1].text)[-1]


@asynccontextmanager
async def opened(way: str, said: bool, sqlite_url: str) -> AsyncIterator[Site]:
    prefix, make = (WAYS | BY_SETTING)[way]
    settings = Settings(
        issuer=ORIGIN,
        root_path=prefix if said else "",
        secret=Secret("s" * 32),
        environment="development",
        database_url=sqlite_url,
        passwords=CHEAP,
        traffic=UNLIMITED,
        database=PATIENT,
    )
    guard = Routeguard(settings)
    mailbox = Mailbox()
    guard.services.get(MailQueue).mailer = mailbox
    app = make(guard, prefix)
    async with guard.lifespan():
        yield Site(quote(prefix), app, guard, mailbox)


def links(html: str) -> list[str]:
    """Return where a page leads and posts to, but for places within itself."""
    return [link for link in re.findall(r'(?:href|action|src)="([^"]*)"', html) if not link.startswith(("#", "data:"))]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}{', and said' if case[1] else ''}")
async def site(request: pytest.FixtureRequest, sqlite_url: str) -> AsyncIterator[Site]:
    async with opened(*request.param, sqlite_url) as found:
        yield found


async def form(browser: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return await browser.post(path, content=urlencode(fields), headers=headers)


async def test_a_life_of_an_account_stays_below_the_prefix(site: Site) -> None:
    at = site.prefix
    said = site.guard.settings.root_path
    async with site.browser() as browser:
        asked = await browser.get(f"{at}/me?a=1")
        assert (asked.status_code, asked.headers["location"]) == (
            303,
            f"{at}/auth/sign-in?next={at_next(at)}/me%3Fa%3D1",
        )
        shown = await browser.get(asked.headers["location"])
        assert f'name="next" value="{at}/me?a=1"' in shown.text

        made = await form(browser, f"{at}/auth/sign-up", email="ada@example.com", password=GOOD, name="Ada")
        assert made.headers["location"] == f"{at}/auth/sign-in?notice=signed-up", made.text
        link = await site.mailed("ada@example.com")
        if said:
            assert link.startswith(f"{ORIGIN}{at}/auth/email/verify#token=")
        token = link.partition("token=")[2]
        proven = await form(browser, f"{at}/auth/email/verify", token=token)
        assert proven.headers["location"] == f"{at}/auth/sign-in?notice=email-verified"
        entered = await form(browser, f"{at}/auth/sign-in", email="ada@example.com", password=GOOD, next=f"{at}/me?a=1")
        assert (entered.status_code, entered.headers["location"]) == (303, f"{at}/me?a=1")
        assert "Path=/;" in entered.headers["set-cookie"]
        assert (await browser.get(f"{at}/me?a=1")).text == "me"
        assert (await browser.get(f"{at}/auth/sign-in")).headers["location"] == f"{at}/account"
        named = await form(browser, f"{at}/account/name", name="Countess")
        assert named.headers["location"] == f"{at}/account?notice=name-changed"
        refused = await form(browser, f"{at}/account/name", name="x" * 200)
        assert (refused.status_code, f'action="{at}/account/name"' in refused.text) == (422, True)
        out = await form(browser, f"{at}/auth/sign-out")
        assert out.headers["location"] == f"{at}/"
        late = await form(browser, f"{at}/account/name", name="x")
        assert late.headers["location"] == f"{at}/auth/sign-in?next={at_next(at)}/account"
        sent = await browser.post(f"{at}/auth/sign-up", json={"email": "b@example.com", "password": GOOD})
        assert sent.json()["next"] == f"{at}/auth/sign-in"


def at_next(root: str) -> str:
    """Return the prefix as it stands inside a query."""
    return quote(root, safe="/")


async def test_every_link_of_every_page_leads_somewhere_below_the_prefix(site: Site) -> None:
    at = site.prefix
    pages = [
        "/auth/sign-in",
        "/auth/sign-up",
        "/auth/password/forgot",
        "/auth/password/reset",
        "/auth/email/verify",
        "/nothing-here",
        "/auth/sign-out",
    ]
    found: set[str] = set()
    async with site.browser() as browser:
        for path in pages:
            found |= set(links((await browser.get(at + path)).text))
        assert len(found) >= 6
        for path in ("/auth/sign-in", "/auth/password/reset"):
            found |= set(links((await form(browser, at + path)).text))
        await form(browser, f"{at}/auth/sign-up", email="ada@example.com", password=GOOD, name="Ada")
        await form(browser, f"{at}/auth/sign-in", email="ada@example.com", password=GOOD)
        for path in ("/account", "/account/name", "/account/password", "/account/email", "/nothing-here"):
            page = await browser.get(at + path)
            assert page.status_code == (404 if "nothing" in path else 200), path
            found |= set(links(page.text))
        assert f"{at}/account" in found
        for link in sorted(found):
            assert link.startswith(f"{at}/"), link
            answer = await browser.request("GET", link)
            assert answer.status_code in {200, 303, 405}, (link, answer.status_code)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/elsewhere",
        "/account",
        "{at}y",
        "{at}/../elsewhere",
        "{at}/%2e%2e/elsewhere",
        "{at}/..;/elsewhere",
        "{at}//elsewhere",
        "//evil.example{at}/",
        "https://site.example{at}/me",
        "{at}\\..\\elsewhere",
        "/{at}/me",
    ],
)
async def test_nobody_is_sent_out_of_the_prefix_after_signing_in(sqlite_url: str, target: str) -> None:
    """RED-12: what else is on the origin may be another application."""
    async with opened("mounted", False, sqlite_url) as site, site.browser() as browser:
        at, aim = site.prefix, target.format(at=site.prefix)
        await form(browser, f"{at}/auth/sign-up", email="ada@example.com", password=GOOD, name="Ada")
        shown = await browser.get(f"{at}/auth/sign-in", params={"next": aim})
        assert 'name="next"' not in shown.text
        entered = await form(browser, f"{at}/auth/sign-in", email="ada@example.com", password=GOOD, next=aim)
        assert (entered.status_code, entered.headers["location"]) == (303, f"{at}/account")
        onward = await browser.get(f"{at}/auth/sign-in", params={"next": aim})
        assert onward.headers["location"] == f"{at}/account"
        kept = await browser.get(f"{at}/auth/sign-in", params={"next": f"{at}/me"})
        assert kept.headers["location"] == f"{at}/me"


async def test_the_frameworks_slash_redirect_stays_below_the_prefix(site: Site) -> None:
    async with site.browser() as browser:
        answer = await browser.get(f"{site.prefix}/folder?a=1")
        assert (answer.status_code, answer.headers["location"]) == (307, f"{site.prefix}/folder/?a=1")


@pytest.mark.parametrize("root", ["//evil.example", "/\\evil.example", "evil.example", "/..", "/x/../..", "/a\r\nb"])
async def test_a_root_from_the_caller_leads_nowhere_else(sqlite_url: str, root: str) -> None:
    """HTTP-05, RED-01: where a middleware takes `root_path` from a header, no Location names another host."""
    settings = Settings(issuer=ORIGIN, secret=Secret("s" * 32), environment="development", database_url=sqlite_url)
    guard = Routeguard(settings)
    app = told(starlette_app(guard), root)
    async with (
        guard.lifespan(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN, headers=PAGE) as browser,
    ):
        answer = await browser.get("/me")
        assert answer.headers["location"] == "/auth/sign-in?next=/me"
        page = await browser.get("/auth/sign-in")
        assert all(re.match(r"/[a-z]", link) or link == "/" for link in links(page.text))
        slash = await browser.get("/folder")
        assert slash.headers["location"] == "/folder/"


@pytest.mark.parametrize("said", [False, True])
async def test_a_prefix_that_mails_lack_is_logged_once(
    sqlite_url: str, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened("mounted", said, sqlite_url) as site, site.browser() as browser:
        with caplog.at_level(logging.WARNING, "routeguard"):
            for _ in range(3):
                await browser.get(f"{site.prefix}/auth/sign-in")
    told_of = [record for record in caplog.records if "root_path" in record.getMessage()]
    assert len(told_of) == (0 if said else 1)
    assert all("set ROUTEGUARD_ROOT_PATH" in record.getMessage() for record in told_of)


@pytest.mark.parametrize(("prefix", "keeps"), [("/id", True), ("/id", False), ("/auth", False)])
async def test_the_service_by_itself_is_reached_through_either_proxy(sqlite_url: str, prefix: str, keeps: bool) -> None:
    settings = Settings(
        issuer=ORIGIN, root_path=prefix, secret=Secret("s" * 32), environment="development", database_url=sqlite_url
    )
    service = identity_service(settings)
    reached = below(service, prefix)
    app = reached if keeps else stripped(reached, prefix)
    async with (
        service.state.guard.lifespan(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN, headers=PAGE) as browser,
    ):
        first = await browser.get(f"{prefix}/")
        assert first.headers["location"] == f"{prefix}/account"
        second = await browser.get(first.headers["location"])
        assert second.headers["location"] == f"{prefix}/auth/sign-in?next={prefix}/account"
        page = await browser.get(second.headers["location"])
        assert page.status_code == 200
        assert all(link.startswith(f"{prefix}/") for link in links(page.text))
        assert (await browser.get(f"{prefix}/.well-known/jwks.json")).status_code == 200
        assert (await browser.get(f"{prefix}/auth/client.js")).status_code == 200


@pytest.mark.parametrize(
    "root", ["api", "/api/", "//api", "/a b", "/a/../b", "/.", "/%61", "/a?b", "https://x.example/api", "/caf\u00e9"]
)
def test_a_root_path_of_two_spellings_is_a_finding(root: str) -> None:
    assert [found for found in Settings(root_path=root).findings() if "root_path" in found]
    assert not [found for found in Settings(root_path="/a-b/c.d_e~1").findings() if "root_path" in found]
