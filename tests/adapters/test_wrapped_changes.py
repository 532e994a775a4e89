"""What a wrapper passes on is what policies are asked about, wherever the wrapper keeps the application."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Host, Mount, Route

from routeguard.app import Routeguard
from routeguard.core.errors import ConfigError
from routeguard.core.policy import public
from routeguard.protection.adapters.starlette.listing import entries
from routeguard.protection.guard.matrix import verify
from routeguard.protection.traffic.csrf import unsafe_without_csrf
from routeguard.protection.traffic.idempotent import idempotent
from routeguard.protection.traffic.rate_limit import rate_limit
from tests.adapters.starlette_app import FastAPIApp, StarletteApp
from tests.adapters.test_changed_requests import (
    FROM_AFAR,
    Changes,
    Raw,
    as_function,
    fastapi_sub,
    handler,
    override,
    ran,
    sub,
    use,
)
from tests.adapters.test_routeguard import SETTINGS, Person, identify
from tests.conformance.wire import KEY, key, send

if TYPE_CHECKING:
    from collections.abc import Callable

COVERS = ("protection/adapters/starlette/inner", "protection/adapters/starlette/wrapping")

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def nothing(_scope: Any) -> None:
    """Change nothing."""


class InSlot:
    __slots__ = ("__dict__", "_kept", "change")

    def __init__(self, app: Any, change: Any) -> None:
        self._kept, self.change = app, change

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._kept(self.change(scope) or scope, receive, send)


class InList:
    def __init__(self, app: Any, change: Any) -> None:
        self.kept, self.change = [{"first": app}], change

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.kept[0]["first"](self.change(scope) or scope, receive, send)


@dataclass(frozen=True)
class InDataclass:
    kept: Any
    change: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.kept(self.change(scope) or scope, receive, send)


async def passed(app: Any, change: Any, scope: Any, receive: Any, send: Any) -> None:
    await app(change(scope) or scope, receive, send)


def in_default(app: Any, change: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any, app: Any = app, *, change: Any = change) -> None:
        await app(change(scope) or scope, receive, send)

    return middleware


def in_method(app: Any, change: Any) -> Any:
    class Other:
        def __init__(self) -> None:
            self.run = InDataclass(app, change).__call__

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.run(scope, receive, send)

    return Other()


WRAPPERS: dict[str, Callable[[Any, Any], Any]] = {
    "attribute": Changes,
    "closure": as_function,
    "slot": InSlot,
    "list of dictionaries": InList,
    "frozen dataclass": InDataclass,
    "partial": lambda app, change: partial(passed, app, change),
    "default of a parameter": in_default,
    "bound method": in_method,
    "nested": lambda app, change: as_function(InList(Changes(app, nothing), change), nothing),
}
APPLICATIONS: dict[str, Callable[[], Any]] = {
    "an object": Raw,
    "a function": lambda: plain,
    "Starlette": lambda: sub(nothing),
    "FastAPI": lambda: fastapi_sub(nothing),
}
MARKED: dict[str, Callable[[Any, Any], Any]] = {
    "the wrapper": lambda mark, app: Mount("/", app=mark(app)),
    "the mount": lambda mark, app: mark(Mount("/", app=app)),
    "the host": lambda mark, app: mark(Host("{any:str}", app)),
    "the mount with a middleware": lambda mark, app: mark(Mount("/", app=app, middleware=use(nothing))),
}


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await Raw()(scope, receive, send)


async def overrides_are_judged(app: Any, guard: Any) -> None:
    guard.install(app)
    host = (b"host", b"app.example")
    forged = await send(app, path="/x", headers=[*FROM_AFAR, host, (b"x-http-method-override", b"POST")])
    assert (forged.status, forged.problem, ran) == (403, "forgery-suspected", [])
    assert (await send(app, path="/x", headers=[*FROM_AFAR, host])).canary
    own = [(b"cookie", b"user=ann"), (b"origin", b"https://app.example"), host]
    assert (await send(app, path="/x", headers=[*own, (b"x-http-method-override", b"POST")])).canary
    assert ran == ["GET", "POST"]


@pytest.mark.parametrize("marked", MARKED)
@pytest.mark.parametrize("application", APPLICATIONS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_the_mark_is_outside_the_wrapper(wrapper: str, application: str, marked: str) -> None:
    """CSRF-11: the wrapper makes a POST of a cross-site link, behind the policy that was asked about a GET."""
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = WRAPPERS[wrapper](APPLICATIONS[application](), override)
    if marked == "the wrapper" and wrapper == "frozen dataclass":
        with pytest.raises(ConfigError, match="cannot carry a policy"):
            guard(guard.session())(app)
        return
    await overrides_are_judged(Starlette(routes=[MARKED[marked](guard(guard.session()), app)]), guard)


@pytest.mark.parametrize("application", ["an object", "Starlette", "FastAPI"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_the_mark_is_inside_the_wrapper(wrapper: str, application: str) -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = WRAPPERS[wrapper](guard(guard.session())(APPLICATIONS[application]()), override)
    await overrides_are_judged(Starlette(routes=[Mount("/", app=app)]), guard)


@pytest.mark.parametrize("wrapper", ["attribute", "slot", "list of dictionaries", "bound method"])
async def test_a_marked_wrapper_is_the_endpoint_of_a_route(wrapper: str) -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = guard(guard.session())(WRAPPERS[wrapper](Raw(), override))
    await overrides_are_judged(Starlette(routes=[Route("/x", app)]), guard)


async def test_one_wrapper_that_is_mounted_twice() -> None:
    app = StarletteApp()
    wrapper = Changes(Raw(), override)
    for path in ("/one", "/two"):
        app.app.router.routes.append(app.guard(key)(Mount(path, app=wrapper)))
    app.install()
    for path in ("/one/x", "/two/x", "/one/x"):
        assert (await send(app.asgi(), path=path, headers=[KEY])).canary
        assert (await send(app.asgi(), path=path)).status == 401
    assert type(wrapper.app).__name__ == "Inner"
    assert isinstance(wrapper.app.app, Raw)


async def of_other_names(first: Any, second: Any, third: Any) -> None:
    await Raw()(first, second, third)


class OfOtherNames:
    __call__ = staticmethod(of_other_names)


@pytest.mark.parametrize("application", [of_other_names, OfOtherNames()])
async def test_an_application_whose_parameters_have_other_names(application: Any) -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    app = Changes(application, override)
    await overrides_are_judged(Starlette(routes=[guard(guard.session())(Mount("/", app=app))]), guard)


@pytest.mark.parametrize("first", [dict, lambda: ("a", "b")])
async def test_what_takes_three_values_and_is_no_application(first: Any) -> None:
    async def joined(one: Any, two: Any, three: Any) -> Any:
        return [one, two, three]

    app, wrapper = StarletteApp(), Changes(Raw(), nothing)
    wrapper.helper = joined  # type: ignore[attr-defined]
    app.app.router.routes.append(app.guard(key)(Mount("/", app=wrapper)))
    app.install()
    assert (await send(app.asgi(), path="/x", headers=[KEY])).canary
    assert await wrapper.helper(first(), 2, 3) == [first(), 2, 3]  # type: ignore[attr-defined]


async def test_an_application_that_cannot_be_reached_is_a_finding() -> None:
    app = StarletteApp()
    wrapper = Changes(None, override)
    wrapper.app = (Raw(),)
    app.app.router.routes.append(app.guard(key)(Mount("/", app=wrapper)))
    found = verify(app.guard, entries(app.guard, app.app), undecided_is_fatal=True)
    assert any("hides what it wraps" in line for line in found)
    app.install()
    assert (await send(app.asgi(), path="/x", headers=[KEY])).status == 500
    assert ran == []


# -- route classes of FastAPI -----------------------------------------------------------------------------------------


def wrapping(change: Any, wrapper: Any) -> type[APIRoute]:
    class Wrapping(APIRoute):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.app = wrapper(self.app, change)

    return Wrapping


def handing(change: Any) -> type[APIRoute]:
    class Handing(APIRoute):
        def get_route_handler(self) -> Any:
            original = super().get_route_handler()

            async def custom(request: Request) -> Response:
                scope = change(request.scope) or request.scope
                return await original(Request(scope, request.receive))

            return custom

    return Handing


def on_application(kind: type[APIRoute], mark: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.router.route_class = kind
    app.add_api_route("/x", mark(endpoint()), methods=["GET", "POST"])
    return app


def on_router(kind: type[APIRoute], mark: Any) -> FastAPI:
    app, router = FastAPI(openapi_url=None), APIRouter(route_class=kind)
    router.add_api_route("/x", mark(endpoint()), methods=["GET", "POST"])
    app.include_router(router)
    return app


def endpoint() -> Any:
    async def secret(request: Request) -> Response:
        return await handler(request)

    return secret


@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_a_route_class_that_wraps_its_application(wrapper: str) -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    kind = wrapping(override, WRAPPERS[wrapper])
    await overrides_are_judged(on_application(kind, guard(guard.session())), guard)


async def test_limits_count_once_in_a_route_class_that_wraps_its_application() -> None:
    guard: Routeguard[Person] = Routeguard(SETTINGS, user=Person, identify=identify)
    policy = guard.session() & rate_limit("1/minute") & idempotent() & unsafe_without_csrf()
    app = on_application(wrapping(lambda scope: scope["headers"].append((b"x-y", b"1")), Changes), guard(policy))
    guard.install(app)
    headers = [(b"x-user", b"ann"), (b"idempotency-key", b"k1")]
    assert (await send(app, "POST", "/x", headers)).canary
    assert (await send(app, "POST", "/x", [headers[0], (b"idempotency-key", b"k2")])).status == 429


CHANGES: dict[str, Callable[[Any], Any]] = {
    "other headers": lambda scope: scope.update(headers=[pair for pair in scope["headers"] if pair[0] != b"x-key"]),
    "a copy with other headers": lambda scope: dict(scope, headers=[]),
    "headers changed where they are": lambda scope: scope["headers"].clear(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("build", [on_application, on_router])
async def test_a_route_class_that_hands_on_another_request(build: Any, change: str) -> None:
    app = FastAPIApp()
    app.app = build(handing(CHANGES[change]), app.guard(key))
    app.install()
    assert (await send(app.asgi(), path="/x", headers=[KEY])).status == 401
    assert ran == []


@pytest.mark.parametrize("build", [on_application, on_router])
async def test_a_route_class_that_hands_on_the_same_request(build: Any) -> None:
    app = FastAPIApp()
    app.app = build(handing(nothing), app.guard(key))
    app.install()
    assert (await send(app.asgi(), path="/x", headers=[KEY])).canary
    assert (await send(app.asgi(), path="/x")).status == 401


@pytest.mark.parametrize("build", [on_application, on_router])
async def test_a_route_class_that_hands_on_another_method_is_refused(build: Any) -> None:
    app = FastAPIApp()
    app.app = build(handing(override), app.guard(key))
    app.install()
    answer = await send(app.asgi(), path="/x", headers=[KEY, (b"x-http-method-override", b"POST")])
    assert (answer.problem, ran) == ("guard-not-applied", [])


@pytest.mark.parametrize("build", [on_application, on_router])
async def test_a_route_class_that_swallows_the_refusal(build: Any) -> None:
    class Swallows(APIRoute):
        def get_route_handler(self) -> Any:
            original = super().get_route_handler()

            async def custom(request: Request) -> Response:
                try:
                    return await original(Request(dict(request.scope, headers=[]), request.receive))
                except Exception:
                    return Response("secret")

            return custom

    app = FastAPIApp()
    app.app = build(Swallows, app.guard(key))
    app.install()
    answer = await send(app.asgi(), path="/x", headers=[KEY])
    assert (answer.problem, ran) == ("guard-not-applied", [])


@pytest.mark.parametrize("build", [on_application, on_router])
async def test_a_route_class_that_makes_its_handler_anew_is_a_finding(build: Any) -> None:
    class Anew(APIRoute):
        def get_route_handler(self) -> Any:
            async def custom(request: Request) -> Response:
                return await APIRoute.get_route_handler(self)(request)

            return custom

    app = FastAPIApp()
    app.app = build(Anew, app.guard(public))
    found = verify(app.guard, entries(app.guard, app.app), undecided_is_fatal=True)
    assert any("hides what it wraps" in line for line in found)
    app.install()
    assert (await send(app.asgi(), path="/x")).status == 500
    assert ran == []


@pytest.mark.parametrize("kind", [wrapping(lambda s: {k: v for k, v in s.items() if k in PLAIN}, Changes)])
async def test_a_scope_of_its_own_making_is_refused(kind: type[APIRoute]) -> None:
    app = FastAPIApp()
    app.app = on_application(kind, app.guard(key))
    app.install()
    assert (await send(app.asgi(), path="/x", headers=[KEY])).problem == "guard-not-applied"
    assert ran == []


PLAIN = {"type", "method", "path", "headers", "query_string", "path_params", "http_version", "scheme"}
