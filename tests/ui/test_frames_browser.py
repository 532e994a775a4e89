"""Frames on other sites and sub-domains in a real browser: what it keeps and sends by `cookies.*`, and what we refuse.

`localhost` and `127.0.0.1` are two sites to a browser, and both are trustworthy enough for Secure cookies.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from routeguard import Routeguard, Settings, public, security_headers
from routeguard.cli.accounts import make_account
from routeguard.core.secret import Secret
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.settings.cookies import CookieSettings
from tests.passwords.world import CHEAP, UNLIMITED
from tests.steady import PATIENT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Frame, Page

EMAIL, PASSWORD = "ada@example.com", "plum tractor wobble seventeen"
FRAMED = security_headers(
    "pages", change={"content-security-policy": "default-src 'self'; frame-ancestors http://127.0.0.1:*"}
)
CLIENT = "import('/auth/client.js').then(({ createClient }) => { window.client = createClient(); })"
SIGN_IN = f"client.signIn({{ email: '{EMAIL}', password: '{PASSWORD}' }})"


@contextlib.contextmanager
def served(app: Any, listening: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


class Widget:
    """An application for frames, and a record of what its handlers did and of what arrived."""

    def __init__(self, directory: Path, cookies: CookieSettings, host: str) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listening.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        self.done: list[str] = []
        self.sent: list[tuple[str, str]] = []
        """The path and the Cookie field of each request."""
        self.guard = Routeguard(
            Settings(
                issuer=self.url,
                secret=Secret("s" * 32),
                environment="development",
                traffic=UNLIMITED,
                passwords=CHEAP,
                database=PATIENT,
                database_url=f"sqlite:///{directory / 'frames.db'}",
                cookies=cookies,
            )
        )
        self.app = self._recorded(self._app())

    def _app(self) -> Starlette:
        guard = self.guard

        @guard(public, FRAMED)
        async def widget(request: Request) -> Response:
            return HTMLResponse("<!doctype html><title>widget</title>")

        @guard(guard.session())
        async def change(request: Request) -> Response:
            self.done.append("change")
            return JSONResponse({"email": (await guard.current_session(request)).user.email}, 201)

        @guard(guard.session())
        async def greet(socket: WebSocket) -> None:
            self.done.append("greet")
            await socket.accept()
            await socket.close()

        app = Starlette(
            routes=[
                Route("/widget", widget),
                Route("/api/change", change, methods=["POST"]),
                WebSocketRoute("/ws", greet),
            ]
        )
        guard.install(app)
        return app

    def _recorded(self, app: Any) -> Any:
        async def recorded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan":
                self.sent.append((scope["path"], dict(scope["headers"]).get(b"cookie", b"").decode("latin-1")))
            await app(scope, receive, send)

        return recorded

    async def prepare(self) -> None:
        guard = Routeguard(self.guard.settings)
        await migrate(guard.services.get(Database))
        await guard.start()
        try:
            await make_account(guard.services, EMAIL, name="Ada", role="user", password=PASSWORD)
        finally:
            await guard.close()

    def cookie_of(self, path: str) -> str:
        return next(cookie for one, cookie in reversed(self.sent) if one == path)


@contextlib.contextmanager
def opened(directory: Path, cookies: CookieSettings, host: str = "localhost") -> Iterator[Widget]:
    widget = Widget(directory, cookies, host)
    # The browser's own event loop runs in this thread.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, widget.prepare()).result()
    with served(widget.app, widget.listening):
        yield widget


@pytest.fixture(scope="module")
def partner() -> Iterator[str]:
    """Another site, whose pages hold a frame or nothing."""

    async def page(request: Request) -> Response:
        source = request.query_params.get("frame")
        return HTMLResponse("<!doctype html>" + (f'<iframe src="{source}"></iframe>' if source else ""))

    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    with served(Starlette(routes=[Route("/", page)]), listening):
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context()
    made.set_default_timeout(60_000)
    yield made
    made.close()


def cookies(context: BrowserContext) -> dict[str, Any]:
    found: Any = context.cookies()
    return {one["name"]: one for one in found}


def frame_in(page: Page, partner: str, widget: Widget, path: str = "/widget") -> Frame:
    page.goto(f"{partner}/?frame={widget.url}{path}")
    # By its element: the page of an error, which is what a refused frame shows, takes its name from it for a moment.
    frame = page.wait_for_selector("iframe", state="attached").content_frame()
    assert frame is not None
    return frame


def attack(page: Page, url: str) -> str:
    """Have a page send what needs no leave by CORS, with cookies: a POST, and a handshake. Return how that ended."""
    found: str = page.evaluate(
        """async (url) => {
            const unread = { method: 'POST', mode: 'no-cors', credentials: 'include' };
            await fetch(`${url}/api/change`, unread).catch(() => null);
            const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`);
            return await new Promise((done) => {
                socket.onopen = () => done('open');
                socket.onerror = () => done('refused');
            });
        }""",
        url,
    )
    return found


def test_a_user_signs_in_within_a_frame_on_another_site(tmp_path: Path, context: BrowserContext, partner: str) -> None:
    """CSRF-01, WS-01: the page around the frame sends the same cookie, and reaches nothing."""
    with opened(tmp_path, CookieSettings(same_site="none")) as widget:
        page = context.new_page()
        frame = frame_in(page, partner, widget)
        frame.evaluate(CLIENT)
        assert frame.evaluate("client.session()") is None
        frame.evaluate(SIGN_IN)
        assert frame.evaluate("client.session()")["user"]["email"] == EMAIL
        assert frame.evaluate("client.fetch('/api/change', { method: 'POST' }).then((r) => r.status)") == 201
        assert frame.evaluate("client.refresh()") is True
        assert widget.done == ["change"]

        names = {f"routeguard-partitioned{part}" for part in ("", "-access", "-refresh", "-csrf")}
        kept = cookies(context)
        assert set(kept) == names
        assert all(one["secure"] and one["httpOnly"] and one["sameSite"] == "None" for one in kept.values())

        assert attack(page, widget.url) == "refused"
        assert "routeguard-partitioned=" in widget.cookie_of("/api/change")
        assert "routeguard-partitioned=" in widget.cookie_of("/ws")
        assert widget.done == ["change"]

        # The jar is that of this site's pages: none of ours, and none of a third site's, is signed in by it.
        own = context.new_page()
        own.goto(f"{widget.url}/widget")
        own.evaluate(CLIENT)
        assert own.evaluate("client.session()") is None

        frame.evaluate("client.signOut()")
        assert frame.evaluate("client.session()") is None
        assert set(cookies(context)) <= {"routeguard-partitioned-csrf"}


def test_our_pages_work_outside_of_frames_and_are_shown_in_none(
    tmp_path: Path, context: BrowserContext, partner: str
) -> None:
    """A frame shows no address: a form for a password in it cannot be told from a copy."""
    with opened(tmp_path, CookieSettings(same_site="none")) as widget:
        page = context.new_page()
        page.goto(f"{widget.url}/auth/sign-in?next=/account/name")
        page.get_by_label("E-mail address").fill(EMAIL)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/account/name")
        for path in ("/auth/sign-in", "/account"):
            frame = frame_in(page, partner, widget, path)
            assert frame.url.startswith("chrome-error:")
            assert frame.get_by_role("button").count() == 0


def test_without_the_setting_a_frame_keeps_no_session(tmp_path: Path, context: BrowserContext, partner: str) -> None:
    with opened(tmp_path, CookieSettings()) as widget:
        frame = frame_in(context.new_page(), partner, widget)
        frame.evaluate(CLIENT)
        refused = f"{SIGN_IN}.then(() => 'signed in', (problem) => problem.code)"
        assert frame.evaluate(refused) == "forgery-suspected", "not even a guest's cookie is kept"
        assert cookies(context) == {}


def test_sub_domains_share_the_session_and_no_trust(tmp_path: Path, context: BrowserContext, partner: str) -> None:
    """CSRF-01, WS-01: a sibling receives the cookie, and its pages are still no pages of ours."""
    with opened(tmp_path, CookieSettings(domain="app.localhost"), "id.app.localhost") as widget:
        page = context.new_page()
        page.goto(f"{widget.url}/widget")
        page.evaluate(CLIENT)
        page.evaluate(SIGN_IN)
        assert page.evaluate("client.session()")["user"]["email"] == EMAIL
        assert {one["domain"] for one in cookies(context).values()} == {".app.localhost"}

        page.goto(f"http://shop.app.localhost:{widget.port}/widget")
        assert "routeguard=" in widget.cookie_of("/widget")
        page.goto(partner.replace("127.0.0.1", "blog.app.localhost"))
        assert attack(page, widget.url) == "refused"
        assert "routeguard=" in widget.cookie_of("/api/change")
        assert widget.done == []

        # A sibling plants a session beside the user's: two are refused, and the next sign-in takes it away.
        for name in ("routeguard", "routeguard-access"):
            context.add_cookies([{"name": name, "value": "planted", "domain": "id.app.localhost", "path": "/"}])
        context.clear_cookies(name="routeguard-refresh")
        page.goto(f"{widget.url}/widget")
        page.evaluate(CLIENT)
        assert page.evaluate("client.session()") is None
        page.evaluate(SIGN_IN)
        assert page.evaluate("client.session()")["user"]["email"] == EMAIL
        page.evaluate("client.signOut()")
        assert set(cookies(context)) <= {"routeguard-csrf"}
