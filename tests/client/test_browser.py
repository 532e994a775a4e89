"""The browser module in a real browser: one page, several tabs, and what must not leave them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.client.conftest import PASSWORD, PATIENCE, Service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Route

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install the package `chromium`")

REFRESH = "/auth/token/refresh"
STEP_UP = {"type": "https://example.org/problems/step-up-required", "status": 401, "max_age": 300, "acr_values": "a b"}
SIGN_IN = f"client.signIn({{ email: 'ada@example.com', password: '{PASSWORD}' }})"
WITHOUT = """
  Object.defineProperty(Navigator.prototype, 'locks', { value: undefined });
  window.BroadcastChannel = undefined;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def context(browser: Browser, service: Service) -> Iterator[BrowserContext]:
    made = browser.new_context(base_url=service.url)
    made.set_default_timeout(60_000)
    yield made
    made.close()


def tab(context: BrowserContext, options: str = "") -> Page:
    """Open a page with `client` in it."""
    page = context.new_page()
    page.goto("/page")
    page.evaluate(
        f"""async () => {{
            const module = await import('/auth/client.js');
            window.client = module.createClient({options});
            window.createClient = module.createClient;
            window.post = (path, body) => client.fetch(path, {{ method: 'POST', body }});
        }}"""
    )
    return page


def signed_in(context: BrowserContext, service: Service, options: str = "") -> Page:
    page = tab(context, options)
    page.evaluate(SIGN_IN)
    service.seen.clear()
    return page


def cookies(context: BrowserContext) -> dict[str, Any]:
    return {one["name"]: one for one in context.cookies()}


def caught(page: Page, expression: str) -> dict[str, Any]:
    """Return what an expression throws."""
    found: dict[str, Any] = page.evaluate(
        f"""() => ({expression}).then(
            () => ({{ name: 'nothing' }}),
            ({{ name, status, code, detail, retryAfter }}) => ({{ name, status, code, detail, retryAfter }}),
        )"""
    )
    return found


def test_the_module_is_served_to_everybody_and_kept_by_caches(service: Service) -> None:
    with httpx2.Client(base_url=service.url, timeout=PATIENCE) as client:
        served = client.get("/auth/client.js")
        assert served.status_code == 200
        assert served.headers["content-type"] == "text/javascript; charset=utf-8"
        assert served.headers["cache-control"] == "public, max-age=3600"
        assert served.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in served.headers
        assert "export function createClient" in served.text
        tag = served.headers["etag"]
        for sent, status in ((tag, 304), (f'"x", W/{tag}', 304), ("*", 304), ('"x"', 200), (tag[1:-1], 200)):
            answer = client.get("/auth/client.js", headers={"if-none-match": sent})
            assert (answer.status_code, answer.headers["etag"]) == (status, tag)
            assert answer.content == (b"" if status == 304 else served.content)
        assert client.head("/auth/client.js").headers["etag"] == tag
        assert client.post("/auth/client.js").status_code == 405


@needs_browser
def test_a_life_of_a_session(context: BrowserContext, service: Service) -> None:
    page = tab(context)
    assert page.evaluate("client.session()") is None
    assert page.evaluate("client.session()") is None
    assert len(service.calls(REFRESH)) == 1, "a guest has nothing to renew, and that is asked once"
    assert page.evaluate(f"client.signUp({{ email: 'b@example.com', password: '{PASSWORD}', name: 'B' }})") is None
    wrong = caught(page, "client.signIn({ email: 'ada@example.com', password: 'wrong' })")
    assert (wrong["name"], wrong["status"], wrong["code"]) == ("Problem", 401, "invalid-credentials")
    assert page.evaluate(SIGN_IN)["user"]["email"] == "ada@example.com"
    assert page.evaluate("client.session()")["user"]["name"] == "ada"
    assert page.evaluate("client.refresh()") is True
    page.evaluate("client.signOut()")
    assert page.evaluate("client.session()") is None
    assert page.evaluate("client.refresh()") is False


@needs_browser
def test_no_script_can_read_a_token(context: BrowserContext, service: Service) -> None:
    """CK-03, SES-22: tokens are in HttpOnly cookies, never in the stores of scripts."""
    page = signed_in(context, service)
    assert page.evaluate("client.refresh()") is True
    found = cookies(context)
    assert {"routeguard", "routeguard-access", "routeguard-refresh"} <= found.keys()
    assert [name for name, cookie in found.items() if not cookie["httpOnly"]] == []
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]


@needs_browser
def test_a_socket_is_opened_with_a_ticket(context: BrowserContext, service: Service) -> None:
    page = signed_in(context, service)
    greeting = """(socket) => new Promise((done, fail) => {
        socket.onmessage = (event) => done([event.data, socket.protocol]);
        socket.onerror = fail;
    })"""
    said = page.evaluate(f"client.socket('/ws/greet', ['chat']).then({greeting})")
    assert said == ["ada@example.com", "routeguard"]
    # The ticket alone is the credential: no cookie goes along.
    request = "{ method: 'POST', json: { path: '/ws/greet' } }"
    ticket = page.evaluate(f"client.fetch('/auth/ticket', {request}).then((r) => r.json())")["ticket"]
    context.clear_cookies()
    opened = f"Promise.resolve(new WebSocket('/ws/greet', ['routeguard', 'routeguard.ticket.{ticket}']))"
    assert page.evaluate(f"{opened}.then({greeting})") == ["ada@example.com", "routeguard"]


