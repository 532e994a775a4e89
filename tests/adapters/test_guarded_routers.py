"""A policy on a router, a mount or an application holds for every route below, however and whenever that got there."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from routeguard.app import Routeguard
from routeguard.core.errors import ConfigError
from routeguard.core.policy import Policy, deferred, public
from routeguard.core.problem import PERMISSION_DENIED
from routeguard.protection.adapters.starlette.listing import entries
from routeguard.protection.guard.matrix import matrix, verify
from routeguard.protection.traffic.cors import cors, preflight
from routeguard.protection.traffic.deduplicate import deduplicate
from tests.adapters.starlette_app import FastAPIApp, StarletteApp
from tests.adapters.test_routeguard import SETTINGS, Person, identify
from tests.conformance.wire import ADMIN, KEY, Does, Limit, Unbindable, admin, connect, key, send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

COVERS = (
    "protection/adapters/starlette/gates",
    "protection/adapters/starlette/listing",
    "protection/adapters/starlette/section",
)

pytestmark = pytest.mark.anyio

HOST = (b"host", b"api.example")


def handler() -> Any:
    """Return a new handler, so that marks do not meet."""

    async def secret(request: Request) -> Response:
        return PlainTextResponse("secret")

    return secret


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


class View(HTTPEndpoint):
    """A class-based endpoint."""

    async def get(self, request: Request) -> Response:
        return PlainTextResponse("secret")


def fill(router: Any) -> Any:
    """Add one route of each kind, the way the router's own framework does."""
    if isinstance(router, APIRouter | FastAPI):
        router.add_api_route("/route", handler(), response_class=PlainTextResponse)
        router.add_api_websocket_route("/ws", socket)
    else:
        getattr(router, "router", router).routes += [Route("/route", handler()), WebSocketRoute("/ws", socket)]
    router.add_route("/class", View)
    router.mount("/mounted", Router([Route("/route", handler())]))
    router.mount("/asgi", PlainTextResponse("secret"))
    return router


def include(app: Any, router: Any, **options: Any) -> None:
    app.include_router(router, prefix="/at", **options)


def nested(app: Any, router: Any) -> None:
    middle = APIRouter(prefix="/at")
    middle.include_router(router)
    app.include_router(middle)


def middle_marked(app: Any, router: Any, mark: Any) -> None:
    middle = mark(APIRouter())
    middle.include_router(router, prefix="/at")
    app.include_router(middle)


PLACES: dict[str, Callable[[Any, Any], None]] = {
    "included": lambda app, mark: include(app, fill(mark(APIRouter()))),
    "included, marked after it was filled": lambda app, mark: include(app, mark(fill(APIRouter()))),
    "included, filled afterwards": lambda app, mark: included_first(app, mark(APIRouter())),
    "included twice": lambda app, mark: twice(app, fill(mark(APIRouter()))),
    "included in a router": lambda app, mark: nested(app, fill(mark(APIRouter()))),
    "included in a marked router": lambda app, mark: middle_marked(app, fill(APIRouter()), mark),
    "included in two applications": lambda app, mark: elsewhere_too(app, fill(mark(APIRouter()))),
    "an application's router included": lambda app, mark: include(app, fill(mark(FastAPI(openapi_url=None))).router),
    "of a class of its own": lambda app, mark: include(app, fill(mark(type("Own", (APIRouter,), {})()))),
    "APIRouter mounted": lambda app, mark: app.mount("/at", fill(mark(APIRouter()))),
    "Router mounted": lambda app, mark: app.mount("/at", fill(mark(Router()))),
    "Starlette mounted": lambda app, mark: app.mount("/at", fill(mark(Starlette()))),
    "FastAPI mounted": lambda app, mark: app.mount("/at", fill(mark(FastAPI(openapi_url=None)))),
    "the router of a mounted application": lambda app, mark: app.mount("/at", with_marked_router(mark)),
    "below a middleware": lambda app, mark: app.mount("/at", GZipMiddleware(fill(mark(Router())))),
    "marked around a middleware": lambda app, mark: app.mount("/at", mark(GZipMiddleware(fill(Router())))),
    "Mount": lambda app, mark: app.router.routes.append(mark(Mount("/at", app=fill(Router())))),
    "Mount with routes": lambda app, mark: app.router.routes.append(mark(Mount("/at", routes=fill(Router()).routes))),
    "Mount in an included router": lambda app, mark: in_router(app, mark(Mount("/at", app=fill(Router())))),
    "Host": lambda app, mark: app.router.routes.append(mark(Host("api.example", app=below("/at", fill(Router()))))),
    "Host in an included router": lambda app, mark: in_router(app, mark(Host("api.example", below("/at", filled())))),
    "the application of a Host": lambda app, mark: app.host("api.example", mark(below("/at", fill(Router())))),
    "copied deeply": lambda app, mark: app.mount("/at", deepcopy(fill(mark(Router())))),
    "the application itself": lambda app, mark: mark(app).mount("/at", fill(Router())),
    "its router": lambda app, mark: mark(app.router).mount("/at", fill(Router())),
}


