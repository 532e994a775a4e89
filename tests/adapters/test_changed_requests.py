"""What a middleware passes on is what policies are asked about, on every layer between the edge and the handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router

from routeguard.app import Routeguard
from routeguard.core.policy import Policy, public
from routeguard.core.problem import PERMISSION_DENIED, Problem
from routeguard.protection.adapters.starlette.listing import entries
from routeguard.protection.guard.matrix import verify
from routeguard.protection.traffic.cors import cors
from routeguard.protection.traffic.csrf import unsafe_without_csrf
from routeguard.protection.traffic.idempotent import idempotent
from routeguard.protection.traffic.rate_limit import rate_limit
from tests.adapters.starlette_app import FastAPIApp, StarletteApp
from tests.adapters.test_routeguard import SETTINGS, Person, identify
from tests.conformance.wire import KEY, Does, admin, key, send

if TYPE_CHECKING:
    from collections.abc import Callable

COVERS = ("protection/guard/facts", "protection/guard/layers")

pytestmark = pytest.mark.anyio

ran: list[str] = []


async def handler(request: Request) -> Response:
    ran.append(request.method)
    return PlainTextResponse("secret", headers={"x-canary": "1"})


def fresh() -> Any:
    async def secret(request: Request) -> Response:
        return await handler(request)

    return secret


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


class Changes:
    """A middleware that passes on another request."""

    def __init__(self, app: Any, change: Callable[[Any], Any]) -> None:
        self.app = app
        self.change = change

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(self.change(scope) or scope, receive, send)


def as_function(app: Any, change: Callable[[Any], Any]) -> Any:
    """The same middleware, written as a function."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app(change(scope) or scope, receive, send)

    return middleware


def override(scope: Any) -> None:
    """Do what X-HTTP-Method-Override says."""
    for name, value in scope["headers"]:
        if name == b"x-http-method-override":
            scope["method"] = value.decode()


def use(change: Any) -> list[Middleware]:
    return [Middleware(Changes, change=change)]


def routes(endpoint: Any = None) -> list[Any]:
    return [Route("/x", endpoint or fresh(), methods=["GET", "POST", "DELETE"])]


def sub(change: Any) -> Starlette:
    return Starlette(routes=routes(), middleware=use(change))


def fastapi_sub(change: Any) -> FastAPI:
    app = FastAPI(openapi_url=None, middleware=use(change))
    app.router.routes += routes()
    return app


