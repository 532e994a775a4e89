"""CSRF: what a foreign page can make a browser do, against every route of the example application."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routeguard import public
from routeguard.protection.traffic.csrf import unsafe_without_csrf
from tests.attacks.test_az import filled, fresh, hit
from tests.attacks.world import COOKIE, ORIGIN, Browser, World, good_body
from tests.conformance.wire import Result, send

pytestmark = pytest.mark.anyio

FORGED: dict[str, list[tuple[str, str]]] = {
    "CSRF-01 cross-site": [("sec-fetch-site", "cross-site")],
    "CSRF-01 sibling": [("sec-fetch-site", "same-site"), ("origin", "http://evil.127.0.0.1:8000")],
    "CSRF-03 foreign Origin": [("origin", "https://evil.example")],
    "CSRF-03 null": [("origin", "null")],
    "CSRF-06 other scheme": [("origin", "https://127.0.0.1:8000")],
    "CSRF-07 suffix": [("origin", "http://127.0.0.1:8000.evil.example")],
    "CSRF-07 prefix": [("origin", "http://evil127.0.0.1:8000")],
    "CSRF-07 other port": [("origin", "http://127.0.0.1:8001")],
    "CSRF-07 no port": [("origin", "http://127.0.0.1")],
    "CSRF-07 trailing dot": [("origin", "http://127.0.0.1.:8000")],
    "CSRF-07 upper case": [("origin", "HTTP://127.0.0.1:8000")],
    "CSRF-07 userinfo": [("origin", "http://127.0.0.1:8000@evil.example")],
    "CSRF-07 no protocol": [("origin", "127.0.0.1:8000")],
    "CSRF-07 list": [("origin", "http://127.0.0.1:8000 https://evil.example")],
    "CSRF-07 path": [("origin", "http://127.0.0.1:8000/")],
    "CSRF-15 equal cookie and field": [("x-csrf-token", "A" * 64), ("cookie", "routeguard-csrf=" + "A" * 64)],
    "CSRF-19 malformed": [("x-csrf-token", "NaN.NaN")],
    "CSRF-19 empty": [("x-csrf-token", "")],
    "nothing at all": [],
}


def of(browser: Browser, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    cookies = "; ".join(
        [f"{name}={value}" for name, value in browser.cookies.items()]
        + [value for name, value in fields if name == "cookie"]
    )
    rest = [(name, value) for name, value in fields if name != "cookie"]
    return [("host", "127.0.0.1:8000"), ("cookie", cookies or "a=b"), *rest]


@pytest.mark.parametrize("case", FORGED)
async def test_no_foreign_page_changes_anything(world: World, case: str) -> None:
    """Every unsafe route, signed in and as a guest (login CSRF), as JSON and as a form: 403, and no row changes."""
    alice = await world.browser("alice")
    before = await world.rows()
    refused = 0
    for row in world.routes():
        # No browser can be made to sign a call as a registered client.
        if row.method in {"GET", "HEAD"} or "signed by" in row.policy:
            continue
        for browser in (alice, Browser(world)):
            if browser is not alice and "signed in" in row.policy and "anyone" not in row.policy:
                continue  # 401: there is nothing to forge.
            for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
                # There it is the cookie of a token that a foreign page could make a browser send.
                token = [("cookie", "routeguard-access=x")] if row.path == "/auth/token/refresh" else []
                headers = [*of(browser, [*FORGED[case], *token]), ("content-type", kind)]
                answer = await world.ask(row.method, filled(row.path, "x"), headers, body=good_body(row.path))
                # A content type no form could send may be what is refused first.
                assert answer.status in {403, 415}, (row, browser is alice, kind, answer.status)
                assert answer.header("set-cookie") is None
                assert answer.header("access-control-allow-origin") is None
                refused += answer.status == 403
    assert refused > 30
    assert await world.rows() == before


async def test_our_own_pages_do(world: World) -> None:
    """The twin of all above: the same requests from our own origin are let in."""
    for fields in ([("origin", ORIGIN)], [("sec-fetch-site", "same-origin")], [("sec-fetch-site", "none")]):
        alice = await world.browser("alice")
        headers = [*of(alice, fields), ("content-type", "application/json")]
        assert (await world.ask("POST", "/api/invoices", headers, body=good_body("/api/invoices"))).status == 201
        assert (await world.ask("POST", "/auth/sign-out", headers)).status == 204
    # And a client without any of it, with the token.
    alice = await world.browser("alice")
    token = json.loads((await alice.get("/auth/csrf")).body)["csrf_token"]
    headers = [*of(alice, [("x-csrf-token", token)]), ("content-type", "application/json")]
    assert (await world.ask("POST", "/api/invoices", headers, body=good_body("/api/invoices"))).status == 201


async def test_tokens_end_at_sign_in_and_sign_out(world: World) -> None:
    """CSRF-14: over the whole application."""
    guest = Browser(world)
    early = json.loads((await guest.get("/auth/csrf")).body)["csrf_token"]
    sign_in = {"email": "bob@example.com", "password": world.passwords["bob"]}
    world.calm()
    assert (await guest.post("/auth/sign-in", sign_in)).status == 200
    late = json.loads((await guest.get("/auth/csrf")).body)["csrf_token"]

    async def with_token(browser: Browser, token: str) -> int:
        headers = [*of(browser, [("x-csrf-token", token)]), ("content-type", "application/json")]
        return (await world.ask("POST", "/api/invoices", headers, body=good_body("/api/invoices"))).status

    assert await with_token(guest, early) == 403
    assert await with_token(guest, late) == 201
    other = await world.browser("alice")
    assert await with_token(other, late) == 403
    old = Browser(world, dict(guest.cookies))
    await guest.ask("POST", "/auth/sign-out")
    assert await with_token(old, late) == 401
    guest.cookies.pop(COOKIE, None)
    headers = [*of(guest, [("x-csrf-token", late)]), ("content-type", "application/json")]
    assert (await world.ask("POST", "/auth/sign-in", headers, body=good_body("/auth/sign-in"))).status == 403


async def test_reading_changes_nothing(world: World) -> None:
    """CSRF-12: GET, HEAD and OPTIONS of every route, with what would change something beside them."""
    for name in ("alice", "admin"):
        browser = await world.browser(name)
        invoice = json.loads((await browser.post("/api/invoices", {"title": "Paper", "amount": 1})).body)["id"]
        session = json.loads((await browser.get("/auth/sessions")).body)["sessions"][0]["id"]
        before = await world.rows()
        for row in world.routes():
            for method in ("GET", "HEAD", "OPTIONS"):
                for value in (invoice, session):
                    target = f"{filled(row.path, value)}?_method=DELETE&method=POST&confirm=1"
                    answer = await browser.ask(
                        method,
                        target,
                        ("x-http-method-override", "DELETE"),
                        ("content-type", "application/json"),
                        ("x-http-method", "POST"),
                        ("x-method-override", "PUT"),
                        body=good_body(row.path),
                    )
                    assert answer.status < 500
                    if method == "GET" and not any(
                        other.method == "GET" and other.path == row.path for other in world.routes()
                    ):
                        assert answer.status == 405, row
        assert await world.rows() == before
        # The twin: the method itself does.
        assert (await browser.ask("DELETE", f"/api/invoices/{invoice}")).status == 204


@pytest.mark.parametrize("field", ["x-http-method-override", "x-http-method", "x-method-override", "_method"])
async def test_no_field_overrides_the_method(world: World, alice: Browser, field: str) -> None:
    """CSRF-11: the request line's method decides, and a POST stays one."""
    made = json.loads((await alice.post("/api/invoices", {"title": "Paper", "amount": 1})).body)["id"]
    before = await world.rows()
    for method, body in (("POST", b"_method=DELETE"), ("GET", b"")):
        more = (("content-type", "application/x-www-form-urlencoded"), (field.replace("_", "x-"), "DELETE"))
        answer = await alice.ask(method, f"/api/invoices/{made}?_method=DELETE", *more, body=body)
        assert answer.status == (405 if method == "POST" else 200)
    assert await world.rows() == before


