"""Every handler of a Starlette or FastAPI application as an inventory entry. A list to look at, never to enforce by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.routing import Host, Mount, Router, WebSocketRoute

from routeguard.adapters.gates import (
    TAKEN,
    has_lost_gate,
    policy_around_frontend,
    policy_of_router,
    routers_with,
)
from routeguard.adapters.handlers import (
    METHODS,
    asked,
    calls_of,
    handler_of,
    is_endpoint_class,
    is_frontend,
    marked,
    misplaced,
)
from routeguard.adapters.inner import HIDDEN
from routeguard.adapters.pages import docs_policy
from routeguard.adapters.section import Section
from routeguard.adapters.starlette import has_edge, hides_handler, is_hooked
from routeguard.adapters.wrapping import is_router
from routeguard.core.errors import ConfigError
from routeguard.core.marks import policy_of
from routeguard.core.policy import joined
from routeguard.guard.inventory import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from routeguard.core.policy import Policy
    from routeguard.guard.guard import Guard

_UNHOOKED: Final = "its `handle` was replaced after its class was made, so the guard does not stand before it"
_LOST: Final = "its router was replaced after it was marked, so that its policy is not asked: mark it again"
_CLOSED: Final = (
    "the policy around it asks for a session, so nobody could sign in: give it to install(default=...), or to a router"
)
_UNASKED: Final = "it carries a policy, which nothing asks here: mark handlers, routers and mounted applications"
_DEFAULT: Final = "a router's `default` answers by itself and is not guarded: mount it instead"


def entries(
    guard: Guard, app: Any, prefix: str = "", *, above: Policy | None = None, inside: tuple[Any, ...] = ()
) -> Iterator[Entry]:
    """Yield every handler of an application or router, with the application's own path templates.

    `above` is the policy of what is around it, mounts and marked routers: it is asked before, and decides for the
    unmarked. `inside` are those routers.
    """
    router = app.router if isinstance(app, Starlette) else app
    above, seen = joined(above, policy_of_router(app)), [*inside]
    if app is not router:
        yield from _bound(guard, app, policy_of(app), prefix)
    for place in _places(app, above, (*inside, router)):
        route, path = place.route, prefix + place.path
        for each in place.inside:
            if not any(each is known for known in seen):
                seen.append(each)
                yield from _bound(guard, each, policy_of(each), prefix)
        problem = _problem(guard, place)
        if problem is not None:
            yield Entry("*", path or "/", handler_of(route), problem=problem)
        elif isinstance(route, (Mount, Host)):
            yield from _inside(guard, place, path)
        elif is_endpoint_class(getattr(route, "endpoint", None)) and not isinstance(route, WebSocketRoute):
            yield from _methods(route, path, place.above)
        else:
            yield from _endpoint(guard, place, path)
    if isinstance(app, Starlette):
        yield from _unasked(app, prefix)
    if isinstance(router, Router) and router.default != router.not_found:
        yield Entry("*", f"{prefix}/*", router.default, problem=_DEFAULT)


def applications_below(app: Any, above: Policy | None = None) -> Iterator[tuple[Starlette, Policy | None]]:
    """Yield the applications mounted in another, at any depth, each with the policies around it.

    Those with a guard of their own are left out.
    """
    router = app.router if isinstance(app, Starlette) else app
    for place in _places(app, joined(above, policy_of_router(app)), (router,)):
        inner = handler_of(place.route) if isinstance(place.route, (Mount, Host)) else None
        if inner is None or not is_router(inner) or has_edge(inner):
            continue
        around = joined(place.above, policy_of(place.original or place.route))
        if isinstance(inner, Starlette):
            yield inner, around
        yield from applications_below(inner, around)


@dataclass(frozen=True, slots=True)
class _Place:
    """A route where it is served."""

    route: Any
    original: Any
    """The route that FastAPI made this one of when it included a router."""
    holder: Any
    """What holds its dependencies."""
    path: str
    above: Policy | None
    inside: tuple[Any, ...]


def _places(app: Any, above: Policy | None, inside: tuple[Any, ...]) -> Iterator[_Place]:
    """Yield the routes of an application or router, with routers included by FastAPI opened up."""
    router = getattr(app, "router", app)
    for route in router.routes if isinstance(router, Router) else app.routes:
        if (included := getattr(route, "original_router", None)) is not None:
            yield from _included(route, joined(above, policy_of_router(included)), (*inside, included))
        else:
            yield _Place(route, None, route, getattr(route, "path", ""), above, inside)
    for group, context, path in _frontends(router):
        yield _Place(group, None, context, path, joined(above, policy_around_frontend(group)), inside)


def _included(branch: Any, above: Policy | None, inside: tuple[Any, ...]) -> Iterator[_Place]:
    """Yield the routes below one inclusion of a router; FastAPI has no public name for the tree of them."""
    for candidate in branch.effective_candidates():
        if (router := getattr(candidate, "original_router", None)) is not None:
            yield from _included(candidate, joined(above, policy_of_router(router)), (*inside, router))
        else:
            original, served = candidate.original_route, candidate.starlette_route or candidate
            route = served if isinstance(original, (Mount, Host)) else original
            yield _Place(route, original, served, getattr(served, "path", None) or "", above, inside)


def _problem(guard: Guard, place: _Place) -> str | None:
    """Return why a route cannot be guarded as it should, or None."""
    route = place.route
    if (fault := misplaced(route, calls_of(place.holder))) is not None:
        return fault
    if not is_hooked(route):
        return _UNHOOKED
    if hides_handler(route, place.holder):
        return HIDDEN
    for router in routers_with(place.original or route):
        if all(router.routes is not each.routes for each in place.inside):
            return TAKEN
    if isinstance(route, (Mount, Host)) and has_lost_gate(handler_of(route)):
        return _LOST
    if isinstance(route, Section) and place.above is not None:
        return _CLOSED if guard.asks_for_session(place.above) else None
    return None


def _bound(guard: Guard, target: Any, policy: Policy | None, path: str) -> Iterator[Entry]:
    """Yield what is wrong with a policy that stands around others: it is bound by itself."""
    try:
        if policy is not None:
            guard.compile(policy, target, "http")
    except ConfigError as error:
        for finding in error.findings:
            yield Entry("*", f"{path}/*", target, problem=finding)


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


def _unasked(app: Starlette, prefix: str) -> Iterator[Entry]:
    """Yield what carries a mark in a place where no handler is chosen: middleware, error handlers, overrides."""
    places = list(app.exception_handlers.values())
    for middleware in app.user_middleware:
        places += [middleware.cls, *middleware.args, *middleware.kwargs.values()]
    places += getattr(app, "dependency_overrides", {}).values()
    for place in places:
        if policy_of(place) is not None and not is_router(place):
            yield Entry("*", f"{prefix}/*", place, problem=_UNASKED)


def _inside(guard: Guard, place: _Place, path: str) -> Iterator[Entry]:
    route = place.route
    app, policy = handler_of(route), marked(route, original=place.original)
    if has_edge(app):
        return  # It has a guard, and so a list, of its own.
    if not is_router(app):
        yield Entry("MOUNT", path or "/", app, marked=policy, above=place.above)
        return
    yield from _bound(guard, app, policy, path)
    # What the application carries itself is added by its own list.
    yield from entries(
        guard, app, path, above=joined(place.above, policy_of(place.original or route)), inside=place.inside
    )


def _methods(route: Any, path: str, above: Policy | None) -> Iterator[Entry]:
    for method in METHODS:
        if getattr(route.endpoint, method, None) is not None and (not route.methods or method.upper() in route.methods):
            name = method.upper()
            yield Entry(name, path, handler_of(route, name), marked=marked(route, name), above=above)


def _endpoint(guard: Guard, place: _Place, path: str) -> Iterator[Entry]:
    route, above, calls = place.route, place.above, calls_of(place.holder)
    wanted, own = asked(guard, calls), docs_policy(guard, handler_of(route), marked(route))
    if isinstance(route, WebSocketRoute):
        yield Entry("WS", path, handler_of(route), "websocket", asked=wanted, marked=own, calls=calls, above=above)
        return
    methods = getattr(route, "methods", None) or {"*"}
    for method in sorted(methods - {"HEAD"} or methods):
        own = guard.frontend if is_frontend(route) else own
        yield Entry(method, path, handler_of(route), asked=wanted, marked=own, calls=calls, above=above)
