"""What a mark promises holds without `guard.install(app)`: nothing marked answers, and the log says what to call."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
from typing import Any

import pytest
from fastapi import APIRouter, Body, Depends, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from routeguard.app import Routeguard
from routeguard.core.errors import ConfigError
from routeguard.core.policy import public
from routeguard.protection.adapters.starlette.listing import entries
from routeguard.protection.guard.matrix import verify
from tests.adapters.starlette_app import FastAPIApp, StarletteApp
from tests.adapters.test_routeguard import SETTINGS, Person, identify
from tests.conformance.wire import KEY, connect, key, send

COVERS = ("protection/adapters/starlette/handlers", "protection/guard/unguarded")

pytestmark = pytest.mark.anyio


@pytest.fixture
def guard() -> Routeguard[Person]:
    return Routeguard(SETTINGS, user=Person, identify=identify)


@pytest.fixture(params=[Starlette, FastAPI], ids=["starlette", "fastapi"])
def app(request: pytest.FixtureRequest) -> Any:
    return request.param()


class Ran:
    """Makes handlers of every kind, and tells which of them ran."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def function(self, name: str = "function") -> Any:
        async def handler(request: Request) -> Response:
            return self.answer(name)

        return handler

    def answer(self, name: str) -> Response:
        self.names.append(name)
        return PlainTextResponse("secret")

    def asgi(self, name: str = "asgi") -> Any:
        async def handler(scope: Any, receive: Any, send: Any) -> None:
            await self.answer(name)(scope, receive, send)

        return handler

    def view(self, *decorators: Any) -> Any:
        ran = self

        class View(HTTPEndpoint):
            async def get(self, request: Request) -> Response:
                return ran.answer("get")

            async def post(self, request: Request) -> Response:
                return ran.answer("post")

        for decorate in decorators:
            decorate(View.post)
        return View

    def socket(self) -> Any:
        async def handler(websocket: WebSocket) -> None:
            self.names.append("socket")
            await websocket.accept()
            await websocket.close()

        return handler


def routes(ran: Ran, mark: Any, directory: Any) -> dict[str, Any]:
    """One route of every kind whose handler `mark` was put on."""

    class Object:
        __call__ = staticmethod(ran.asgi("object"))

    inner = Starlette(routes=[Route("/x", mark(ran.function()))])
    return {
        "/function": Route("/function", mark(ran.function())),
        "/partial": Route("/partial", functools.partial(mark(ran.function()))),
        "/class": Route("/class", mark(ran.view())),
        "/object": Route("/object", mark(Object())),
        "/mounted/x": Mount("/mounted", app=mark(ran.asgi())),
        "/files/secret.txt": Mount("/files", app=mark(StaticFiles(directory=directory))),
        "/below/x": Mount("/below", routes=[Route("/x", mark(ran.function()))]),
        "/sub/x": Mount("/sub", app=inner),
        "/host": Host("{any}", app=Router([Route("/host", mark(ran.function()))])),
    }


