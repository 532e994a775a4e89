"""Mailed links: their tokens reach no log, opening them uses nothing up, and they work without scripts too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx2 as httpx
import pytest

from tests.ui.site import PASSWORD, Site, site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VERIFY, RESET = "/auth/email/verify", "/auth/password/reset"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("links")) as started:
        yield started


def sign_up(running: Site, email: str) -> str:
    """Make an account over HTTP; return the link that proves the address."""
    body = {"email": email, "password": PASSWORD, "name": ""}
    assert httpx.post(f"{running.url}/auth/sign-up", json=body).status_code == 201
    return running.inbox.link(email, VERIFY)


def forgot(running: Site, email: str) -> str:
    assert httpx.post(f"{running.url}/auth/password/forgot", json={"email": email}).status_code == 202
    return running.inbox.link(email, RESET)


def can_sign_in(running: Site, email: str, password: str = PASSWORD) -> bool:
    answer = httpx.post(f"{running.url}/auth/sign-in", json={"email": email, "password": password})
    return answer.status_code == 200


def token_of(link: str) -> str:
    return link.partition("token=")[2]


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button).click()


def test_a_life_of_an_account_leaves_no_token_in_the_access_log(running: Site, browser: Browser) -> None:
    """ML-14: sign-up, reset and a change of address, each by its link, and no line of uvicorn holds one."""
    email = "logged@example.com"
    page = running.page(browser)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url + repr(sorted(request.all_headers().items()))))
    page.goto(f"{running.url}/auth/sign-up")
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    press(page, "Create account")
    page.wait_for_url("**/auth/sign-in?notice=signed-up")
    links = [running.inbox.link(email, VERIFY)]
    page.goto(links[0])
    # The address bar, and with it the history, holds it no more.
    page.wait_for_url(f"**{VERIFY}")
    assert not page.get_by_label("Link from our mail").is_visible()
    press(page, "Confirm address")
    page.wait_for_url("**/auth/sign-in?notice=email-verified")

    links.append(forgot(running, email))
    page.goto(links[1])
    page.get_by_label("New password").fill("short")
    press(page, "Change password")
    page.get_by_role("alert").wait_for()
    page.get_by_label("New password").fill("quite another set of words")
    press(page, "Change password")
    page.wait_for_url("**/auth/sign-in?notice=password-reset")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill("quite another set of words")
    press(page, "Sign in")
    page.wait_for_url("**/account")

    page.goto(f"{running.url}/account/email")
    page.get_by_label("New e-mail address").fill("moved@example.com")
    page.get_by_label("Your password").fill("quite another set of words")
    press(page, "Send the link")
    page.wait_for_url("**/account?notice=email-change-sent")
    links.append(running.inbox.link("moved@example.com", VERIFY))
    page.goto(links[2])
    press(page, "Confirm address")
    page.wait_for_url("**/account?notice=email-verified")

    output = running.output()
    assert output.count(f'"POST {VERIFY} ') >= 2, "the access log is on"
    for link in links:
        assert len(token_of(link)) > 40
        secret = token_of(link).partition(".")[2]
        assert secret not in output
        assert not [request for request in sent if secret in request]
    assert "token" not in output


def test_links_mailed_by_earlier_versions_work_and_reach_no_log_either(running: Site, browser: Browser) -> None:
    link = sign_up(running, "earlier@example.com").replace("#", "?")
    assert httpx.get(link).status_code == 200
    page = running.page(browser)
    page.goto(link)
    page.wait_for_url(f"**{VERIFY}")
    press(page, "Confirm address")
    page.wait_for_url("**/auth/sign-in?notice=email-verified")
    assert can_sign_in(running, "earlier@example.com")
    assert token_of(link) not in running.output()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_opening_a_link_uses_nothing_up(running: Site, browser: Browser, scripts: bool) -> None:
    """ML-03, ML-04: nor does a scanner that runs scripts; it takes a press of the button."""
    email = f"scanned-{scripts}@example.com".lower()
    link = sign_up(running, email)
    for _ in range(2):
        scanner = running.page(browser, java_script_enabled=scripts)
        scanner.goto(link)
        scanner.get_by_role("button", name="Confirm address").wait_for()
    assert not can_sign_in(running, email)
    page = running.page(browser)
    page.goto(link)
    press(page, "Confirm address")
    page.wait_for_url("**/auth/sign-in?notice=email-verified")
    assert can_sign_in(running, email)


@pytest.mark.parametrize("pasted", ["link", "token", "bracketed"])
def test_without_scripts_the_link_is_pasted(running: Site, browser: Browser, pasted: str) -> None:
    email = f"pasted-{pasted}@example.com"
    link = sign_up(running, email)
    page = running.page(browser, java_script_enabled=False)
    page.goto(link)
    text = {"link": link, "token": token_of(link), "bracketed": f" <{link}> "}[pasted]
    page.get_by_label("Link from our mail").fill(text)
    press(page, "Confirm address")
    page.wait_for_url("**/auth/sign-in?notice=email-verified")

    page.goto(forgot(running, email))
    page.get_by_label("Link from our mail").fill(running.inbox.link(email, RESET))
    page.get_by_label("New password").fill("short")
    press(page, "Change password")
    page.get_by_role("alert").wait_for()
    page.get_by_label("New password").fill("quite another set of words")
    press(page, "Change password")
    page.wait_for_url("**/auth/sign-in?notice=password-reset")
    assert can_sign_in(running, email, "quite another set of words")


def test_a_second_link_in_the_same_tab_counts(running: Site, browser: Browser) -> None:
    """Only the fragment differs, so the page is not loaded again."""
    first, second = sign_up(running, "one@example.com"), sign_up(running, "two@example.com")
    page = running.page(browser)
    page.goto(first)
    page.goto(second)
    page.wait_for_url(f"**{VERIFY}")
    press(page, "Confirm address")
    page.wait_for_url("**/auth/sign-in?notice=email-verified")
    assert (can_sign_in(running, "one@example.com"), can_sign_in(running, "two@example.com")) == (False, True)


def test_a_token_does_not_come_back_with_the_back_button(running: Site, browser: Browser) -> None:
    page = running.page(browser)
    page.goto(f"{running.url}/auth/sign-in")
    link = sign_up(running, "back@example.com")
    page.goto(link)
    page.wait_for_url(f"**{VERIFY}")
    page.goto(f"{running.url}/auth/sign-in")
    page.go_back()
    page.get_by_role("button", name="Confirm address").wait_for()
    assert "token" not in page.url
    assert page.evaluate("history.state") is None


def test_no_page_or_form_puts_a_secret_into_a_url(running: Site) -> None:
    """ML-14: every form posts, and none has a query in its address."""
    for path in ("/auth/sign-in", "/auth/sign-up", "/auth/password/forgot", RESET, VERIFY):
        html = httpx.get(f"{running.url}{path}", headers={"accept": "text/html"}).text
        forms = re.findall(r"<form[^>]*>", html)
        assert forms
        assert all('method="post"' in form and "?" not in form for form in forms)
