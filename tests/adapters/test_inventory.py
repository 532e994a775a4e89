"""The list of an application's handlers, as facts: of foreign applications too, in a process without any guard."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from routeguard import Routeguard, Secret, Settings, public
from routeguard.core.errors import ConfigError
from routeguard.core.exchange import SCOPE_KEY
from routeguard.protection.adapters.known import adapter_for, adapters, is_routed
from routeguard.protection.guard.inventory import Handler

COVERS = ("protection/adapters/known", "protection/adapters/protocol", "protection/adapters/starlette/inventory")


def inventory(app: Any) -> list[Handler]:
    return list(adapter_for(app).inventory(app))


def lines(app: Any) -> list[str]:
    return [f"{each.method} {each.host}{each.path} {each.kind}" for each in inventory(app)]


async def endpoint(request: Any) -> PlainTextResponse:
    return PlainTextResponse("told")


class Items(HTTPEndpoint):
    async def get(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("told")

    async def post(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("told")


class Foreign(BaseRoute):
    """A kind of route that is not known."""

    path = "/foreign"


async def opaque(scope: Any, receive: Any, send: Any) -> None: ...


def starlette(tmp_path: Path) -> Starlette:
    inner = Starlette(routes=[Route("/deep", endpoint, name="deep"), Mount("/more", routes=[Route("/x", endpoint)])])
    routes = [
        Route("/plain", endpoint, methods=["GET", "DELETE"], include_in_schema=False),
        Route("/items", Items),
        WebSocketRoute("/socket", endpoint),
        Mount("/inner", inner),
        Mount("/wrapped", GZipMiddleware(Starlette(routes=[Route("/y", endpoint)]))),
        Mount("/squeezed", routes=[Route("/z", endpoint)], middleware=[Middleware(GZipMiddleware)]),
        Mount("/files", StaticFiles(directory=tmp_path)),
        Mount("/opaque", opaque),
        Host("api.example.org", Router([Route("/hosted", endpoint)])),
        Foreign(),
    ]
    return Starlette(routes=routes)


def test_every_kind_of_route_of_starlette(tmp_path):
    assert lines(starlette(tmp_path)) == [
        "DELETE /plain http",
        "GET /plain http",
        "GET /items http",
        "POST /items http",
        "WS /socket websocket",
        "GET /inner/deep http",
        "GET /inner/more/x http",
        "MOUNT /wrapped mount",
        "GET /wrapped/y http",
        "GET /squeezed/z http",
        "MOUNT /files static",
        "MOUNT /opaque mount",
        "GET api.example.org/hosted http",
        "* /foreign unknown",
    ]


def test_what_stands_around_a_handler_and_its_name(tmp_path):
    app = starlette(tmp_path)
    by_path = {each.path: each for each in inventory(app)}
    deep = by_path["/inner/deep"]
    mount = app.routes[3]
    assert isinstance(mount, Mount)
    assert deep.around == (app, mount, mount.app)
    assert (deep.name, deep.endpoint) == ("deep", endpoint)
    assert by_path["/inner/more/x"].include_in_schema
    assert not by_path["/plain"].include_in_schema
    assert by_path["/items"].endpoint is Items.post


def test_a_handler_says_where_its_source_is():
    def wrapped(function: Any) -> Any:
        @wraps(function)
        async def run(request: Any) -> Any:
            return await function(request)

        return run

    first = endpoint.__code__.co_firstlineno
    for each in (endpoint, wrapped(endpoint), partial(endpoint), partial(wrapped(partial(endpoint)))):
        handler = Handler("GET", "/", each)
        assert (Path(handler.file or "").name, handler.line) == (Path(__file__).name, first)
    of_class, of_object = Handler("*", "/", Items), Handler("*", "/", Foreign())
    assert Path(of_class.file or "").name == Path(of_object.file or "").name == Path(__file__).name
    assert of_class.line is not None
    assert (Handler("GET", "/", print).file, Handler("GET", "/", print).line) == (None, None)


def database() -> None: ...
def user(_: None = Depends(database)) -> None: ...
def audited() -> None: ...
def limited() -> None: ...


def fastapi() -> FastAPI:
    app = FastAPI(dependencies=[Depends(audited)])
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer", dependencies=[Depends(limited)])

    @inner.get("/x/{number}", name="x")
    async def x(number: int, _: None = Depends(user)) -> str:
        return str(number)

    @inner.websocket("/socket")
    async def socket(websocket: WebSocket, _: None = Depends(user)) -> None: ...

    @app.post("/hidden", include_in_schema=False)
    async def hidden() -> None: ...

    outer.include_router(inner)
    # FastAPI puts the router's own prefix before its handlers, and not before what is mounted in it.
    outer.mount("/mounted", FastAPI(openapi_url=None, routes=[Route("/raw", endpoint)]))
    app.include_router(outer, prefix="/v1")
    app.include_router(inner, include_in_schema=False)
    return app


def test_every_kind_of_route_of_fastapi():
    assert lines(fastapi()) == [
        "GET /openapi.json docs",
        "GET /docs docs",
        "GET /docs/oauth2-redirect docs",
        "GET /redoc docs",
        "POST /hidden http",
        "GET /v1/outer/inner/x/{number} http",
        "WS /v1/outer/inner/socket websocket",
        "GET /v1/mounted/raw http",
        "GET /inner/x/{number} http",
        "WS /inner/socket websocket",
    ]


def test_the_tree_of_dependencies_of_each_inclusion():
    by_path = {each.path: each for each in inventory(fastapi())}
    both = by_path["/v1/outer/inner/x/{number}"], by_path["/inner/x/{number}"]
    assert [each.calls for each in both] == [(audited, limited, user, database), (audited, user, database)]
    assert [one.call for one in both[0].dependencies] == [audited, limited, user]
    assert [one.call for one in both[0].dependencies[-1].dependencies] == [database]
    assert by_path["/v1/outer/inner/socket"].calls == (audited, limited, user, database)
    # What stands around a mount does not reach into it.
    assert by_path["/v1/mounted/raw"].calls == ()
    assert [each.include_in_schema for each in both] == [True, False]
    assert not by_path["/hidden"].include_in_schema
    assert {each.name for each in both} == {"x"}


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="this FastAPI serves no front ends")
def test_a_front_end_is_listed(tmp_path):
    (tmp_path / "index.html").write_text("told")
    app = FastAPI(openapi_url=None)
    app.frontend("/ui", directory=tmp_path)
    assert lines(app) == ["* /ui frontend"]


def test_a_router_and_what_it_answers_by_default():
    router = Router([Route("/x", endpoint)], default=opaque)
    assert lines(router) == ["GET /x http", "* /* fallback"]


def test_an_application_that_is_mounted_in_itself_is_listed_once():
    app = Starlette(routes=[Route("/x", endpoint)])
    app.mount("/again", app)
    app.mount("/wrapped", GZipMiddleware(app))
    assert lines(app) == ["GET /x http", "MOUNT /wrapped mount"]


_FOREIGN = """
import json, sys
from fastapi import APIRouter, Depends, FastAPI
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