async def test_inner_requests_do_not_overrule_the_verdict(world: World, alice: Browser) -> None:
    """CSRF-22: a batch whose parts say they are same-origin; the request that carries them decides."""
    async with fresh(world) as (app, guard):
        ran: list[str] = []

        async def batch(parts: list[dict[str, Any]]) -> list[int]:
            statuses = []
            for part in parts:
                inner = [(name.encode(), value.encode()) for name, value in part["headers"].items()]
                ran.append(part["path"])
                statuses.append((await send(app, "POST", part["path"], inner)).status)
            return statuses

        async def write() -> str:
            ran.append("written")
            return "done"

        app.post("/batch")(guard(guard.session())(batch))
        app.post("/open-batch")(guard(guard.session(), unsafe_without_csrf())(batch_copy(batch)))
        app.post("/write")(guard(guard.session())(write))
        cookie = f"{COOKIE}={alice.cookies[COOKIE]}"
        parts = [{"path": "/write", "headers": {"cookie": cookie, "sec-fetch-site": "same-origin", "origin": ORIGIN}}]

        async def ask(path: str, **fields: str) -> Result:
            raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
            raw += [(b"cookie", cookie.encode()), (b"content-type", b"application/json")]
            return await send(app, "POST", path, raw, json.dumps(parts).encode())

        assert (await ask("/batch", sec_fetch_site="cross-site")).status == 403
        assert ran == []
        # The twins: from our own page, and with the check taken away.
        assert json.loads((await ask("/batch", sec_fetch_site="same-origin")).body) == [200]
        assert ran == ["/write", "written"]
        assert (await ask("/open-batch", sec_fetch_site="cross-site")).status == 200