def filled() -> Router:
    return fill(Router())  # type: ignore[no-any-return]


def below(path: str, app: Any) -> Router:
    return Router([Mount(path, app=app)])


def in_router(app: Any, route: Any) -> None:
    router = APIRouter(routes=[route])
    app.include_router(router)


def included_first(app: Any, router: Any) -> None:
    include(app, router)
    fill(router)


def twice(app: Any, router: Any) -> None:
    app.include_router(router, prefix="/other")
    include(app, router)


def elsewhere_too(app: Any, router: Any) -> None:
    include(FastAPI(), router)
    include(app, router)


def with_marked_router(mark: Any) -> Starlette:
    app = Starlette()
    mark(app.router)
    return fill(app)  # type: ignore[no-any-return]


PATHS = ("/route", "/class", "/mounted/route", "/asgi/")


def made(name: str, *policies: Any) -> FastAPIApp:
    app = FastAPIApp()
    PLACES[name](app.app, app.guard(*policies))
    return app


async def statuses(app: Any, *headers: tuple[bytes, bytes], prefix: str = "/at") -> set[int]:
    found = {(await send(app, path=prefix + path, headers=[HOST, *headers])).status for path in PATHS}
    accepted = await connect(app, f"{prefix}/ws", [HOST, *headers])
    return found | {200 if accepted.sent[0]["type"] == "websocket.accept" else accepted.status}


@pytest.mark.parametrize("name", PLACES)
async def test_it_holds_for_everything_below(name: str) -> None:
    app = made(name, key)
    app.install()
    assert await statuses(app.asgi()) == {401}
    assert await statuses(app.asgi(), KEY) == {200}
    if name == "included twice":
        assert await statuses(app.asgi(), prefix="/other") == {401}
        assert await statuses(app.asgi(), KEY, prefix="/other") == {200}


@pytest.mark.parametrize("name", PLACES)
async def test_nothing_below_answers_without_a_guard(name: str) -> None:
    app = made(name, public)
    assert await statuses(app.asgi(), KEY) == {500}


@pytest.mark.parametrize("name", PLACES)
async def test_the_matrix_shows_it_on_every_route(name: str) -> None:
    app = made(name, key)
    app.install()
    rows = [row for row in matrix(app.guard, entries(app.guard, app.app)) if "/at" in row.path]
    assert verify(app.guard, entries(app.guard, app.app), undecided_is_fatal=True) == []
    if name in {"below a middleware", "marked around a middleware"}:
        assert [(row.method, row.path) for row in rows] == [("MOUNT", "/at")]
        return
    assert {row.policy for row in rows} == {"key x-key"}
    assert {row.source for row in rows} == {"mark"}
    assert {(row.method, row.path) for row in rows} == {
        ("GET", "/at/route"),
        ("WS", "/at/ws"),
        ("GET", "/at/class"),
        ("GET", "/at/mounted/route"),
        ("MOUNT", "/at/asgi"),
    }