def signed_in(): ...
app = FastAPI()
router = APIRouter(prefix="/things")

@router.get("/{thing_id}")
async def thing(thing_id: int, user: None = Depends(signed_in)): ...

@router.websocket("/live")
async def live(websocket): ...

app.include_router(router)
app.mount("/static", StaticFiles(directory="."))
app.mount("/sub", FastAPI(openapi_url=None, routes=[Route("/x", thing)]))
before = dict(vars(Route)), dict(vars(type(app.routes[0])))

from routeguard.protection.adapters.known import adapter_for
found = list(adapter_for(app).inventory(app))
assert before == (dict(vars(Route)), dict(vars(type(app.routes[0]))))
assert "routeguard.app" not in sys.modules
print(json.dumps([[each.method, each.path, each.kind, len(each.calls)] for each in found]))
"""


def test_a_foreign_application_is_listed_without_a_guard_or_a_patch():
    done = subprocess.run(
        [sys.executable, "-c", _FOREIGN],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [each for each in found if each[2] != "docs"] == [
        ["GET", "/things/{thing_id}", "http", 1],
        ["WS", "/things/live", "websocket", 0],
        ["MOUNT", "/static", "static", 0],
        ["GET", "/sub/x", "http", 0],
    ]


class TestAdapters:
    def test_the_adapter_of_an_application_is_that_of_its_framework(self):
        names = [type(adapter_for(app)).__name__ for app in (FastAPI(), APIRouter(), Starlette(), Router())]
        assert names == ["FastAPIAdapter", "FastAPIAdapter", "StarletteAdapter", "StarletteAdapter"]
        assert not is_routed(opaque)
        with pytest.raises(ConfigError, match="a function"):
            adapter_for(opaque)

    def test_the_exchange_of_a_request(self):
        for adapter in adapters():
            scope = {"type": "websocket", SCOPE_KEY: "no exchange"}
            assert adapter.connection_of(WebSocket(scope, None, None)) is None

    def test_an_option_that_no_adapter_has_is_a_mistake(self):
        guard: Any = Routeguard(Settings(secret=Secret("s" * 32)), identify=lambda request: None)
        app = FastAPI()
        with pytest.raises(TypeError, match="unexpected keyword argument 'doc'"):
            guard.install(app, doc=public)
        guard.install(app, docs=public, frontend=public)  # It left no trace.