def batch_copy(handler: Any) -> Any:
    async def again(parts: list[dict[str, Any]]) -> list[int]:
        found: list[int] = await handler(parts)
        return found

    return again


async def test_an_exemption_is_a_handler_and_no_pattern(world: World, alice: Browser) -> None:
    """CSRF-23: no spelling of the exempt path exempts another handler, and the matrix lists each exemption."""
    async with fresh(world) as (app, guard):

        @app.post("/webhooks/in")
        @guard(guard.session(), unsafe_without_csrf())
        async def exempt() -> str:
            return "exempt"

        @app.post("/webhooks/{name}/settings")
        @guard(guard.session())
        async def settings(name: str) -> str:
            return "settings"

        @app.post("/{rest:path}")
        @guard(guard.session())
        async def rest(rest: str) -> str:
            return "rest"

        evil = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}

        async def forged(path: str) -> Result:
            raw = [(name.encode(), value.encode()) for name, value in evil.items()]
            raw.append((b"cookie", f"{COOKIE}={alice.cookies[COOKIE]}".encode()))
            return await send(app, "POST", path, raw)

        assert (await forged("/webhooks/in")).body == b'"exempt"'
        for path in (
            "/webhooks/in/settings",
            "//webhooks/in",
            "/webhooks//in",
            "/webhooks/in/",
            "/webhooks/in/../x",
            "/Webhooks/in",
            "/webhooks/IN",
            "/webhooks/in;x",
            "/webhooks/in%2fx",
            "/x/../webhooks/in",
            "/webhooks/./in",
            "/webhooks",
            "/webhooks/",
            "/webhooks/in.json",
            "/webhooks/in%00",
            "/",
        ):
            answer = await forged(path)
            assert answer.status in {403, 404, 307}, (path, answer.status, answer.body)
            assert b"rest" not in answer.body
        listed = [row for row in guard.matrix() if "NO CSRF CHECK" in row.policy]
        assert [row.path for row in listed] == ["/webhooks/in"]
        raw = [(b"origin", ORIGIN.encode()), (b"cookie", f"{COOKIE}={alice.cookies[COOKIE]}".encode())]
        assert (await send(app, "POST", "/webhooks/x/settings", raw)).body == b'"settings"'


async def test_a_page_may_not_ask_first(world: World, alice: Browser) -> None:
    """CSRF-21: a preflight gets no leave from any route, and no route answers a foreign page with one."""
    for row in world.routes():
        for origin in ("https://evil.example", "null", "http://127.0.0.1x8000", "http://evil127.0.0.1:8000"):
            headers = [
                ("origin", origin),
                ("access-control-request-method", row.method),
                ("cookie", "a=b"),
                ("access-control-request-headers", "content-type, x-csrf-token"),
            ]
            answer = await world.ask("OPTIONS", filled(row.path, "x"), headers)
            assert answer.status in {400, 401, 403, 404, 405}, (row, answer.status)
            assert not any(name.startswith(b"access-control-") for name, _ in answer.headers)
    answer = await alice.ask("GET", "/api/me", origin="https://evil.example")
    assert not any(name.startswith(b"access-control-") for name, _ in answer.headers)
    assert answer.header("cross-origin-resource-policy") == "same-origin"


async def test_public_routes_with_state_are_checked_too(world: World) -> None:
    """CSRF-01 as login CSRF: no row of the matrix that changes state is without the check, but by its name."""
    for row in world.routes():
        if row.method not in {"GET", "HEAD"} and "signed by" not in row.policy:
            assert "CSRF" in row.policy, row
    async with fresh(world) as (app, guard):

        @app.post("/open")
        @guard(public)
        async def open_to_all() -> str:
            return "open"

        # Without a session policy there is no ambient credential to borrow: `public` is what it says.
        assert (await hit(app, "/open", Browser(world), "POST")).status == 200
