"""What the marks say of each handler of an application, and what is wrong with them. A list, never to enforce by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.routing import Host, Mount

from routeguard.core.errors import ConfigError
from routeguard.core.marks import policy_of
from routeguard.core.policy import joined
from routeguard.protection.adapters.starlette.gates import (
    TAKEN,
    has_lost_gate,
    policy_around_frontend,
    policy_of_router,
    routers_with,
)
from routeguard.protection.adapters.starlette.handlers import (
    asked,
    calls_of,
    handler_of,
    is_endpoint_class,
    is_frontend,
    marked,
    misplaced,
)
from routeguard.protection.adapters.starlette.hook import has_edge, hides_handler, is_hooked
from routeguard.protection.adapters.starlette.inner import HIDDEN
from routeguard.protection.adapters.starlette.inventory import fallback_of, handlers_at, host_of, places
from routeguard.protection.adapters.starlette.pages import docs_policy
from routeguard.protection.adapters.starlette.section import Section
from routeguard.protection.adapters.starlette.wrapping import is_router
from routeguard.protection.guard.inventory import Handler
from routeguard.protection.guard.matrix import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from routeguard.core.policy import Policy
    from routeguard.protection.adapters.starlette.inventory import Place
    from routeguard.protection.guard.guard import Guard

_UNHOOKED: Final = "its `handle` was replaced after its class was made, so the guard does not stand before it"
_LOST: Final = "its router was replaced after it was marked, so that its policy is not asked: mark it again"
_CLOSED: Final = (
    "the policy around it asks for a session, so no user could sign in: give it to install(default=...), or to a router"
)
_UNASKED: Final = "it carries a policy, which nothing asks here: mark handlers, routers and mounted applications"
_DEFAULT: Final = "a router's `default` answers by itself and is not guarded: mount it instead"


def entries(guard: Guard, app: Any, path: str = "", *, around: tuple[Any, ...] = (), host: str = "") -> Iterator[Entry]:
    """Yield every handler of an application or router, with what the marks on it and around it say.

    `path` and `host` are those that `app` is served at, `around` what it is mounted in: the policies of that are asked
    before, and decide for the unmarked. Applications with a guard of their own have a list of their own.
    """
    seen = _routers(around)
    if isinstance(app, Starlette):
        yield from _bound(guard, app, policy_of(app), path)
    for place in places(app, (*around, app), path=path, host=host):
        for each in _routers(place.around):
            if not any(each is known for known in seen):
                seen.append(each)
                yield from _bound(guard, each, policy_of(each), path)
        problem = _problem(guard, place)
        if problem is not None:
            yield Entry(Handler("*", place.path or "/", handler_of(place.route)), problem=problem)
        elif isinstance(place.route, (Mount, Host)):
            yield from _mounted(guard, place)
        else:
            yield from _entries_at(guard, place)
    if isinstance(app, Starlette):
        yield from _unasked(app, path)
    if (fallback := fallback_of(app)) is not None:
        yield Entry(Handler("*", f"{path}/*", fallback, "fallback"), problem=_DEFAULT)


def applications_below(app: Any, around: tuple[Any, ...] = ()) -> Iterator[tuple[Starlette, tuple[Any, ...]]]:
    """Yield the applications mounted in another, at any depth, each with what is around it.

    Those with a guard of their own are left out.
    """
    for place in places(app, (*around, app)):
        inner = handler_of(place.route) if isinstance(place.route, (Mount, Host)) else None
        if inner is None or not is_router(inner) or has_edge(inner):
            continue
        if isinstance(inner, Starlette):
            yield inner, place.within
        yield from applications_below(inner, place.within)


def _routers(around: tuple[Any, ...]) -> list[Any]:
    """Return the routers among what is around a route."""
    return [each.router if isinstance(each, Starlette) else each for each in around if is_router(each)]


def _above(around: tuple[Any, ...]) -> Policy | None:
    """Return the policy of what is around a route."""
    return joined(*(policy_of_router(each) for each in around))


def _problem(guard: Guard, place: Place) -> str | None:
    """Return why a route cannot be guarded as it should, or None."""
    route = place.route
    if (fault := misplaced(route, calls_of(place.holder))) is not None:
        return fault
    if not is_hooked(route):
        return _UNHOOKED
    if hides_handler(route, place.holder):
        return HIDDEN
    for router in routers_with(place.original or route):
        if all(router.routes is not each.routes for each in _routers(place.around)):
            return TAKEN
    if isinstance(route, (Mount, Host)) and has_lost_gate(handler_of(route)):
        return _LOST
    if isinstance(route, Section) and (above := _above(place.around)) is not None:
        return _CLOSED if guard.asks_for_session(above) else None
    return None


def _bound(guard: Guard, target: Any, policy: Policy | None, path: str) -> Iterator[Entry]:
    """Yield what is wrong with a policy that stands around others: it is bound by itself."""
    try:
        if policy is not None:
            guard.compile(policy, target, "http")
    except ConfigError as error:
        for finding in error.findings:
            yield Entry(Handler("*", f"{path}/*", target), problem=finding)


def _unasked(app: Starlette, prefix: str) -> Iterator[Entry]:
    """Yield what carries a mark in a place where no handler is chosen: middleware, error handlers, overrides."""
    places = list(app.exception_handlers.values())
    for middleware in app.user_middleware:
        places += [middleware.cls, *middleware.args, *middleware.kwargs.values()]
    places += getattr(app, "dependency_overrides", {}).values()
    for place in places:
        if policy_of(place) is not None and not is_router(place):
            yield Entry(Handler("*", f"{prefix}/*", place), problem=_UNASKED)


def _mounted(guard: Guard, place: Place) -> Iterator[Entry]:
    app = handler_of(place.route)
    if has_edge(app):
        return  # It has a guard, and so a list, of its own.
    if not is_router(app):
        yield from _entries_at(guard, place)
        return
    yield from _bound(guard, app, marked(place.route, original=place.original), place.path)
    yield from entries(guard, app, place.path, around=place.within, host=host_of(place))


def _entries_at(guard: Guard, place: Place) -> Iterator[Entry]:
    """Yield the handlers of a route."""
    route, above, original = place.route, _above(place.around), place.original
    if is_frontend(route):
        above = joined(above, policy_around_frontend(route))
    for handler in handlers_at(place):
        method = handler.method if is_endpoint_class(getattr(route, "endpoint", None)) else ""
        own = docs_policy(guard, handler.endpoint, marked(route, method, original))
        own = guard.frontend if handler.kind == "frontend" else own
        yield Entry(handler, asked=asked(guard, handler.calls), marked=own, above=above)