@needs_browser
def test_unsafe_requests_carry_the_csrf_token(context: BrowserContext, service: Service) -> None:
    """CSRF-08: fetched once, and anew when the session it belonged to has gone."""
    page = signed_in(context, service)
    both = page.evaluate("Promise.all(['a', 'b'].map((it) => post('/api/strict', it).then((r) => r.json())))")
    assert both == [{"got": "a"}, {"got": "b"}]
    assert len(service.calls("/auth/csrf")) == 1
    assert page.evaluate("client.fetch('/api/me').then((r) => r.status)") == 200
    assert "x-csrf-token" not in service.calls("/api/me")[0]
    # Another session in the same browser, begun by a page that has no client.
    answer = context.request.post(
        "/auth/sign-in", data={"email": "bob@example.com", "password": PASSWORD}, headers={"origin": service.url}
    )
    assert answer.status == 200
    assert page.evaluate("post('/api/strict', 'again').then((r) => r.json())") == {"got": "again"}
    assert len(service.calls("/auth/csrf")) == 2
    assert len(service.calls("/api/strict")) == 4


@needs_browser
def test_nothing_of_ours_goes_to_another_origin(context: BrowserContext, service: Service) -> None:
    """CSRF-21: not with a request of its own, and not behind a redirect."""
    page = signed_in(context, service)
    page.evaluate("post('/api/strict', 'a')")
    other = service.url.replace("127.0.0.1", "localhost")
    assert caught(page, f"post('{other}/api/probe', 'x')")["name"] == "TypeError"
    [headers] = service.calls("/api/probe")
    assert headers.keys().isdisjoint({"x-csrf-token", "authorization", "cookie"})
    assert caught(page, f"post('/api/away?to={other}/api/probe', 'x')")["name"] == "TypeError"
    assert len(service.calls("/api/probe")) == 1
    for base in (other, "https://id.example.com/"):
        assert page.evaluate(
            f"(() => {{ try {{ createClient({{ base: '{base}' }}) }} catch (e) {{ return e.name }} }})()"
        )