class Raw:
    """An ASGI application of another make."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        ran.append(scope["method"])
        await PlainTextResponse("secret", headers={"x-canary": "1"})(scope, receive, send)


def fresh_method() -> Any:
    async def secret(self: Any, request: Request) -> Response:
        return await handler(request)

    return secret


def in_marked_router(app: Any, mark: Any, change: Any) -> None:
    router = mark(APIRouter())
    router.mount("/at", sub(change))
    app.include_router(router)


def around_included(app: Any, mark: Any, change: Any) -> None:
    router = mark(APIRouter(prefix="/at"))
    router.add_api_route("/x", fresh(), methods=["GET", "POST"])
    app.include_router(router)
    app.add_middleware(Changes, change=change)


def around_all(app: Any, mark: Any, change: Any) -> None:
    mark(app).router.routes += routes()
    app.add_middleware(Changes, change=change)


def around_inner(app: Any, mark: Any, change: Any) -> None:
    inner = fastapi_sub(change)
    inner.router.routes.clear()
    inner.include_router(mark(APIRouter(routes=routes())))
    app.mount("/at", mark(Starlette(routes=[Mount("/", app=inner)])))


def view() -> Any:
    return type("View", (HTTPEndpoint,), {"get": fresh_method(), "post": fresh_method()})


LAYERS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "middleware of the application": lambda app, mark, change: (
        app.add_middleware(Changes, change=change),
        app.router.routes.extend(routes(mark(fresh()))),
    ),
    "middleware of a mounted application": lambda app, mark, change: app.mount("/at", mark(sub(change))),
    "middleware of a mounted FastAPI": lambda app, mark, change: app.mount("/at", mark(fastapi_sub(change))),
    "middleware of a mount": lambda app, mark, change: app.router.routes.append(
        mark(Mount("/at", routes=routes(), middleware=use(change)))
    ),
    "middleware of a mount of another make": lambda app, mark, change: app.router.routes.append(
        Mount("/at", app=mark(Raw()), middleware=use(change))
    ),
    "middleware around a marked application": lambda app, mark, change: app.mount("/at", Changes(mark(Raw()), change)),
    "middleware around a marked router": lambda app, mark, change: app.mount(
        "/at", Changes(mark(Router(routes())), change)
    ),
    "middleware of a router": lambda app, mark, change: app.mount(
        "/at", mark(Router(routes(), middleware=use(change)))
    ),
    "middleware of a route": lambda app, mark, change: app.router.routes.append(
        Route("/x", mark(fresh()), methods=["GET", "POST"], middleware=use(change))
    ),
    "two middlewares of a route": lambda app, mark, change: app.router.routes.append(
        Route("/x", mark(fresh()), methods=["GET", "POST"], middleware=[*use(lambda _: None), *use(change)])
    ),
    "a function as the middleware of a route": lambda app, mark, change: app.router.routes.append(
        Route("/x", mark(fresh()), methods=["GET", "POST"], middleware=[Middleware(as_function, change=change)])
    ),
    "middleware of a route whose handler is a class": lambda app, mark, change: app.router.routes.append(
        Route("/x", mark(view()), middleware=use(change))
    ),
    "nested mounts": lambda app, mark, change: app.mount(
        "/at", mark(Starlette(routes=[Mount("/deep", app=sub(change))]))
    ),
    "a mount in an included router": in_marked_router,
    "middleware around a marked application below Host": lambda app, mark, change: app.router.routes.append(
        Host("{any:str}", Changes(mark(Raw()), change))
    ),
    "middleware as the endpoint of a route": lambda app, mark, change: app.router.routes.append(
        Route("/x", Changes(mark(Raw()), change))
    ),
    "middleware before an included router": around_included,
    "middleware of a marked application": around_all,
    "middleware of a mount between marked routers": around_inner,
    "Host": lambda app, mark, change: app.router.routes.append(
        Host("{any:str}", mark(Router([Mount("/at", app=sub(change))])))
    ),
}


def path_of(name: str) -> str:
    at = "mount" in name or "router" in name or name in {"Host", "middleware around a marked application"}
    return "/at/deep/x" if name == "nested mounts" else "/at/x" if at else "/x"


FROM_AFAR = [(b"cookie", b"user=ann"), (b"origin", b"https://evil.example"), (b"sec-fetch-site", b"cross-site")]


@pytest.mark.parametrize("name", LAYERS)
async def test_a_get_made_a_post_is_judged_as_a_post(name: str) -> None:
    """The attack: a cross-site link that a method override turns into a POST with the user's cookie."""
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = FastAPI(openapi_url=None)
    LAYERS[name](app, guard(guard.session()), override)
    guard.install(app)
    host = (b"host", b"app.example")
    path = path_of(name)
    forged = await send(app, path=path, headers=[*FROM_AFAR, host, (b"x-http-method-override", b"POST")])
    assert (forged.status, forged.problem, ran) == (403, "forgery-suspected", [])
    assert (await send(app, path=path, headers=[*FROM_AFAR, host])).canary
    own = [(b"cookie", b"user=ann"), (b"origin", b"https://app.example"), host]
    assert (await send(app, path=path, headers=[*own, (b"x-http-method-override", b"POST")])).canary
    assert ran == ["GET", "POST"]


async def test_a_limit_around_the_application_hides_no_change() -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = Starlette(routes=routes(guard(guard.session())(fresh())), middleware=use(override))
    guard(rate_limit("100/minute"))(app)
    guard.install(app)
    forged = await send(app, path="/x", headers=[*FROM_AFAR, (b"x-http-method-override", b"POST")])
    assert (forged.status, forged.problem, ran) == (403, "forgery-suspected", [])
    assert (await send(app, path="/x", headers=FROM_AFAR)).canary


def replace_headers(scope: Any) -> None:
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"x-key"]


def change_headers_in_place(scope: Any) -> None:
    scope["headers"][:] = [(name, b"no" if name == b"x-key" else value) for name, value in scope["headers"]]


def append_header(scope: Any) -> None:
    scope["headers"].append((b"x-key", b"twice"))


def through_starlette(scope: Any) -> None:
    MutableHeaders(scope=scope)["x-key"] = "no"


