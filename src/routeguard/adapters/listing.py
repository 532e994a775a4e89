"""Every handler of a Starlette or FastAPI application as an inventory entry. A list to look at, never to enforce by."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.routing import Host, Mount, Router, WebSocketRoute

from routeguard.adapters.handlers import (
    METHODS,
    asked,
    calls_of,
    handler_of,
    is_endpoint_class,
    is_frontend,
    is_router,
    marked,
    misplaced,
)
from routeguard.adapters.starlette import has_edge, is_hooked
from routeguard.core.marks import policy_of
from routeguard.guard.inventory import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from routeguard.core.policy import Policy
    from routeguard.guard.guard import Guard

_UNHOOKED: Final = "its `handle` was replaced after its class was made, so the guard does not stand before it"
_UNASKED: Final = "it carries a policy, which nothing asks here: mark handlers, routers and mounted applications"
_DEFAULT: Final = "a router's `default` answers by itself and is not guarded: mount it instead"


def entries(guard: Guard, app: Any, prefix: str = "", *, above: Policy | None = None) -> Iterator[Entry]:
    """Yield every handler of an application or router, with the application's own path templates.

    `above` is the policy of a mount it is in: it has been asked before, and decides for the unmarked.
    """
    for route, holder, local in _routes(app):
        path = prefix + local
        problem = misplaced(route, calls_of(holder)) or (None if is_hooked(route) else _UNHOOKED)
        if problem is not None:
            yield Entry("*", path or "/", handler_of(route), problem=problem)
        elif isinstance(route, (Mount, Host)):
            yield from _inside(guard, route, path, above)
        elif is_endpoint_class(getattr(route, "endpoint", None)) and not isinstance(route, WebSocketRoute):
            yield from _methods(route, path, above)
        else:
            yield from _endpoint(guard, route, holder, path, above)
    if isinstance(app, Starlette):
        yield from _unasked(app, prefix)
    router = app.router if isinstance(app, Starlette) else app
    if isinstance(router, Router) and router.default != router.not_found:
        yield Entry("*", f"{prefix}/*", router.default, problem=_DEFAULT)


def _routes(app: Any) -> Iterator[tuple[Any, Any, str]]:
    """Yield (route, what holds its dependencies, path), with routers included by FastAPI opened up."""
    fastapi: Any = sys.modules.get("fastapi.routing")
    router = getattr(app, "router", app)
    if fastapi is None or not isinstance(router, fastapi.APIRouter):
        for route in app.routes:
            yield route, route, getattr(route, "path", "")
        return
    for context in fastapi.iter_route_contexts(list(app.routes)):
        yield context.original_route, context, context.path or ""
    yield from _frontends(router)


def _frontends(router: Any) -> Iterator[tuple[Any, Any, str]]:
    """Yield what `frontend()` serves; FastAPI has no public name for it."""
    for group in router._low_priority_routes:  # noqa: SLF001
        for route in group.routes:
            yield group, group, route.path
    for route in router.routes:
        for context in getattr(route, "effective_low_priority_routes", tuple)():
            # FastAPI 0.138 makes a group with whole paths for each inclusion, later versions keep the prefix apart.
            group, prefix = context.starlette_route, getattr(context, "frontend_prefix", "")
            for served in (group or context.original_route).routes:
                yield context.original_route, context, prefix + served.path


def _unasked(app: Starlette, prefix: str) -> Iterator[Entry]:
    """Yield what carries a mark in a place where no handler is chosen: middleware, error handlers, overrides."""
    places = list(app.exception_handlers.values())
    for middleware in app.user_middleware:
        places += [middleware.cls, *middleware.args, *middleware.kwargs.values()]
    places += getattr(app, "dependency_overrides", {}).values()
    for place in places:
        if policy_of(place) is not None and not is_router(place):
            yield Entry("*", f"{prefix}/*", place, problem=_UNASKED)


def _inside(guard: Guard, route: Any, path: str, above: Policy | None) -> Iterator[Entry]:
    app, policy = handler_of(route), marked(route)
    if policy is not None and above is not None:
        policy = above & policy
    if has_edge(app):
        return  # It has a guard, and so a list, of its own.
    if is_router(app):
        yield from entries(guard, app, path, above=above if policy is None else policy)
    else:
        yield Entry("MOUNT", path or "/", app, above=above)


def _methods(route: Any, path: str, above: Policy | None) -> Iterator[Entry]:
    for method in METHODS:
        if getattr(route.endpoint, method, None) is not None and (not route.methods or method.upper() in route.methods):
            name = method.upper()
            yield Entry(name, path, handler_of(route, name), marked=marked(route, name), above=above)


def _endpoint(guard: Guard, route: Any, holder: Any, path: str, above: Policy | None) -> Iterator[Entry]:
    calls = calls_of(holder)
    wanted = asked(guard, calls)
    if isinstance(route, WebSocketRoute):
        yield Entry("WS", path, handler_of(route), kind="websocket", asked=wanted, calls=calls, above=above)
        return
    methods = getattr(route, "methods", None) or {"*"}
    for method in sorted(methods - {"HEAD"} or methods):
        own = guard.frontend if is_frontend(route) else None
        yield Entry(method, path, handler_of(route), asked=wanted, marked=own, calls=calls, above=above)
