"""What only a browser shows: words that do not break, passwords that can be shown, and a way back to where one was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.ui.site import PASSWORD, Site, site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROKEN_WORDS = """() => {
  const broken = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    for (const found of node.textContent.matchAll(/e-mail/gi)) {
      const range = document.createRange();
      range.setStart(node, found.index);
      range.setEnd(node, found.index + found[0].length);
      if (new Set(Array.from(range.getClientRects(), (rect) => Math.round(rect.top))).size > 1) {
        broken.push(node.textContent);
      }
    }
  }
  return broken;
}"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("pages")) as started:
        yield started


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()


def sign_up(page: Page, email: str) -> None:
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    press(page, "Create account")
    page.wait_for_url("**/auth/sign-in?notice=signed-up**")


def sign_in(page: Page, email: str, password: str = PASSWORD) -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    press(page, "Sign in")


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_newcomer_ends_where_he_wanted_to_go(running: Site, browser: Browser, scripts: bool) -> None:
    email = f"wants-{scripts}@example.com".lower()
    page = running.page(browser, java_script_enabled=scripts)
    page.goto(f"{running.url}/me?a=1")
    page.wait_for_url("**/auth/sign-in?next=/me%3Fa%3D1")
    page.get_by_role("link", name="Create an account").click()
    sign_up(page, email)
    link = running.inbox.link(email, "email/verify")
    mail = page.context.new_page()
    mail.goto(link)
    if not scripts:
        mail.get_by_label("Link from our mail").fill(link)
    press(mail, "Confirm address")
    mail.wait_for_url("**/auth/sign-in?notice=email-verified&next=/me%3Fa%3D1")
    sign_in(mail, email)
    mail.wait_for_url(f"{running.url}/me?a=1")
    # The page that was left open goes there as well.
    page.reload()
    page.wait_for_url(f"{running.url}/me?a=1")

    mail.goto(link)
    if not scripts:
        mail.get_by_label("Link from our mail").fill(link)
    press(mail, "Confirm address")
    mail.get_by_role("heading", name="This link no longer works").wait_for()
    mail.get_by_role("link", name="Send me a new link").click()
    mail.get_by_label("E-mail address").fill(email)
    press(mail, "Send the link")
    mail.wait_for_url("**/account?notice=sent")


def test_a_forgotten_password_leads_on_too(running: Site, browser: Browser) -> None:
    email = "forgot@example.com"
    page = running.page(browser)
    page.goto(f"{running.url}/auth/sign-up")
    sign_up(page, email)
    page.goto(f"{running.url}/me?b=2")
    page.get_by_role("link", name="Forgot your password?").click()
    page.get_by_label("E-mail address").fill(email)
    press(page, "Send the link")
    page.wait_for_url("**/auth/password/forgot?notice=sent&next=/me%3Fb%3D2")
    page.goto(running.inbox.link(email, "password/reset"))
    page.get_by_label("New password").fill("quite another set of words")
    press(page, "Change password")
    page.wait_for_url("**/auth/sign-in?notice=password-reset&next=/me%3Fb%3D2")
    sign_in(page, email, "quite another set of words")
    page.wait_for_url(f"{running.url}/me?b=2")


def test_a_password_can_be_shown(running: Site, browser: Browser) -> None:
    page = running.page(browser)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{running.url}/auth/sign-in")
    password = page.get_by_label("Password")
    password.fill("typed so far")
    assert password.get_attribute("type") == "password"
    show = page.get_by_role("button", name="Show password")
    # By the keyboard: the next stop after the field.
    password.press("Tab")
    assert show.evaluate("(it) => it === document.activeElement")
    page.keyboard.press("Enter")
    assert password.get_attribute("type") == "text"
    assert password.input_value() == "typed so far"
    assert page.get_by_text("Your password is visible.").count() == 1
    page.get_by_role("button", name="Hide password").click()
    assert password.get_attribute("type") == "password"
    assert page.get_by_text("Your password is hidden.").count() == 1

    # What is sent is sent as a password, and what comes back is hidden and empty.
    show.click()
    page.evaluate(
        """() => document.querySelector("form.stack").addEventListener("submit", () =>
            sessionStorage.setItem("kind", document.getElementById("password").type))"""
    )
    page.get_by_label("E-mail address").fill("nobody@example.com")
    press(page, "Sign in")
    page.get_by_role("alert").wait_for()
    assert page.evaluate("sessionStorage.getItem('kind')") == "password"
    assert page.get_by_label("Password").get_attribute("type") == "password"
    assert [text for text in complaints if "status of 40" not in text] == []

    page.goto(f"{running.url}/auth/sign-up")
    page.get_by_role("button", name="Show password").click()
    assert page.get_by_label("Password").get_attribute("type") == "text"
    without = running.page(browser, java_script_enabled=False)
    without.goto(f"{running.url}/auth/sign-in")
    assert not without.get_by_role("button", name="Show").is_visible()


def test_the_two_passwords_of_a_page_are_shown_one_by_one(running: Site, browser: Browser) -> None:
    page = running.page(browser)
    page.goto(f"{running.url}/auth/sign-up")
    sign_up(page, "two@example.com")
    page.goto(running.inbox.link("two@example.com", "email/verify"))
    press(page, "Confirm address")
    page.wait_for_url("**/auth/sign-in**")
    sign_in(page, "two@example.com")
    page.goto(f"{running.url}/account/password")
    page.get_by_role("button", name="Show new password").click()
    assert page.get_by_label("New password").get_attribute("type") == "text"
    assert page.get_by_label("Current password").get_attribute("type") == "password"
    for path in ("/account", "/account/email"):
        check_words(page, f"{running.url}{path}")


def check_words(page: Page, url: str) -> None:
    page.goto(url)
    for width in range(240, 480, 6):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate(BROKEN_WORDS) == [], width


@pytest.mark.parametrize("path", ["sign-in", "sign-up", "password/forgot", "email/verify", "email/resend"])
def test_no_line_breaks_within_a_word(running: Site, browser: Browser, path: str) -> None:
    """At any width: `e-` at the end of a line and `mail` on the next."""
    page = running.page(browser)
    check_words(page, f"{running.url}/auth/{path}")
    # Nor does anything stand out of the page on a narrow screen.
    page.set_viewport_size({"width": 320, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_too_many_tries_keep_the_address(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> None:
    limited = tmp_path_factory.mktemp("limited")
    with site(limited, ROUTEGUARD_TRAFFIC_SIGN_IN="1/hour") as running:
        page = running.page(browser)
        page.goto(f"{running.url}/auth/sign-in?next=/me")
        for _ in range(3):
            sign_in(page, "ada@example.com", "not the password")
            page.get_by_role("alert").wait_for()
        assert page.get_by_role("alert").get_by_text("Too many tries. Try again in").is_visible()
        assert page.get_by_label("E-mail address").input_value() == "ada@example.com"
        assert page.get_by_label("Password").input_value() == ""
        assert page.locator("input[name=next]").get_attribute("value") == "/me"