@pytest.mark.parametrize("name", PLACES)
async def test_it_is_added_to_the_default_and_does_not_replace_it(name: str) -> None:
    """What only limits decides nothing: the routes below still need somebody who does."""
    app = made(name, Policy.of(Limit(3)))
    app.guard.default = key
    app.install()
    assert await statuses(app.asgi()) == {401}
    assert await statuses(app.asgi(), KEY) == {200}
    assert (await send(app.asgi(), path="/at/route", headers=[HOST, KEY, (b"content-length", b"4")])).status == 413
    undecided = made(name, Policy.of(Limit(3)))
    undecided.install()
    assert await statuses(undecided.asgi(), KEY) == {500}
    found = verify(undecided.guard, entries(undecided.guard, undecided.app), undecided_is_fatal=True)
    assert any("no policy" in line for line in found)


async def test_a_handlers_own_mark_is_added() -> None:
    app = FastAPIApp()
    router = app.guard(key)(APIRouter())
    for path, policy in (("/admin", admin), ("/open", public), ("/none", None)):
        router.add_api_route(path, app.marked(handler(), policy), response_class=PlainTextResponse)
    app.app.include_router(router)
    app.install()
    for path, headers, status in (
        ("/admin", [], 401),
        ("/admin", [KEY], 403),
        ("/admin", [ADMIN], 401),
        ("/admin", [KEY, ADMIN], 200),
        ("/open", [], 401),
        ("/open", [KEY], 200),
        ("/none", [], 401),
        ("/none", [KEY], 200),
    ):
        assert (await send(app.asgi(), path=path, headers=headers)).status == status, (path, headers)
    rows = {row.path: (row.policy, row.source) for row in matrix(app.guard, entries(app.guard, app.app))}
    assert rows == {
        "/admin": ("key x-key, key x-admin", "mark"),
        "/open": ("public, key x-key", "mark"),
        "/none": ("key x-key", "mark"),
    }


async def test_one_route_below_two_routers_and_below_none() -> None:
    """The policy goes with the way a request takes, not with the route."""
    app = FastAPIApp()
    shared = APIRouter()
    shared.add_api_route("/x", handler(), response_class=PlainTextResponse)
    for prefix, policy in (("/key", key), ("/admin", admin), ("/none", None)):
        around = APIRouter()
        app.marked(around, policy).include_router(shared)
        app.app.include_router(around, prefix=prefix)
    app.install()
    for _ in range(2):
        assert (await send(app.asgi(), path="/key/x", headers=[ADMIN])).status == 401
        assert (await send(app.asgi(), path="/key/x", headers=[KEY])).status == 200
        assert (await send(app.asgi(), path="/admin/x", headers=[KEY])).status == 403
        assert (await send(app.asgi(), path="/admin/x", headers=[ADMIN])).status == 200
        assert (await send(app.asgi(), path="/none/x", headers=[KEY, ADMIN])).status == 500


async def test_what_leaves_a_router_takes_nothing_with_it() -> None:
    """A middleware that asks twice: the second route is not below the router of the first."""

    class Twice:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def nowhere(message: Any) -> None:
                return None

            await self.app(dict(scope, path="/in/missing"), receive, nowhere)
            await self.app(scope, receive, send)

    app = StarletteApp()
    app.app.mount("/in", app.guard(public)(Router([Route("/x", handler())])))
    app.app.add_route("/out", handler())
    app.app.add_middleware(Twice)
    app.install()
    assert (await send(app.asgi(), path="/out")).status == 500


