"""HDR: what every answer says, whatever it is an answer to."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles

from routeguard import public
from tests.attacks.test_az import filled, fresh, hit
from tests.attacks.world import Browser, World, good_body
from tests.conformance.wire import Result

pytestmark = pytest.mark.anyio

ONCE = (
    "content-security-policy",
    "x-content-type-options",
    "referrer-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
)
JSON = ("content-type", "application/json")
PAGE = (("accept", "text/html"), ("sec-fetch-mode", "navigate"))


def assert_headers(answer: Result, *, https: bool = False) -> None:
    counted = Counter(name.decode() for name, _ in answer.headers)
    for name in ONCE:
        assert counted[name] == 1, (name, counted[name], answer.status, answer.headers)
    assert counted["strict-transport-security"] == (1 if https else 0)
    assert counted["x-frame-options"] <= 1
    assert counted["x-xss-protection"] == 0
    assert counted["server"] == 0
    assert counted["x-powered-by"] == 0
    assert answer.header("x-content-type-options") == "nosniff"
    policy = answer.header("content-security-policy") or ""
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    for name in ("content-type", "content-length", "cache-control", "location"):
        assert counted[name] <= 1, name


async def test_every_route_of_the_example(world: World) -> None:
    """HDR-01, HDR-03: as a guest and signed in, as a program and as a browser, well asked and badly."""
    seen: set[int] = set()
    for row in world.routes():
        for browser in (Browser(world), await world.browser("alice")):
            for more, body in (
                ((JSON,), good_body(row.path)),
                ((JSON,), b"{"),
                (PAGE, b""),
                ((("origin", "null"),), b""),
                ((("content-type", "text/plain"),), b"{}"),
            ):
                answer = await browser.ask(row.method, filled(row.path, "x"), *more, body=body)
                assert_headers(answer)
                seen.add(answer.status)
    assert {200, 201, 202, 204, 303, 400, 401, 403, 404, 415, 422} <= seen


@pytest.fixture(scope="module")
async def odd(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    """An application with every kind of answer."""
    folder = tmp_path_factory.mktemp("static")
    (folder / "a.txt").write_text("a")
    async with fresh(world) as (app, guard):

        @app.get("/stream")
        @guard(public)
        async def stream() -> StreamingResponse:
            async def parts() -> Any:
                yield b"a"
                yield b"b"

            return StreamingResponse(parts())

        @app.get("/redirect")
        @guard(public)
        async def redirect() -> RedirectResponse:
            return RedirectResponse("/stream")

        @app.get("/broken")
        @guard(public)
        async def broken() -> None:
            raise ZeroDivisionError

        @app.get("/own")
        @guard(public)
        async def own() -> Response:
            policy = "default-src 'none'; frame-ancestors 'none'; sandbox"
            kept = {"content-security-policy": policy, "referrer-policy": "no-referrer"}
            return Response("own", headers=kept)

        @app.get("/status/{code}")
        @guard(public)
        async def status(code: int) -> Response:
            return Response(status_code=code)

        app.mount("/static", guard(public)(StaticFiles(directory=folder)))
        yield app


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/stream", 200),
        ("/redirect", 307),
        ("/broken", 500),
        ("/static/a.txt", 200),
        ("/static/none", 404),
        ("/none", 404),
        ("/status/304", 304),
        ("/status/204", 204),
        ("/status/418", 418),
        ("/status/503", 503),
        ("/status/x", 422),
    ],
)
async def test_every_kind_of_answer(world: World, odd: FastAPI, path: str, status: int) -> None:
    """HDR-01: streams, redirects, files, errors, and answers without a body."""
    answer = await hit(odd, path, Browser(world))
    assert answer.status == status, answer.body
    assert_headers(answer)


async def test_a_file_that_did_not_change(world: World, odd: FastAPI) -> None:
    """HDR-01: 304 of static files."""
    first = await hit(odd, "/static/a.txt", Browser(world))
    from tests.conformance.wire import send

    tag = (first.header("etag") or "").encode()
    assert tag
    answer = await send(odd, "GET", "/static/a.txt", [(b"if-none-match", tag)])
    assert answer.status == 304
    assert_headers(answer)


async def test_a_handler_may_say_it_better(world: World, odd: FastAPI) -> None:
    """HDR-02: its own policy stands, alone."""
    answer = await hit(odd, "/own", Browser(world))
    assert_headers(answer)
    assert (answer.header("content-security-policy") or "").endswith("sandbox")


async def test_over_https_everything_says_so(tmp_path: Any) -> None:
    """HDR-01: HSTS where browsers see https, and only there."""
    async with World.open(tmp_path, issuer="https://id.example.com") as world:
        for path in ("/", "/api/me", "/none", "/auth/sign-in", "/healthz"):
            assert_headers(await world.ask("GET", path), https=True)


async def test_pages_let_nothing_in(world: World) -> None:
    """HDR-01, HDR-06: a new nonce in each page, no inline script, no foreign form; data is for its own origin."""
    nonces = set()
    for path in ("/", "/auth/sign-in", "/auth/sign-up", "/auth/password/forgot", "/auth/password/reset?token=a.b") * 2:
        answer = await Browser(world).get(path, *PAGE)
        policy = answer.header("content-security-policy") or ""
        assert "unsafe" not in policy
        assert "form-action 'self'" in policy
        nonces.add(policy.partition("'nonce-")[2].partition("'")[0])
        assert answer.header("cross-origin-resource-policy") == "same-origin"
        assert b" onclick=" not in answer.body
        assert b" style=" not in answer.body
    assert len(nonces) == 10