@pytest.mark.parametrize("marked", [True, False])
async def test_no_kind_of_marked_handler_runs(
    app: Any, guard: Routeguard[Person], tmp_path: Any, caplog: pytest.LogCaptureFixture, marked: bool
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    ran = Ran()
    made = routes(ran, guard(public) if marked else lambda handler: handler, tmp_path)
    app.router.routes += made.values()
    for path in made:
        caplog.clear()
        answer = await send(app, path=path, headers=[(b"host", b"any.example"), KEY])
        assert answer.error is None
        if marked:
            assert (answer.status, answer.problem, ran.names) == (500, "guard-not-applied", []), path
            [line] = [record for record in caplog.records if record.name == "routeguard.guard"]
            assert line.levelno == logging.WARNING
            assert "call guard.install(app)" in line.message
        else:
            assert (answer.status, answer.body, caplog.records) == (200, b"secret", []), path


async def test_the_warning_names_the_handler(
    app: Any, guard: Routeguard[Person], caplog: pytest.LogCaptureFixture
) -> None:
    app.router.routes.append(Route("/x", guard(guard.session())(Ran().function())))
    await send(app, path="/x")
    assert f"{__name__}.Ran.function.<locals>.handler needs a guard" in caplog.text


async def test_one_marked_method_of_a_class(app: Any, guard: Routeguard[Person]) -> None:
    ran = Ran()
    app.router.routes.append(Route("/x", ran.view(guard(public))))
    assert (await send(app, path="/x")).body == b"secret"
    assert (await send(app, "POST", "/x")).problem == "guard-not-applied"
    assert (await send(app, path="/x")).status == 200
    assert ran.names == ["get", "get"]


@pytest.mark.parametrize("denial", [True, False])
async def test_websockets_are_refused_before_they_are_accepted(
    app: Any, guard: Routeguard[Person], denial: bool
) -> None:
    ran = Ran()

    class Socket(WebSocketEndpoint):
        async def on_connect(self, websocket: WebSocket) -> None:
            ran.names.append("socket class")

    class ByMethod(Socket):
        on_connect = guard(public)(ran.socket())

    app.router.routes += [
        WebSocketRoute("/function", guard(public)(ran.socket())),
        WebSocketRoute("/class", guard(public)(Socket)),
        WebSocketRoute("/method", ByMethod),
        WebSocketRoute("/open", ran.socket()),
    ]
    for path in ("/function", "/class", "/method"):
        refused = await connect(app, path, denial=denial)
        kinds = [message["type"] for message in refused.sent]
        assert kinds[0] == ("websocket.http.response.start" if denial else "websocket.close")
        assert refused.status == (500 if denial else 0)
    assert ran.names == []
    assert (await connect(app, "/open")).sent[0]["type"] == "websocket.accept"


async def test_marks_that_come_after_the_first_request(app: Any, guard: Routeguard[Person]) -> None:
    handler = Ran().function()
    app.router.routes.append(Route("/x", handler))
    assert (await send(app, path="/x")).status == 200
    assert (await send(app, path="/x")).status == 200
    guard(public)(handler)
    assert (await send(app, path="/x")).problem == "guard-not-applied"
    app.router.routes.append(Route("/late", guard(public)(Ran().function())))
    assert (await send(app, path="/late")).problem == "guard-not-applied"


async def test_a_guard_on_another_application(app: Any, guard: Routeguard[Person]) -> None:
    inner = Starlette(routes=[Route("/x", guard(public)(Ran().function()))])
    other = Starlette()
    app.mount("/sub", inner)
    guard.install(other)
    assert (await send(app, path="/sub/x")).problem == "guard-not-applied"
    # The guard of a mounted application is asked for what is in it, and for nothing beside it.
    guarded = Starlette(routes=[Route("/x", guard(public)(Ran().function()))])
    Routeguard(SETTINGS, user=Person, identify=identify).install(guarded)
    app.mount("/guarded", guarded)
    assert (await send(app, path="/guarded/x")).body == b"secret"
    assert (await send(app, path="/sub/x")).problem == "guard-not-applied"


async def test_marks_of_another_guard_are_asked_by_the_one_installed(app: Any, guard: Routeguard[Person]) -> None:
    app.router.routes.append(Route("/x", guard(guard.session())(Ran().function())))
    Routeguard(SETTINGS, user=Person, identify=identify).install(app)
    assert (await send(app, path="/x")).status == 401
    assert (await send(app, path="/x", headers=[(b"x-user", b"ann")])).body == b"secret"


async def test_a_scope_that_lost_the_guards_key(app: Any, guard: Routeguard[Person]) -> None:
    """A middleware that makes a scope of the keys it knows."""
    ran = Ran()

    class Strict:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app({name: value for name, value in scope.items() if name != "routeguard"}, receive, send)

    app.add_middleware(Strict)
    app.router.routes.append(Route("/x", guard(public)(ran.function())))
    guard.install(app)
    assert (await send(app, path="/x")).problem == "guard-not-applied"
    assert ran.names == []


# -- FastAPI -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("included", [False, True])
async def test_every_way_a_fastapi_route_is_made(guard: Routeguard[Person], included: bool) -> None:
    app, router = FastAPI(), APIRouter()
    place: Any = router if included else app

    async def handler() -> str:
        return "secret"

    place.get("/decorated")(guard(public)(handler))
    place.get("/open")(lambda: "open")
    place.websocket("/ws")(guard(public)(Ran().socket()))
    if included:
        app.include_router(router, prefix="/a")
        app.include_router(router, prefix="/b")
    for prefix in ("/a", "/b") if included else ("",):
        assert (await send(app, path=f"{prefix}/decorated")).problem == "guard-not-applied"
        assert (await send(app, path=f"{prefix}/open")).body == b'"open"'
        assert (await send(app, path=f"{prefix}/open")).body == b'"open"'
        assert (await connect(app, f"{prefix}/ws")).status == 500


@pytest.mark.parametrize("name", ["current_session", "current_session_or_none", "current", "current_key"])
@pytest.mark.parametrize("depth", [0, 1])
async def test_a_handler_that_asks_for_a_session(guard: Routeguard[Person], name: str, depth: int) -> None:
    """Refused before its body is read, and without a traceback."""
    ask: Any = getattr(guard, name)

    def deeper(value: Any = Depends(ask)) -> Any:
        return value

    async def handler(value: Any = Depends(deeper if depth else ask), body: Any = Body()) -> str:
        return "secret"

    app = FastAPI()
    app.post("/x")(handler)
    refused = await send(app, "POST", "/x", body=b"not json")
    assert (refused.status, refused.problem, refused.received, refused.error) == (500, "guard-not-applied", 0, None)
    app.dependency_overrides[ask] = lambda: "somebody else"
    assert (await send(app, "POST", "/x", [(b"content-type", b"application/json")], b"1")).body == b'"secret"'


async def test_a_handler_that_asks_in_its_body(
    app: Any, guard: Routeguard[Person], caplog: pytest.LogCaptureFixture
) -> None:
    asks: dict[str, Any] = {
        "/session": guard.current_session,
        "/find": guard.find_session,
        "/key": guard.managed_key,
        "/require": lambda request: guard.require(request, guard.session()),
    }
    for path, ask in asks.items():

        async def handler(request: Request, ask: Any = ask) -> Response:
            return PlainTextResponse(str(await ask(request)))

        app.router.routes.append(Route(path, handler))
        caplog.clear()
        refused = await send(app, path=path)
        assert (refused.status, refused.error) == (500, None)
        assert "call guard.install(app)" in caplog.text


async def test_a_marked_dependency_is_no_guard(guard: Routeguard[Person]) -> None:
    @guard(guard.session())
    async def checks(connection: HTTPConnection) -> None:
        return None

    depends = [Depends(checks)]
    for of_app, of_route in ((depends, []), ([], depends)):
        app = FastAPI(dependencies=of_app)
        app.get("/x", dependencies=of_route)(lambda: "secret")
        assert (await send(app, path="/x")).problem == "guard-not-applied"

    installed = FastAPI(openapi_url=None)
    guard.install(installed, default=public)
    installed.get("/fine")(lambda: "fine")
    assert (await send(installed, path="/fine")).status == 200
    installed.get("/late", dependencies=[Depends(checks)])(lambda: "secret")
    assert (await send(installed, path="/late")).problem == "guard-not-applied"
    with pytest.raises(ConfigError, match=r"checks carries a policy, which nothing asks there"):
        await guard.close()
        await guard._start(True)


def test_frameworks_that_are_loaded_after_the_mark() -> None:
    """In a process of its own: here everything is loaded already."""
    program = """
import asyncio, sys
from routeguard import Routeguard, Settings, public
guard = Routeguard(Settings(environment="development"), identify=lambda request: None)

@guard(public)
async def handler():
    return "secret"

assert "fastapi" not in sys.modules
from fastapi import APIRouter, FastAPI
app, router = FastAPI(), APIRouter()
router.get("/included")(handler)
app.get("/direct")(handler)
app.include_router(router)
async def ask(path):
    sent = []
    async def receive():
        return {"type": "http.request", "body": b""}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return sent[0]["status"]
print(asyncio.run(ask("/direct")), asyncio.run(ask("/included")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.returncode) == (["500", "500"], 0), done.stderr


# -- places where a mark would be asked by nobody ---------------------------------------------------------------------


def findings(made: Any) -> list[str]:
    return verify(made.guard, entries(made.guard, made.app), undecided_is_fatal=True)


@pytest.mark.parametrize("make", [StarletteApp, FastAPIApp])
def test_marks_on_what_is_no_handler_are_findings(make: Any) -> None:
    async def called(request: Any, following: Any) -> Any:
        return await following(request)

    async def failed(request: Any, error: Exception) -> Response:
        return PlainTextResponse("secret")

    made = make()
    made.app.add_middleware(BaseHTTPMiddleware, dispatch=made.guard(key)(called))
    made.app.add_exception_handler(404, made.guard(key)(failed))
    own = made.guard(key)(type("Own", (), {"__call__": called}))
    made.app.mount("/sub", Starlette(middleware=[Middleware(own)]))
    found = findings(made)
    assert [line.split(" (")[0] for line in found if "nothing asks here" in line] == ["* /sub/*", "* /*", "* /*"]
    if make is FastAPIApp:
        made.app.dependency_overrides[failed] = made.guard(key)(lambda: None)
        assert len([line for line in findings(made) if "nothing asks here" in line]) == 4


@pytest.mark.parametrize("make", [StarletteApp, FastAPIApp])
async def test_marked_methods_that_no_method_of_http_chooses(make: Any) -> None:
    made = make()
    made.guard.default = public
    ran = Ran()

    class Socket(WebSocketEndpoint):
        @made.guard(key)  # type: ignore[untyped-decorator]
        async def on_connect(self, websocket: WebSocket) -> None:
            ran.names.append("connect")

    class Foreign:
        """A class-based view of another library: an ASGI application that looks for its own method."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await (await self.get(Request(scope)))(scope, receive, send)

        @made.guard(key)  # type: ignore[untyped-decorator]
        async def get(self, request: Request) -> Response:
            return ran.answer("get")

        @made.guard(key)  # type: ignore[untyped-decorator]
        async def beside(self, request: Request) -> Response:
            return ran.answer("beside")

    view = Foreign()
    made.install()
    assert (await send(made.asgi(), path="/missing")).status == 404
    made.app.router.routes += [
        WebSocketRoute("/ws", Socket),
        Route("/view", view),
        Route("/beside", view.beside),
    ]
    assert (await send(made.asgi(), path="/view", headers=[KEY])).problem == "guard-not-applied"
    assert (await connect(made.asgi(), "/ws", [KEY])).status == 500
    assert ran.names == []
    assert (await send(made.asgi(), path="/beside")).status == 401
    assert (await send(made.asgi(), path="/beside", headers=[KEY])).body == b"secret"
    found = findings(made)
    assert any("Socket.on_connect is asked nowhere" in line for line in found)
    assert any("Foreign.get is asked nowhere" in line for line in found)
    assert len(found) == 2
