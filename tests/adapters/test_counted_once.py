"""A request whose method a middleware changes is counted and run once, also where each method has its own policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router

from routeguard.app import Routeguard
from routeguard.core.policy import BoundCheck, Check, Outcome, Stage
from routeguard.core.problem import PERMISSION_DENIED
from routeguard.protection.traffic.csrf import unsafe_without_csrf
from routeguard.protection.traffic.deduplicate import deduplicate
from routeguard.protection.traffic.idempotent import idempotent
from routeguard.protection.traffic.rate_limit import rate_limit, user
from tests.adapters.test_changed_requests import LAYERS, handler, override, path_of, ran, use
from tests.adapters.test_routeguard import SETTINGS, Person, identify
from tests.conformance.wire import send

if TYPE_CHECKING:
    from starlette.requests import Request

    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

pytestmark = pytest.mark.anyio

OVERRIDE = (b"x-http-method-override", b"POST")
ANN = [(b"x-user", b"ann"), (b"host", b"app.example")]


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@pytest.mark.parametrize("name", LAYERS)
async def test_a_request_counts_once_whose_method_is_changed(name: str) -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = FastAPI(openapi_url=None)
    LAYERS[name](app, guard(guard.session() & rate_limit("1/minute") & unsafe_without_csrf()), override)
    guard.install(app)
    assert (await send(app, path=path_of(name), headers=[*ANN, OVERRIDE])).canary
    assert ran == ["POST"]
    assert (await send(app, path=path_of(name), headers=[*ANN, OVERRIDE])).status == 429


@pytest.mark.parametrize("name", LAYERS)
async def test_a_request_runs_once_whose_unsafe_method_is_changed(name: str) -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = FastAPI(openapi_url=None)
    LAYERS[name](app, guard(guard.session() & idempotent(wait="50 ms") & unsafe_without_csrf()), override)
    guard.install(app)
    headers = [*ANN, (b"idempotency-key", b"k1"), (b"x-http-method-override", b"GET")]
    assert (await send(app, "POST", path=path_of(name), headers=headers)).canary
    assert ran == ["GET"]


@dataclass(frozen=True)
class Plan(Check):
    """Spends something of a plan; equal to the check of any other plan."""

    stage = Stage.ACCESS
    once = True

    role: str = field(compare=False)

    def bind(self, services: Services) -> BoundCheck:
        async def asked(exchange: Exchange) -> Outcome:
            person = getattr(exchange.principal, "user", None)
            return None if isinstance(person, Person) and person.role == self.role else PERMISSION_DENIED()

        return asked


async def test_a_limit_that_only_equals_that_of_the_other_method_is_asked_too() -> None:
    """AZ-16: what let the GET pass is no leave for the POST that a middleware makes of it."""
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)

    class View(HTTPEndpoint):
        @guard(guard.session(), Plan("member"))
        async def get(self, request: Request) -> Response:
            return await handler(request)

        @guard(guard.session(), Plan("admin"), unsafe_without_csrf())
        async def post(self, request: Request) -> Response:
            return await handler(request)

    app = Starlette(routes=[Route("/x", View, middleware=use(override))])
    guard.install(app)
    assert (await send(app, path="/x", headers=ANN)).canary
    assert (await send(app, path="/x", headers=[*ANN, OVERRIDE])).status == 403
    assert ran == ["GET"]


async def test_methods_of_a_class_that_share_a_limit() -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    limit = rate_limit("1/minute", by=user)

    class View(HTTPEndpoint):
        @guard(guard.session() & limit)
        async def get(self, request: Any) -> Response:
            return await handler(request)

        @guard(guard.session(user={"role": "admin"}) & limit & unsafe_without_csrf())
        async def post(self, request: Any) -> Response:
            return await handler(request)

    app = FastAPI(openapi_url=None)
    app.router.routes.append(Route("/x", View, middleware=use(override)))
    guard.install(app)
    root = [(b"x-user", b"root"), OVERRIDE]
    assert (await send(app, path="/x", headers=[*ANN, OVERRIDE])).status == 403
    assert (await send(app, path="/x", headers=root)).canary
    assert ran == ["POST"]
    assert (await send(app, path="/x", headers=root)).status == 429


@pytest.mark.parametrize("name", ["idempotent", "deduplicate"])
@pytest.mark.parametrize("inner", ["route", "router", "route with a middleware"])
async def test_a_mount_and_a_route_that_both_run_a_request_once(name: str, inner: str) -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    policy = idempotent(wait="50 ms") if name == "idempotent" else deduplicate(wait="50 ms")
    mark = guard(guard.session() & policy & unsafe_without_csrf())

    async def pay(request: Any) -> Response:
        ran.append(request.method)
        return PlainTextResponse("paid")

    endpoint = pay if inner == "router" else mark(pay)
    middleware = use(lambda scope: scope["headers"].append((b"x-request-id", b"1"))) if "middleware" in inner else None
    served: Any = Router([Route("/x", endpoint, methods=["POST"], middleware=middleware)])
    app = Starlette(routes=[mark(Mount("/at", app=mark(served) if inner == "router" else served))])
    guard.install(app)
    headers = [*ANN, (b"idempotency-key", b"k1")]
    first = await send(app, "POST", "/at/x", headers)
    assert (first.status, first.body, ran) == (200, b"paid", ["POST"])
    again = await send(app, "POST", "/at/x", headers)
    assert (again.status, again.body, len(ran)) == (200, b"paid", 1 if name == "idempotent" else 2)
    if name == "idempotent":
        assert (await send(app, "POST", "/at/x", ANN)).problem == "idempotency-key-missing"
