"""A mark holds for what is marked, however the application around it keeps it."""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route

from routeguard.core.policy import public
from tests.adapters.starlette_app import StarletteApp
from tests.conformance.wire import KEY, key, send

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


async def passed(app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Pass on what X-HTTP-Method-Override says."""
    method = dict(scope["headers"]).get(b"x-http-method-override", scope["method"].encode()).decode()
    await app(dict(scope, method=method), receive, send)


class AsApp:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await passed(self.app, scope, receive, send)


class AsInner:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await passed(self._inner, scope, receive, send)

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        await passed(self._inner, scope, receive, send)


class InSlot:
    __slots__ = ("__hidden",)

    def __init__(self, app: Any) -> None:
        self.__hidden = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await passed(self.__hidden, scope, receive, send)


def in_closure(app: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await passed(app, scope, receive, send)

    return middleware


def in_closure_of_class(app: Any) -> Any:
    class Middleware:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await passed(app, scope, receive, send)

    return Middleware()


def in_closure_with_wraps(app: Any) -> Any:
    return wraps(app, updated=())(in_closure(app))


class KeptTwice(AsInner):
    def __init__(self, inner: Any) -> None:
        self.also, self.app = partial(passed, inner), inner
        super().__init__(inner)


async def with_keyword(scope: Any, receive: Any, send: Any, *, app: Any) -> None:
    await passed(app, scope, receive, send)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "attribute app": AsApp,
    "another attribute": AsInner,
    "slot": InSlot,
    "closure": in_closure,
    "closure of a class": in_closure_of_class,
    "closure with functools.wraps": in_closure_with_wraps,
    "several places": KeptTwice,
    "argument of a partial": lambda app: partial(passed, app),
    "keyword of a partial": lambda app: partial(with_keyword, app=app),
    "bound method": lambda app: AsInner(app).serve,
    "several": lambda app: in_closure(AsInner(partial(passed, InSlot(app)))),
}
ROUTES: dict[str, Callable[[Any], Any]] = {
    "mount": lambda app: Mount("/at", app=app),
    "host": lambda app: Host("{any:str}", app),
    "route": lambda app: Route("/at/x", app, methods=["GET", "POST"]),
}
PLACES = [
    (route, wrapper)
    for route in ROUTES
    for wrapper in WRAPPERS
    # Starlette takes a function, or a partial of one, as a handler that is given a request.
    if route != "route"
    or wrapper in {"attribute app", "another attribute", "slot", "closure of a class", "several places"}
]


async def raw(scope: Any, receive: Any, send: Any) -> None:
    ran.append(scope["method"])
    await PlainTextResponse("secret")(scope, receive, send)


class Raw:
    __call__ = staticmethod(raw)


def view(app: StarletteApp) -> Any:
    class View(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            ran.append("GET")
            return PlainTextResponse("open")

        @app.guard(key)  # type: ignore[untyped-decorator]
        async def post(self, request: Request) -> Response:
            ran.append("POST")
            return PlainTextResponse("secret")

    return View


@pytest.mark.parametrize(("route", "wrapper"), PLACES)
async def test_a_marked_application_in_a_wrapper(route: str, wrapper: str) -> None:
    app = StarletteApp()
    app.guard.default = public
    app.app.router.routes.append(ROUTES[route](WRAPPERS[wrapper](app.guard(key)(Raw()))))
    bare = await send(Starlette(routes=app.app.router.routes), path="/at/x", headers=[(b"host", b"app.example")])
    assert (bare.problem, ran) == ("guard-not-applied", [])
    app.install()
    assert (await send(app.asgi(), path="/at/x", headers=[(b"host", b"app.example")])).status == 401
    assert ran == []
    assert (await send(app.asgi(), path="/at/x", headers=[(b"host", b"app.example"), KEY])).body == b"secret"


@pytest.mark.parametrize(("route", "wrapper"), PLACES)
async def test_a_marked_method_of_a_class_in_a_wrapper(route: str, wrapper: str) -> None:
    app, host = StarletteApp(), (b"host", b"app.example")
    app.guard.default = public
    app.app.router.routes.append(ROUTES[route](WRAPPERS[wrapper](view(app))))
    bare = await send(Starlette(routes=app.app.router.routes), "POST", path="/at/x", headers=[host])
    assert (bare.problem, ran) == ("guard-not-applied", [])
    app.install()
    assert (await send(app.asgi(), "POST", path="/at/x", headers=[host])).status == 401
    # The attack: a method override behind the policy runs the method that has another one.
    forged = await send(app.asgi(), path="/at/x", headers=[host, (b"x-http-method-override", b"POST")])
    assert (forged.status, ran) == (401, [])
    assert (await send(app.asgi(), path="/at/x", headers=[host])).body == b"open"
    assert (await send(app.asgi(), "POST", path="/at/x", headers=[host, KEY])).body == b"secret"
    assert ran == ["GET", "POST"]


async def test_an_application_that_wraps_itself_and_much_else() -> None:
    app = StarletteApp()
    app.guard.default = public
    ring = AsInner(Raw())
    ring.more = [ring.serve] * 3  # type: ignore[attr-defined]
    ring.itself = ring  # type: ignore[attr-defined]
    app.app.mount("/at", ring)
    app.install()
    assert (await send(app.asgi(), path="/at/x")).body == b"secret"


async def test_two_marked_applications_in_one_wrapper_are_asked_together() -> None:
    app = StarletteApp()
    app.guard.default = public
    both = AsInner(app.guard(key)(Raw()))
    both.other = app.guard(public)(Raw())  # type: ignore[attr-defined]
    app.app.mount("/at", both)
    app.install()
    assert (await send(app.asgi(), path="/at/x")).status == 401
    assert (await send(app.asgi(), path="/at/x", headers=[KEY])).body == b"secret"