def copy_scope(scope: Any) -> Any:
    return dict(scope, headers=[pair for pair in scope["headers"] if pair[0] != b"x-key"])


async def only(exchange: Any) -> Problem | None:
    """Let one request in: that of the client as it was sent."""
    request, scope = exchange.request, exchange.request.scope
    seen = (
        request.headers.get(b"x-key"),
        scope["client"][0],
        scope["scheme"],
        scope["query_string"],
        scope["path"][-2:],
    )
    good = seen == (b"ok", "203.0.113.9", "http", b"", "/x") and b"x-key" not in request.repeated
    return None if good else PERMISSION_DENIED()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "headers replaced": replace_headers,
    "headers changed where they are": change_headers_in_place,
    "a header appended": append_header,
    "by MutableHeaders": through_starlette,
    "a copy": copy_scope,
    "client": lambda scope: scope.update(client=("10.0.0.1", 1)),
    "client of a copy": lambda scope: dict(scope, client=("10.0.0.1", 1)),
    "scheme": lambda scope: scope.update(scheme="https"),
    "query": lambda scope: scope.update(query_string=b"admin=1"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", LAYERS)
async def test_every_fact_is_looked_at_again(name: str, change: str) -> None:
    app = FastAPIApp()
    LAYERS[name](app.app, app.guard(Policy.of(Does(only))), CHANGES[change])
    app.install()
    headers = [KEY, (b"host", b"app.example")]
    refused = await send(app.asgi(), path=path_of(name), headers=headers)
    assert (refused.status in {400, 403}, refused.canary, ran) == (True, False, [])
    unchanged = FastAPIApp()
    LAYERS[name](unchanged.app, unchanged.guard(Policy.of(Does(only))), lambda scope: None)
    unchanged.install()
    assert (await send(unchanged.asgi(), path=path_of(name), headers=headers)).canary


async def test_a_rewritten_path_is_asked_about() -> None:
    seen: list[str] = []

    async def look(exchange: Any) -> None:
        seen.append(exchange.request.scope["path"])

    def rewrite(scope: Any) -> None:
        scope["path"] = "/at/x"

    app = StarletteApp()
    app.app.mount("/at", app.guard(Policy.of(Does(look)))(sub(rewrite)))
    app.install()
    assert (await send(app.asgi(), path="/at/other")).canary
    assert seen == ["/at/other", "/at/x"]


async def test_a_parameter_that_a_route_below_takes_again() -> None:
    """`/{org}/{org}`: the handler gets the second, so the policy of the mount is asked about that too."""

    async def member(exchange: Any) -> Problem | None:
        return None if exchange.request.path_params["org"] == "ours" else PERMISSION_DENIED()

    app = StarletteApp()
    inner = Router([Route("/{org}", fresh()), Route("/things/{thing}", fresh())])
    app.app.router.routes.append(app.guard(Policy.of(Does(member)))(Mount("/{org}", app=inner)))
    app.install()
    assert (await send(app.asgi(), path="/theirs/ours")).status == 403
    assert (await send(app.asgi(), path="/ours/theirs")).status == 403
    assert ran == []
    assert (await send(app.asgi(), path="/ours/ours")).canary
    assert (await send(app.asgi(), path="/ours/things/theirs")).canary


async def test_the_policy_of_the_method_that_runs() -> None:
    app = StarletteApp()

    class View(HTTPEndpoint):
        get = app.guard(public)(fresh_method())
        post = app.guard(key)(fresh_method())
        delete = fresh_method()

    app.app.router.routes += [
        Route("/route", View, middleware=use(override)),
        Mount("/mount", app=View, middleware=use(override)),
        Route("/listed", app.guard(public)(fresh()), methods=["GET"], middleware=use(override)),
    ]
    app.install()
    for path in ("/route", "/mount/x"):
        assert (await send(app.asgi(), path=path)).canary
        for method, headers, status in (
            ("POST", [], 401),
            ("POST", [KEY], 200),
            ("DELETE", [KEY], 500),
            ("PURGE", [], 405),
        ):
            sent = [*headers, (b"x-http-method-override", method.encode())]
            assert (await send(app.asgi(), path=path, headers=sent)).status == status, (path, method)
    assert ran == ["GET", "POST", "GET", "POST"]
    assert (await send(app.asgi(), path="/listed", headers=[(b"x-http-method-override", b"POST")])).status == 200


async def test_a_second_caller_is_not_taken_for_the_first() -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)

    def become(scope: Any) -> None:
        scope["headers"] = [(name, b"ann" if name == b"x-user" else value) for name, value in scope["headers"]]

    async def who(request: Request) -> Response:
        return PlainTextResponse((await guard.current_session(request)).user.id)

    def drop(scope: Any) -> None:
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"x-user"]

    whole = Starlette(routes=[Route("/x", fresh())], middleware=use(drop))
    guard(guard.session())(whole)
    Routeguard(SETTINGS, user=Person, identify=identify).install(whole)
    assert (await send(whole, path="/x", headers=[(b"x-user", b"root")])).status == 401
    for marks in (guard.session(), guard.session(user={"role": "admin"})):
        app = Starlette()
        app.mount("/at", guard(marks)(Starlette(routes=[Route("/x", who)], middleware=use(become))))
        guard.install(app)
        answer = await send(app, path="/at/x", headers=[(b"x-user", b"root")])
        assert (answer.status, answer.body == b"ann") == ((200, True) if marks == guard.session() else (403, False))