async def test_a_later_mark_and_later_routes() -> None:
    app = FastAPIApp()
    app.guard.default = public
    router = APIRouter()
    router.add_api_route("/early", handler(), response_class=PlainTextResponse)
    app.app.include_router(router)
    app.install()
    assert (await send(app.asgi(), path="/early")).status == 200
    app.guard(key)(router)
    router.add_api_route("/late", handler(), response_class=PlainTextResponse)
    for path in ("/early", "/late"):
        assert (await send(app.asgi(), path=path)).status == 401
        assert (await send(app.asgi(), path=path, headers=[KEY])).status == 200
    app.guard(admin)(router)
    assert (await send(app.asgi(), path="/early", headers=[KEY])).status == 403


async def test_its_policy_sees_the_parameters_of_the_path() -> None:
    seen: list[Any] = []

    async def look(exchange: Any) -> Any:
        seen.append(dict(exchange.request.path_params))
        return None if exchange.request.path_params["org"] == "ours" else PERMISSION_DENIED()

    app = FastAPIApp()
    router = app.guard(Policy.of(Does(look)))(APIRouter(prefix="/{org}"))
    router.add_api_route("/{thing}", handler(), response_class=PlainTextResponse)
    app.app.include_router(router)
    app.install()
    assert (await send(app.asgi(), path="/theirs/1")).status == 403
    assert (await send(app.asgi(), path="/ours/1")).status == 200
    assert seen == [{"org": "theirs", "thing": "1"}, {"org": "ours", "thing": "1"}]


async def test_deferred_leaves_the_decision_to_each_handler() -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)

    async def decides(request: Request) -> Response:
        await guard.require(request, guard.session())
        return PlainTextResponse("secret")

    app = FastAPI(openapi_url=None)
    router = guard(deferred)(APIRouter())
    router.add_route("/decides", decides)
    router.add_route("/forgets", handler())
    router.add_route("/marked", guard(public)(handler()))
    app.include_router(router)
    guard.install(app)
    user = [(b"x-user", b"ann")]
    assert (await send(app, path="/decides")).status == 401
    assert (await send(app, path="/decides", headers=user)).status == 200
    assert (await send(app, path="/forgets", headers=user)).status == 500
    assert (await send(app, path="/marked")).status == 200
    assert [row.policy for row in guard.matrix() if row.path == "/forgets"] == ["decided in the handler"]


async def test_a_handler_below_may_take_the_session_of_the_router() -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = FastAPI(openapi_url=None)
    router = guard(guard.session(user={"role": "admin"}))(APIRouter())

    @router.get("/me")
    async def me(session: Any = Depends(guard.current_session)) -> str:
        return str(session.user.id)

    app.include_router(router)
    guard.install(app)
    assert (await send(app, path="/me")).status == 401
    assert (await send(app, path="/me", headers=[(b"x-user", b"ann")])).status == 403
    assert (await send(app, path="/me", headers=[(b"x-user", b"root")])).body == b'"root"'


# -- the answers of the framework itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["included", "APIRouter mounted", "Starlette mounted", "Mount", "Host"])
async def test_not_found_wrong_method_and_slash(name: str) -> None:
    app = made(name, key)
    app.install()
    asgi = app.asgi()
    assert (await send(asgi, path="/at/missing", headers=[HOST, KEY])).status == 404
    assert (await send(asgi, "DELETE", "/at/route", [HOST, KEY])).status == 405
    moved = await send(asgi, path="/at/route/", headers=[HOST, KEY])
    assert moved.status == 307
    for method, path in (("GET", "/at/missing"), ("DELETE", "/at/route"), ("GET", "/at/route/")):
        assert (await send(asgi, method, path, [HOST])).status in {401, 404, 405, 307}


PREFLIGHT = [
    (b"origin", b"https://page.example"),
    (b"access-control-request-method", b"GET"),
    HOST,
]
readable = cors(origins=["https://page.example"])


