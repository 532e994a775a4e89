"""Starlette: the suite, and what only Starlette has."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import Route

from tests.adapters.starlette_app import StarletteApp
from tests.adapters.starlette_like import StarletteLike, secret_copy
from tests.conformance.adapters import AdapterSuite
from tests.conformance.wire import KEY, send

COVERS = (
    "protection/adapters/starlette/adapter",
    "protection/adapters/starlette/errors",
    "protection/adapters/starlette/hook",
)

pytestmark = pytest.mark.anyio


class TestStarlette(AdapterSuite):
    """The suite on Starlette."""

    make = StarletteApp


class TestStarletteLike(StarletteLike):
    """Route objects and middleware on Starlette."""

    make = StarletteApp


async def test_fastapi_application_inside() -> None:
    """Routes that FastAPI included are entered by another way than Starlette's own."""
    app = StarletteApp()
    ran: list[str] = []

    @app.guard_with_key
    async def marked() -> Any:
        return "secret"

    async def unmarked() -> Any:
        ran.append("unmarked")
        return "secret"

    inner, router = FastAPI(), APIRouter(prefix="/r")
    for place in (inner, router):
        place.add_api_route("/marked", marked)
        place.add_api_route("/unmarked", unmarked)
    inner.include_router(router)
    app.app.mount("/sub", inner)
    app.install()
    for prefix in ("/sub", "/sub/r"):
        assert (await send(app.asgi(), path=f"{prefix}/marked")).status == 401
        assert (await send(app.asgi(), path=f"{prefix}/marked", headers=[KEY])).body == b'"secret"'
        assert (await send(app.asgi(), path=f"{prefix}/unmarked", headers=[KEY])).status == 500
    assert ran == []
    findings = TestStarletteLike().findings(app)
    assert any("GET /sub/r/unmarked" in line for line in findings)
    assert any("/sub/docs" in line for line in findings)


async def test_route_middleware_runs_after_the_guard() -> None:
    from starlette.middleware import Middleware

    ran: list[str] = []

    class Watch:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, sender: Any) -> None:
            ran.append("watch")
            await self.app(scope, receive, sender)

    app = StarletteApp()
    app.app.router.routes.append(Route("/x", app.guard_with_key(secret_copy()), middleware=[Middleware(Watch)]))
    app.install()
    assert (await send(app.asgi(), path="/x")).status == 401
    assert ran == []
    assert (await send(app.asgi(), path="/x", headers=[KEY])).canary
    assert ran == ["watch"]