@needs_browser
@pytest.mark.parametrize("tabs", [1, 5], ids=["one tab", "five tabs"])
def test_tokens_are_renewed_once(context: BrowserContext, service: Service, tabs: int) -> None:
    """SES-12: five requests refused at the same moment, one rotation, and each is made again with its body."""
    first = signed_in(context, service)
    pages = [first, *(tab(context) for _ in range(tabs - 1))]
    service.seen.clear()
    # Browsers open six connections to a server, for all tabs together.
    service.stale, service.together = cookies(context)["routeguard-access"]["value"], 5
    for number, page in enumerate(pages):
        bodies = json.dumps([f"{number}-{one}" for one in range(5 // tabs)])
        page.evaluate(
            f"""() => {{
                const got = (r) => r.json();
                window.answers = Promise.all({bodies}.map((it) => post('/api/probe', it).then(got)));
            }}"""
        )
    got = [answer["got"] for page in pages for answer in page.evaluate("answers")]
    assert got == [f"{number}-{one}" for number in range(tabs) for one in range(5 // tabs)]
    assert len(service.calls(REFRESH)) == 1
    assert len(service.calls("/api/probe")) == 10
    assert first.evaluate("client.session()")["user"]["email"] == "ada@example.com"


@needs_browser
def test_old_browsers_renew_once_in_each_tab(context: BrowserContext, service: Service) -> None:
    context.add_init_script(WITHOUT)
    page = signed_in(context, service)
    service.stale, service.together = cookies(context)["routeguard-access"]["value"], 5
    got = page.evaluate("Promise.all([1, 2, 3, 4, 5].map((it) => post('/api/probe', it).then((r) => r.status)))")
    assert got == [200] * 5
    assert len(service.calls(REFRESH)) == 1


@needs_browser
def test_an_outage_is_told_as_one(context: BrowserContext, service: Service) -> None:
    """AZ-16: a 401 that could not be mended because the service was away does not mean signed out."""
    page = signed_in(context, service)
    service.stale = cookies(context)["routeguard-access"]["value"]
    problem = {"type": "https://example.org/problems/temporarily-unavailable", "status": 503, "detail": "Try again."}

    def away(route: Route) -> None:
        route.fulfill(
            status=503,
            headers={"retry-after": "7", "content-type": "application/problem+json"},
            body=json.dumps(problem),
        )

    page.route(f"**{REFRESH}", away)
    told = "client.fetch('/api/probe').then(async (r) => [r.status, (await r.json()).detail])"
    both = f"Promise.all([1, 2].map(() => {told}))"
    assert page.evaluate(both) == [[503, "Try again."]] * 2
    thrown = caught(page, "client.refresh()")
    assert (thrown["status"], thrown["code"], thrown["retryAfter"]) == (503, "temporarily-unavailable", 7)
    page.unroute(f"**{REFRESH}")
    assert page.evaluate("client.fetch('/api/probe').then((r) => r.status)") == 200


@needs_browser
def test_an_answer_that_was_lost_is_asked_for_again(context: BrowserContext, service: Service) -> None:
    """SES-13."""
    page = signed_in(context, service)
    lost: list[int] = []

    def lose(route: Route) -> None:
        if lost:
            route.continue_()
            return
        lost.append(route.fetch().status)
        route.abort()

    page.route(f"**{REFRESH}", lose)
    assert page.evaluate("client.refresh()") is True
    assert lost == [200]
    assert page.evaluate("client.session()")["user"]["name"] == "ada"


@needs_browser
def test_stepping_up_is_reported_and_the_request_made_once_more(context: BrowserContext, service: Service) -> None:
    page = signed_in(context, service)
    refused: list[str] = []

    def once(route: Route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.method)
        route.fulfill(status=401, content_type="application/problem+json", body=json.dumps(STEP_UP))

    page.route("**/api/strict", once)
    assert page.evaluate("post('/api/strict', 'x').then((r) => r.status)") == 401
    refused.clear()
    page.evaluate(
        """() => {
            window.asked = [];
            window.forget = client.onStepUp(({ maxAge, acrValues }) => {
                asked.push([maxAge, acrValues]);
                return Promise.resolve(true);
            });
        }"""
    )
    assert page.evaluate("post('/api/strict', 'x').then((r) => r.json())") == {"got": "x"}
    assert page.evaluate("asked") == [[300, ["a", "b"]]]
    # The real thing, which no proof is new enough for: asked once, repeated once, then the caller's to deal with.
    assert page.evaluate("post('/api/transfer').then((r) => r.status)") == 401
    assert page.evaluate("asked.length") == 2
    assert len(service.calls("/api/transfer")) == 2
    assert service.calls(REFRESH) == []
    page.evaluate("forget()")
    page.evaluate("post('/api/transfer')")
    assert page.evaluate("asked.length") == 2


@needs_browser
def test_tokens_may_live_in_the_memory_of_one_page(context: BrowserContext, service: Service) -> None:
    page = signed_in(context, service, "{ keep: 'memory' }")
    assert cookies(context).keys().isdisjoint({"routeguard-access", "routeguard-refresh"})
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    assert page.evaluate("Object.values(client).every((it) => typeof it === 'function')")
    refused: list[str] = []

    def once(route: Route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.headers["authorization"])
        route.fulfill(status=401, body="")

    page.route("**/api/me", once)
    answers = "Promise.all([1, 2].map(() => client.fetch('/api/me').then((r) => r.json())))"
    assert page.evaluate(answers) == [{"email": "ada@example.com"}] * 2
    assert len(service.calls(REFRESH)) == 1
    assert service.calls("/api/me")[-1]["authorization"] != refused[0]
    page.evaluate("client.signOut()")
    assert page.evaluate("client.session()") is None


@needs_browser
def test_other_tabs_hear_who_signs_in_and_out(context: BrowserContext, service: Service) -> None:
    page, other = tab(context), tab(context)
    other.evaluate("() => { window.heard = []; client.onChange((change) => heard.push(change)); }")
    page.evaluate(SIGN_IN)
    other.wait_for_function("heard.length === 1")
    assert other.evaluate("client.session()")["user"]["name"] == "ada"
    page.evaluate("client.signOut()")
    other.wait_for_function("heard.length === 2")
    assert other.evaluate("heard") == ["signed-in", "signed-out"]
    assert other.evaluate("client.session()") is None


def test_the_example_of_the_docs_runs_under_our_own_policy(context: BrowserContext, service: Service) -> None:
    page = context.new_page()
    with page.expect_response("**/api/invoices") as posted:
        page.goto("/example")
    assert "script-src 'self'" in (page.request.get("/example").headers["content-security-policy"])
    assert posted.value.status == 201
    page.wait_for_function("document.title === 'sent'")


def test_json_is_sent_as_what_it_is(context: BrowserContext, service: Service) -> None:
    page = signed_in(context, service)
    told = "client.fetch('/api/invoices', {}).then(async (r) => [r.status, (await r.json()).detail])"
    assert page.evaluate(told.replace("{}", "{ method: 'POST', json: [1] }"))[0] == 201
    refused = page.evaluate(told.replace("{}", "{ method: 'POST', body: '[1]' }"))
    assert refused == [415, "Accepted here: application/json."]
    both = caught(page, "client.fetch('/api/invoices', { method: 'POST', json: 1, body: '1' })")
    assert both["name"] == "TypeError"