@pytest.mark.parametrize("name", ["included", "APIRouter mounted", "Starlette mounted", "Mount", "Host"])
async def test_a_preflight_is_answered_by_the_cors_of_the_router(name: str) -> None:
    """CSRF-21: it carries no credential."""
    app = made(name, key & readable)
    app.guard.preflight = preflight
    app.install()
    answered = await send(app.asgi(), "OPTIONS", "/at/route", PREFLIGHT)
    assert (answered.status, answered.header("access-control-allow-origin")) == (204, "https://page.example")
    bare = made(name, key)
    bare.guard.preflight = preflight
    bare.install()
    assert (await send(bare.asgi(), "OPTIONS", "/at/route", PREFLIGHT)).status in {401, 405}
    assert (await send(bare.asgi(), "OPTIONS", "/at/asgi/", PREFLIGHT)).status == 401


@pytest.mark.parametrize("marked", ["router", "mount"])
async def test_a_preflight_is_answered_below_and_opens_nothing(marked: str) -> None:
    app = StarletteApp()
    app.guard.preflight = preflight
    inner = Starlette()
    inner.add_route("/cors", app.guard(readable)(handler()))
    inner.add_route("/options", handler(), methods=["OPTIONS"])
    inner.mount("/asgi", PlainTextResponse("secret"))
    mount = Mount("/at", app=inner)
    app.guard(key)(mount if marked == "mount" else inner)
    app.app.router.routes.append(mount)
    app.install()
    asgi = app.asgi()
    assert (await send(asgi, "OPTIONS", "/at/cors", PREFLIGHT)).status == 204
    for path in ("/at/options", "/at/asgi/"):
        assert (await send(asgi, "OPTIONS", path, PREFLIGHT)).status == 401
        assert (await send(asgi, "OPTIONS", path, [*PREFLIGHT, KEY])).status == 200


async def test_a_mounted_application_answers_preflights_by_its_own_middleware() -> None:
    app = StarletteApp()
    inner = Starlette(routes=[Route("/x", handler())])
    inner.add_middleware(CORSMiddleware, allow_origins=["https://page.example"])
    app.app.mount("/at", app.guard(key)(inner))
    app.install()
    assert (await send(app.asgi(), "OPTIONS", "/at/x", PREFLIGHT)).status == 200
    assert (await send(app.asgi(), "GET", "/at/x", PREFLIGHT)).status == 401


# -- what would not hold --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Route("/x", handler()),
        lambda: WebSocketRoute("/x", socket),
        lambda: Router,
        lambda: APIRouter,
        lambda: Starlette,
        lambda: FastAPI,
        lambda: Mount,
        lambda: type("Own", (FastAPI,), {}),
        lambda: FastAPI().get("/x"),
        lambda: APIRouter().post("/x"),
        lambda: FastAPI().websocket("/x"),
        lambda: Depends(handler()),
        lambda: FastAPI().router.routes[-1],
    ],
)
def test_marks_that_would_get_lost_are_errors_where_they_are_written(make: Any) -> None:
    with pytest.raises(ConfigError):
        StarletteApp().guard(key)(make())


def found_in(app: StarletteApp) -> list[str]:
    return verify(app.guard, entries(app.guard, app.app), undecided_is_fatal=True)


@pytest.mark.parametrize(
    "name", ["included", "APIRouter mounted", "Starlette mounted", "Mount", "the application itself"]
)
@pytest.mark.parametrize("policy", [Policy.of(Unbindable()), deduplicate()], ids=["unbindable", "nobody decides"])
async def test_a_policy_that_cannot_be_bound_is_a_finding(name: str, policy: Policy) -> None:
    app = made(name, policy)
    app.guard.default = public
    assert found_in(app) != []