@pytest.mark.parametrize(
    "name", ["middleware of a mounted application", "middleware of a mount", "middleware of a route"]
)
async def test_a_request_counts_once_and_answers_say_things_once(name: str) -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = FastAPI(openapi_url=None)
    readable = cors(origins=["https://page.example"])
    policy = guard.session() & rate_limit("1/minute") & idempotent() & readable & unsafe_without_csrf()
    LAYERS[name](app, guard(policy), lambda scope: scope["headers"].append((b"x-request-id", b"1")))
    guard.install(app)
    headers = [(b"x-user", b"ann"), (b"idempotency-key", b"k1"), (b"origin", b"https://page.example")]
    answer = await send(app, "POST", path_of(name), headers)
    assert (answer.status, answer.canary, ran) == (200, True, ["POST"])
    assert answer.header("access-control-allow-origin") == "https://page.example"
    assert answer.header("ratelimit-policy") is not None
    headers[1] = (b"idempotency-key", b"k2")
    assert (await send(app, "POST", path_of(name), headers)).status == 429


@pytest.mark.parametrize("name", [name for name in LAYERS if "between" not in name])
async def test_a_get_made_a_post_needs_its_idempotency_key(name: str) -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = FastAPI(openapi_url=None)
    limit = rate_limit("2/minute" if "mounted" in name else "100/minute")
    policy = guard.session() & limit & idempotent() & unsafe_without_csrf()
    LAYERS[name](app, guard(policy), override)
    guard.install(app)
    made = [(b"x-user", b"ann"), (b"host", b"app.example"), (b"x-http-method-override", b"POST")]
    refused = await send(app, path=path_of(name), headers=made)
    assert (refused.status, refused.problem, ran) == (400, "idempotency-key-missing", [])
    # Around a mounted application it counts once: the limit of two lets this one pass.
    keyed = [*made, (b"idempotency-key", b"k1")]
    assert (await send(app, path=path_of(name), headers=keyed)).canary
    assert ran == ["POST"]


async def test_a_middleware_that_hides_what_it_wraps_is_a_finding() -> None:
    class Hides:
        __slots__ = ("_get",)

        def __init__(self, app: Any) -> None:
            self._get = (app,)  # Nothing can be put into it.

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self._get[0](scope, receive, send)

    app = StarletteApp()
    app.install()
    assert (await send(app.asgi(), path="/missing")).status == 404
    app.app.router.routes.append(Route("/x", app.guard(public)(fresh()), middleware=[Middleware(Hides)]))
    assert (await send(app.asgi(), path="/x")).problem == "guard-not-applied"
    found = verify(app.guard, entries(app.guard, app.app), undecided_is_fatal=True)
    assert any("hides what it wraps" in line for line in found)


async def test_a_mark_on_the_route_is_asked_beside_the_mount_again() -> None:
    app = StarletteApp()
    inner = Starlette(routes=routes(app.guard(admin)(fresh())), middleware=use(replace_headers))
    app.app.mount("/at", app.guard(key)(inner))
    app.install()
    assert (await send(app.asgi(), path="/at/x", headers=[KEY, (b"x-admin", b"ok")])).status == 401
