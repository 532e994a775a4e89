"""Every handler of a Starlette or FastAPI application, as facts: of one that was never guarded, too.

Nothing is patched, and no mark is read. FastAPI's parts are known by what they have, so that it need not be loaded.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import Host, Mount, Router, WebSocketRoute

from routeguard.protection.adapters.starlette.handlers import METHODS, SEAMS, handler_of, is_endpoint_class, is_frontend
from routeguard.protection.adapters.starlette.pages import is_docs
from routeguard.protection.adapters.starlette.wrapping import is_router, wrapped_by
from routeguard.protection.guard.inventory import Dependency, Handler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from routeguard.protection.guard.inventory import HandlerKind


@dataclass(frozen=True, slots=True)
class Place:
    """A route where it is served."""

    route: Any
    original: Any
    """The route that FastAPI made this one of when it included a router."""
    holder: Any
    """What holds its dependencies."""
    path: str
    around: tuple[Any, ...]
    """The applications, routers and mounts around it, outermost first."""
    host: str = ""

    @property
    def within(self) -> tuple[Any, ...]:
        """What is around that which is mounted here: the mount too."""
        return (*self.around, self.original or self.route)


def handlers(app: Any, *, path: str = "", around: tuple[Any, ...] = (), host: str = "") -> Iterator[Handler]:
    """Yield every handler of an application or router, those of mounted applications too, wrapped or not.

    `path` and `host` are those that `app` is served at, `around` what it is mounted in.
    """
    around = (*around, app)
    for place in places(app, around, path=path, host=host):
        inner = handler_of(place.route)
        if not isinstance(place.route, (Mount, Host)):
            yield from handlers_at(place)
            continue
        if not is_router(inner):
            yield from handlers_at(place)
        served_at = host_of(place)
        for each in [inner] if is_router(inner) else wrapped_by(inner):
            # One that hands requests back to what it is mounted in has no other handlers than that.
            if is_router(each) and not any(each is known for known in around):
                yield from handlers(each, path=place.path, around=place.within, host=served_at)
    if (fallback := fallback_of(app)) is not None:
        yield Handler("*", f"{path}/*", fallback, "fallback", host=host, around=around)


def fallback_of(app: Any) -> Any:
    """Return what a router answers by where no route matches, unless it is the framework's own 404; else None."""
    router = app.router if isinstance(app, Starlette) else app
    return router.default if isinstance(router, Router) and router.default != router.not_found else None


def places(app: Any, around: tuple[Any, ...], *, path: str = "", host: str = "") -> Iterator[Place]:
    """Yield the routes of an application or router, with routers included by FastAPI opened up.

    `around` is what is around them, `app` itself included; `path` and `host` are those `app` is served at.
    """
    router = getattr(app, "router", app)
    for route in router.routes if isinstance(router, Router) else app.routes:
        if (included := getattr(route, "original_router", None)) is not None:
            yield from _included(route, (*around, included), path, host)
        else:
            yield Place(route, None, route, path + getattr(route, "path", ""), around, host)
    for group, context, below in _frontends(router):
        yield Place(group, None, context, path + below, around, host)


def _included(branch: Any, around: tuple[Any, ...], path: str, host: str) -> Iterator[Place]:
    """Yield the routes below one inclusion of a router; FastAPI has no public name for the tree of them."""
    for candidate in branch.effective_candidates():
        if (router := getattr(candidate, "original_router", None)) is not None:
            yield from _included(candidate, (*around, router), path, host)
        else:
            original, served = candidate.original_route, candidate.starlette_route or candidate
            route = served if isinstance(original, (Mount, Host)) else original
            yield Place(route, original, served, path + (getattr(served, "path", None) or ""), around, host)


def _frontends(router: Any) -> Iterator[tuple[Any, Any, str]]:
    """Yield what `frontend()` serves; FastAPI has no public name for it."""
    for group in getattr(router, "_low_priority_routes", ()):
        for route in group.routes:
            yield group, group, route.path
    for route in router.routes:
        for context in getattr(route, "effective_low_priority_routes", tuple)():
            # FastAPI 0.138 makes a group with whole paths for each inclusion, later versions keep the prefix apart.
            group, prefix = context.starlette_route, getattr(context, "frontend_prefix", "")
            for served in (group or context.original_route).routes:
                yield context.original_route, context, prefix + served.path


def handlers_at(place: Place) -> Iterator[Handler]:
    """Yield the handlers of one route: one for each method, and of a mount the application."""
    route = place.route
    for method, endpoint in _chosen(route):
        yield Handler(
            method,
            place.path or ("/" if isinstance(route, (Mount, Host)) else ""),
            endpoint,
            _kind(route, endpoint),
            name=getattr(place.holder, "name", None) or "",
            host=host_of(place),
            dependencies=_dependencies(getattr(place.holder, "dependant", None)),
            include_in_schema=bool(getattr(place.holder, "include_in_schema", False)),
            around=place.around,
            route=route,
        )


def host_of(place: Place) -> str:
    """Return the template of the host that a route is served for, or an empty text."""
    return place.route.host if isinstance(place.route, Host) else place.host


def _chosen(route: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a route runs for each method."""
    endpoint, methods = getattr(route, "endpoint", None), getattr(route, "methods", None)
    if isinstance(route, (Mount, Host)):
        yield "MOUNT", handler_of(route)
    elif isinstance(route, WebSocketRoute):
        yield "WS", handler_of(route)
    elif is_endpoint_class(endpoint):
        for method in METHODS:
            if getattr(endpoint, method, None) is not None and (not methods or method.upper() in methods):
                yield method.upper(), handler_of(route, method.upper())
    else:
        named = methods or {"*"}
        for method in sorted(named - {"HEAD"} or named):
            yield method, handler_of(route)


def _kind(route: Any, endpoint: Any) -> HandlerKind:
    if is_frontend(route):
        return "frontend"
    if not isinstance(route, SEAMS):
        return "unknown"
    if isinstance(route, WebSocketRoute):
        return "websocket"
    files = getattr(sys.modules.get("starlette.staticfiles"), "StaticFiles", None)
    if files is not None and isinstance(endpoint, files):
        return "static"
    if isinstance(route, (Mount, Host)):
        return "mount"
    return "docs" if is_docs(endpoint) else "http"


def _dependencies(dependant: Any) -> tuple[Dependency, ...]:
    return tuple(Dependency(each.call, _dependencies(each)) for each in getattr(dependant, "dependencies", ()))