def test_a_marked_application_of_another_make_behind_the_edge() -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)

    async def raw(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("secret")(scope, receive, send)

    with pytest.raises(ConfigError, match="mount it"):
        guard.asgi(guard(public)(raw))


async def test_an_application_behind_the_edge_without_install() -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = guard.asgi(guard(guard.session())(Starlette(routes=[Route("/x", handler())])))
    assert (await send(app, path="/x")).status == 401
    assert (await send(app, path="/x", headers=[(b"x-user", b"ann")])).status == 200


@pytest.mark.parametrize("installed_first", [True, False])
def test_a_session_around_the_sign_in_itself_is_a_finding(installed_first: bool) -> None:
    guard = Routeguard(replace(SETTINGS, database_url="sqlite://"))
    app = FastAPI(openapi_url=None)
    guard.install(app) if installed_first else guard(guard.session())(app)
    guard(guard.session())(app) if installed_first else guard.install(app)
    found = guard._installed[0].verify(lifespan=True)
    assert any("no user could sign in" in line for line in found)
    open_ = FastAPI(openapi_url=None)
    guard(guard.optional_session())(open_)
    other = Routeguard(replace(SETTINGS, database_url="sqlite://"))
    other.install(open_)
    assert other._installed[0].verify(lifespan=True) == []


async def test_routes_that_were_taken_out_of_a_marked_router() -> None:
    app = FastAPIApp()
    app.guard.default = public
    router = app.guard(key)(APIRouter())
    router.add_api_route("/x", handler())
    app.app.router.routes.extend(router.routes)
    assert any("/x" in line and "its router carries a policy" in line for line in found_in(app))
    app.app.router.routes.clear()
    app.app.mount("/at", router)
    assert found_in(app) == []


async def test_a_router_that_was_replaced_after_the_mark() -> None:
    app = StarletteApp()
    app.guard.default = public
    inner = app.guard(key)(Starlette())
    inner.router = Router([Route("/x", handler())])
    app.app.mount("/at", inner)
    assert any("replaced after it was marked" in line for line in found_in(app))
    app.install()
    # Its mount asks all the same.
    with pytest.raises(ConfigError):
        await app.asgi()({"type": "lifespan"}, received, sent)


async def received() -> Any:
    return {"type": "lifespan.startup"}


async def sent(message: Any) -> None:
    return None


@pytest.mark.parametrize("nesting", ["direct", "nested"])
async def test_a_front_end_of_a_marked_router(tmp_path: Any, nesting: str) -> None:
    """FastAPI serves its files from the application, past the router it was added to."""
    (tmp_path / "index.html").write_text("secret")
    for frontend, headers, status in ((None, [KEY], 200), (public, [], 401), (admin, [KEY], 403), (None, [], 401)):
        app = FastAPIApp()
        app.guard.frontend = frontend
        router = app.guard(key)(APIRouter())
        files = router if nesting == "direct" else APIRouter()
        files.frontend("/ui", directory=tmp_path)
        if nesting == "nested":
            router.include_router(files)
        app.app.include_router(router)
        app.install()
        assert (await send(app.asgi(), path="/ui/index.html", headers=headers)).status == status
        [row] = [row for row in matrix(app.guard, entries(app.guard, app.app)) if row.path.startswith("/ui")]
        assert "key x-key" in row.policy


async def test_lifespan_passes_through() -> None:
    started: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        started.append("started")
        yield

    router = StarletteApp().guard(key)(Router(lifespan=lifespan))
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(messages)

    await router({"type": "lifespan"}, receive, sent)
    assert started == ["started"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("installed", [False, True])
async def test_routes_taken_from_a_marked_router_are_refused(installed: bool, late: bool) -> None:
    """The attack: routes served by another router, past the mark, whose own router has been collected."""

    def taken(app: StarletteApp) -> list[Any]:
        return app.guard(admin)(Router([Route("/taken", handler())])).routes

    app = StarletteApp()
    app.guard.default = public
    if not late:
        app.app.router.routes += taken(app)
    if installed:
        app.install()
    if late:
        assert (await send(app.asgi(), path="/missing")).status == 404
        app.app.router.routes += taken(app)
    gc.collect()
    answer = await send(app.asgi(), path="/taken", headers=[KEY])
    # Start-up fails where it finds them.
    assert (answer.status, answer.problem) == (
        500,
        "internal-error" if installed and not late else "guard-not-applied",
    )
