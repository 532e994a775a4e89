"""The pages in a real browser, with and without scripts: sign up, sign in, be let in, be refused, revoke, sign out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import Running, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PASSWORD = "plum tractor wobble seventeen"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("dev"), "dev", "--port", "0") as started:
        yield started


def new_page(browser: Browser, server: Running, **more: Any) -> Page:
    page = browser.new_context(base_url=server.url, **more).new_page()
    page.set_default_timeout(60_000)
    return page


def sign_in(page: Page, email: str, password: str = PASSWORD) -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_life_of_an_account(server: Running, browser: Browser, scripts: bool) -> None:
    email = f"newcomer-{scripts}@example.com".lower()
    page = new_page(browser, server, java_script_enabled=scripts)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)

    page.goto("/")
    assert page.get_by_text("You are a guest").is_visible()
    assert page.get_by_role("row").filter(has_text="/api/admin/report").filter(has_text="admin").is_visible()
    page.get_by_role("link", name="Sign up").click()
    page.get_by_label("Name").fill("New Comer")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    page.wait_for_url("**/auth/sign-in?notice=signed-up")

    sign_in(page, email)
    page.wait_for_url("**/account")
    assert page.get_by_text("this browser").is_visible()
    answer = page.goto("/api/me")
    assert answer is not None
    assert answer.json()["email"] == email
    refused = page.goto("/api/admin/report")
    assert refused is not None
    assert refused.status == 403

    other = new_page(browser, server)
    other.goto("/auth/sign-in")
    sign_in(other, email)
    other.wait_for_url("**/account")
    page.goto("/account")
    page.get_by_role("button", name="End the session of").click()
    page.wait_for_url("**/account?notice=session-ended")
    assert page.get_by_text("That session is ended.").is_visible()
    assert page.get_by_role("button", name="End the session of").count() == 0
    other.goto("/account")
    assert "/auth/sign-in?next=/account" in other.url

    page.get_by_role("button", name="Sign out", exact=True).click()
    page.get_by_text("You are a guest").wait_for()
    page.goto("/api/me")
    assert page.url.endswith("/auth/sign-in?next=/api/me")
    sign_in(page, email, "not the password")
    page.get_by_role("alert").wait_for()
    assert page.get_by_label("E-mail address").input_value() == email
    assert page.get_by_label("Password").input_value() == ""
    sign_in(page, email)
    page.wait_for_url("**/api/me")
    # The browser itself found nothing against our own policy, but for the refusals that were meant.
    assert [text for text in complaints if "status of 40" not in text] == []


def test_staff_see_the_report(server: Running, browser: Browser) -> None:
    page = new_page(browser, server)
    page.goto("/auth/sign-in?next=/api/admin/report")
    sign_in(page, "moderator@example.com", server.passwords["moderator@example.com"])
    page.wait_for_url("**/api/admin/report")
    assert '"users":' in page.content()


def test_signing_in_leads_to_no_other_origin(server: Running, browser: Browser) -> None:
    """RED-02, RED-14: the page drops a foreign target."""
    page = new_page(browser, server)
    page.goto("/auth/sign-in?next=//evil.example/x")
    sign_in(page, "bob@example.com", server.passwords["bob@example.com"])
    page.wait_for_url("**/account")


def test_the_password_is_changed_and_reset(server: Running, browser: Browser) -> None:
    page = new_page(browser, server)
    page.goto("/auth/sign-in")
    sign_in(page, "alice@example.com", server.passwords["alice@example.com"])
    page.wait_for_url("**/account")
    page.get_by_role("link", name="Change password").click()
    page.get_by_label("Current password").fill("wrong")
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_role("button", name="Change password").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Current password").fill(server.passwords["alice@example.com"])
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_role("button", name="Change password").click()
    page.wait_for_url("**/account?notice=password-changed")

    page = new_page(browser, server)
    page.goto("/auth/password/forgot")
    page.get_by_label("E-mail address").fill("alice@example.com")
    page.get_by_role("button", name="Send the link").click()
    page.wait_for_url("**/auth/password/forgot?notice=sent")
    page.goto(_mailed_link(server, page, "/auth/password/reset#token="))
    page.get_by_label("New password").fill("short")
    page.get_by_role("button", name="Change password").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("New password").fill("quite another set of words")
    page.get_by_role("button", name="Change password").click()
    page.wait_for_url("**/auth/sign-in?notice=password-reset")
    sign_in(page, "alice@example.com", "quite another set of words")
    page.wait_for_url("**/account")


def _mailed_link(server: Running, page: Page, mark: str) -> str:
    for _ in range(100):
        found = [word for word in server.output().split() if mark in word and word.startswith("http")]
        if found:
            return found[-1].strip("<>\"'")
        page.wait_for_timeout(100)
    raise AssertionError(f"no mail with {mark}:\n{server.output()}")
