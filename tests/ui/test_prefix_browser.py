"""A life of an account below a prefix, in a real browser: nginx takes it away or keeps it, or a mount makes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.backends import free_port
from tests.ui.site import HAS_NGINX, MAIN, PASSWORD, Site, nginx, site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IN_FASTAPI = MAIN.replace(
    'app = Starlette(routes=[Route("/", start), Route("/me", me)])',
    'from fastapi import FastAPI\n\napp = FastAPI()\napp.root_path = "/api"\n'
    'app.router.routes += [Route("/", start), Route("/me", me)]',
)
MOUNTED = (
    MAIN
    + """
from starlette.routing import Mount

async def elsewhere(request):
    return PlainTextResponse("outside of the prefix", 404)

inner = app
app = Starlette(routes=[Mount("/x", inner), Route("/{path:path}", elsewhere)], lifespan=guard.lifespan)
"""
)


@contextlib.contextmanager
def behind_nginx(directory: Path, *arguments: str, main: str, keeps: bool) -> Iterator[Site]:
    if not HAS_NGINX:
        pytest.skip("no nginx found: install the package `nginx-light`")
    port = free_port()
    upstream = f"http://127.0.0.1:{port}" + ("" if keeps else "/")
    with (
        nginx(directory, "/api", upstream) as public,
        site(directory, *arguments, main=main, public=public, root="/api", port=port) as made,
    ):
        yield made


@pytest.fixture(
    scope="module", params=["taken away, --root-path", "taken away, setting only", "kept, FastAPI", "mounted"]
)
def below(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("prefix")
    ways = {
        "taken away, --root-path": lambda: behind_nginx(directory, "--root-path", "/api", main=MAIN, keeps=False),
        "taken away, setting only": lambda: behind_nginx(directory, main=MAIN, keeps=False),
        "kept, FastAPI": lambda: behind_nginx(directory, main=IN_FASTAPI, keeps=True),
        "mounted": lambda: site(directory, main=MOUNTED, root="/x"),
    }
    with ways[request.param]() as made:
        yield made


def fill(page: Page, **fields: str) -> None:
    for label, text in fields.items():
        page.get_by_label(label.replace("_", " ")).fill(text)


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()


def test_a_life_of_an_account(below: Site, browser: Browser) -> None:
    at = below.url
    page = below.page(browser)
    outside: list[str] = []
    page.on("request", lambda request: None if request.url.startswith(f"{at}/") else outside.append(request.url))
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)

    page.goto(f"{at}/me?a=1")
    page.wait_for_url(f"{at}/auth/sign-in?next=**")
    page.get_by_role("link", name="Create an account").click()
    fill(page, Name="Ada", Password=PASSWORD)
    page.get_by_label("E-mail address").fill("ada@example.com")
    press(page, "Create account")
    page.wait_for_url(f"{at}/auth/sign-in?notice=signed-up**")
    link = below.inbox.link("ada@example.com", "email/verify")
    assert link.startswith(f"{at}/auth/email/verify#token=")
    page.goto(link)
    press(page, "Confirm address")
    page.wait_for_url(f"{at}/auth/sign-in?notice=email-verified**")
    page.goto(f"{at}/me?a=1")
    page.wait_for_url(f"{at}/auth/sign-in?next=**")
    page.get_by_label("E-mail address").fill("ada@example.com")
    fill(page, Password="not the password")
    press(page, "Sign in")
    page.get_by_role("alert").wait_for()
    fill(page, Password=PASSWORD)
    press(page, "Sign in")
    page.wait_for_url(f"{at}/me?a=1")
    assert page.get_by_text("me, ada@example.com").is_visible()

    page.goto(f"{at}/account")
    page.get_by_role("link", name="Change name").click()
    page.wait_for_url(f"{at}/account/name")
    fill(page, Name="Countess")
    press(page, "Change name")
    page.wait_for_url(f"{at}/account?notice=name-changed")
    page.get_by_role("link", name="Routeguard").click()
    page.wait_for_url(f"{at}/")
    assert page.get_by_text("start page, ada@example.com").is_visible()
    page.goto(f"{at}/account")
    press(page, "Sign out")
    page.wait_for_url(f"{at}/")
    assert page.get_by_text("start page, guest").is_visible()

    reset(below, page)
    page.goto(f"{at}/nothing-here")
    for shown in page.get_by_role("main").get_by_role("link").all():
        assert (shown.get_attribute("href") or "").startswith(at[at.index("/", 8) :] + "/")
    assert outside == []
    assert [text for text in complaints if "status of 40" not in text] == []


def reset(below: Site, page: Page) -> None:
    """Choose another password by a mailed link."""
    page.goto(f"{below.url}/auth/password/forgot")
    page.get_by_label("E-mail address").fill("ada@example.com")
    press(page, "Send the link")
    page.wait_for_url(f"{below.url}/auth/password/forgot?notice=sent")
    page.goto(below.inbox.link("ada@example.com", "password/reset"))
    page.get_by_label("New password").fill("quite another set of words")
    press(page, "Change password")
    page.wait_for_url(f"{below.url}/auth/sign-in?notice=password-reset**")


def test_the_module_finds_the_service_it_came_from(below: Site, browser: Browser) -> None:
    email = "module@example.com"
    page = below.page(browser, bypass_csp=True)
    page.goto(f"{below.url}/auth/sign-in")
    root = below.url[below.url.index("/", 8) :]
    client = f"(await import('{root}/auth/client.js')).createClient()"
    page.evaluate(f"(async () => {client}.signUp({{ email: '{email}', password: '{PASSWORD}' }}))()")
    page.goto(below.inbox.link(email, "email/verify"))
    press(page, "Confirm address")
    page.wait_for_url("**/auth/sign-in?notice=email-verified**")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    found = page.evaluate(
        f"(async () => {{ const client = {client};"
        f" const signedIn = await client.signIn({{ email: '{email}', password: '{PASSWORD}' }});"
        " const renewed = await client.refresh(); const session = await client.session();"
        " await client.signOut(); return [signedIn.user.email, renewed, session.user.email, await client.session()];"
        " })()"
    )
    assert found == [email, True, email, None]
    assert asked
    assert [url for url in asked if not url.startswith(f"{below.url}/auth/")] == []
