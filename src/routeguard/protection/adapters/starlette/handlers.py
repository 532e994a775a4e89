"""What a route of Starlette or FastAPI runs, and what that carries: its handler, its marks, its parameters."""

from __future__ import annotations

import sys
from functools import partial
from inspect import getattr_static, iscoroutinefunction, isfunction, ismethod
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.routing import BaseRoute, Host, Mount, Route, WebSocketRoute

from routeguard.core.marks import MADE, is_in_need, policy_of
from routeguard.core.policy import joined
from routeguard.protection.adapters.starlette.gates import routers_with
from routeguard.protection.adapters.starlette.wrapping import hidden_in, is_router, wrapped_by
from routeguard.protection.guard.guard import handler_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from routeguard.core.policy import Policy
    from routeguard.protection.guard.asgi import Receive, Scope, Send
    from routeguard.protection.guard.guard import Guard

SEAMS: Final = (Route, WebSocketRoute, Mount, Host)
"""The route classes that the guard knows."""
METHODS: Final = ("get", "head", "post", "put", "patch", "delete", "options", "query")
"""What an `HTTPEndpoint` may define (RFC 9110 section 9 and the QUERY method)."""
UNMARKED: Final = "__routeguard_unmarked__"
_CALLED_BY_VIEWS: Final = frozenset(
    {
        *METHODS,
        "connect",
        "trace",
        "dispatch",
        "on_connect",
        "on_receive",
        "on_disconnect",
    }
)
USUAL: Final = frozenset(method.upper() for method in METHODS)


def original_of(route: Any, scope: Scope) -> Any:
    """Return the route that FastAPI made `route` of when its router was included, or None."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    return context.original_route if context is not None and context.starlette_route is route else None


def effective(route: Any, scope: Scope) -> Any:
    """Return what holds a route's dependencies: FastAPI makes one such object for each inclusion of a router."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    return context if context is not None and context.original_route is route else route


def handler_of(route: Any, method: str = "") -> Any:
    """Return the handler: the endpoint, its method on a class, or the mounted application."""
    if isinstance(route, Mount):
        return route._base_app  # noqa: SLF001 - the application without the mount's middleware around it
    if isinstance(route, Host):
        return route.app
    endpoint = getattr(route, "endpoint", route)
    if method and is_endpoint_class(endpoint):
        return method_of(endpoint, method) or endpoint
    return endpoint


def marked(route: Any, method: str = "", original: Any = None) -> Policy | None:
    """Return the policy a route's handler carries. A class and its method both count: marks add up.

    So do a mount and the application in it, and what that wraps. `original` is the route that FastAPI made this one of.
    """
    endpoint = handler_of(route)
    parts = [policy_of(place) for place in (route, original) if isinstance(place, (Mount, Host))]
    for each in (endpoint, *inside(route)):
        parts.append(policy_of(each))
        if method and is_endpoint_class(each):
            parts.append(policy_of(method_of(each, method)))
    return joined(*parts)


def inside(route: Any) -> tuple[Any, ...]:
    """Return what the application of a route wraps. A handler that takes a request is no application."""
    return tuple(wrapped_by(handler_of(route))) if holds_more(route) else ()


def holds_classes(route: Any) -> bool:
    """Whether a route ends in a class with a method for each HTTP method, by itself or behind what wraps it."""
    return any(is_endpoint_class(each) for each in (handler_of(route), *inside(route)))


def holds_more(route: Any) -> bool:
    """Whether a route hands requests to an application, in which there may be routes again."""
    endpoint = handler_of(route)
    while isinstance(endpoint, partial) and not isinstance(route, (Mount, Host)):
        endpoint = endpoint.func  # As Starlette does, to tell a handler from an application.
    return isinstance(route, (Mount, Host)) or not isinstance(endpoint, type | FunctionType | MethodType)


def method_of(endpoint: Any, method: str) -> Any:
    """Return the method of a class that an HTTP method runs, or None where only its own `dispatch` knows."""
    name, usual = method.lower(), dispatches(endpoint)
    found = getattr(endpoint, name, None) if name in METHODS or not usual else None
    if found is None and method == "HEAD":
        found = getattr(endpoint, "get", None)
    return endpoint.method_not_allowed if found is None and usual else found


def misplaced(route: Any, calls: Iterable[Any] = ()) -> str | None:
    """Return what is wrong with a route whose dependencies are `calls`: an unknown kind, or a mark nothing asks."""
    if not isinstance(route, SEAMS) and not is_frontend(route):
        return "this kind of route is not known, so it cannot be guarded"
    if not isinstance(route, (Mount, Host)) and policy_of(route) is not None:
        return "the mark is on the route object, where it can get lost: mark its endpoint, or the mounted application"
    for call in calls:
        if policy_of(call) is not None:
            return f"its dependency {handler_name(call)} carries a policy, which nothing asks there: mark the handler"
    if (hidden := _hidden(route)) is not None:
        return (
            f"{handler_name(hidden)} in it carries a policy that nothing asks: make the decorator around it with "
            "functools.wraps, or write @guard(...) above it"
        )
    unasked = sorted(_unasked(route))
    if unasked:
        return f"the policy of {', '.join(unasked)} is asked nowhere: mark the class, or the method of an HTTP method"
    return None


def _hidden(route: Any) -> Any:
    """Return the marked function that a decorator without `functools.wraps` made the unmarked handler of, or None.

    Its mark would be lost, and the default would decide for it.
    """
    handler = handler_of(route)
    if holds_more(route) or policy_of(handler) is not None:
        return None
    return next((each for each in hidden_in(handler) if policy_of(each) is not None), None)


def _unasked(route: Any) -> Iterator[str]:
    """Yield the marked methods of class-based handlers that are not chosen by the guard: their marks would be lost."""
    for each in (handler_of(route), *inside(route)):
        yield from _unasked_methods(each)


def _unasked_methods(handler: Any) -> Iterator[str]:
    if is_router(handler) or isfunction(handler) or ismethod(handler):
        return
    view = handler if isinstance(handler, type) else type(handler)
    for name in dir(view):
        if name in METHODS and is_endpoint_class(handler):
            continue
        # Of an object, any other method may be the handler of a route by itself.
        if view is not handler and name not in _CALLED_BY_VIEWS:
            continue
        if policy_of(getattr_static(view, name, None)) is not None:
            yield f"{view.__qualname__}.{name}"


def unguarded(route: Any, scope: Scope) -> str | None:
    """Return the name of a handler that may not run here, in an application without a guard; None where it may.

    That is one that carries a policy, has a dependency that does, or asks for what only a guard can give. What no
    mark concerns is remembered on the route until the next mark is made, so that it costs a look-up.
    """
    holder = effective(route, scope)
    count = MADE.count
    if holder.__dict__.get(UNMARKED) == count:
        return None
    method = scope.get("method", "")
    handler = handler_of(route, method)
    if marked(route, method, original_of(route, scope)) is not None or policy_of(route) is not None:
        return handler_name(handler)
    replaced = getattr(getattr(holder, "dependency_overrides_provider", None), "dependency_overrides", {})
    if any(is_in_need(call) or policy_of(call) is not None for call in calls_of(holder) if call not in replaced):
        return handler_name(handler)
    if _hidden(route) is not None or any(_unasked(route)) or any(routers_with(original_of(route, scope) or route)):
        return handler_name(handler)
    if not holds_classes(route):  # Their methods are marked one by one.
        holder.__dict__[UNMARKED] = count
    return None


def asked(guard: Guard, calls: Sequence[Any]) -> Policy | None:
    """Return the policy a handler asks for by its parameters; `calls` are its dependencies.

    A handler that takes a session needs one: asking is requiring, and it is required before the body is read.
    Plain Starlette handlers have no dependencies and ask for nothing.
    """
    policy: Policy | None = None
    for ask in guard.asks:
        if ask.call in calls:
            policy = ask.policy if policy is None else policy & ask.policy
    return policy


def calls_of(holder: Any) -> tuple[Any, ...]:
    """Return every dependency of a handler."""
    return tuple(_calls(getattr(holder, "dependant", None)))


def _calls(dependant: Any) -> Iterator[Any]:
    for child in getattr(dependant, "dependencies", ()):
        yield child.call
        yield from _calls(child)


def is_endpoint_class(endpoint: Any) -> bool:
    """Whether an endpoint is a class with a method for each HTTP method."""
    return isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint)


def is_frontend(route: Any) -> bool:
    """Whether a route serves the files of FastAPI's `app.frontend()`."""
    kind = frontend_class()
    return kind is not None and isinstance(route, kind)


def frontend_class() -> type[BaseRoute] | None:
    """Return the route class behind `app.frontend()`, which has no public name."""
    found: type[BaseRoute] | None = getattr(sys.modules.get("fastapi.routing"), "_FrontendRouteGroup", None)
    return found


def answers_405(route: Any, scope: Scope, *, chosen: bool = False) -> bool:
    """Whether the route is about to answer 405 by itself, without any handler.

    `chosen`: its own list of methods has been looked at already.
    """
    if scope["type"] != "http":
        return False
    methods = getattr(route, "methods", None)
    if methods and not chosen and scope["method"] not in methods:
        return True
    endpoint = handler_of(route)
    if not dispatches(endpoint) or endpoint.method_not_allowed is not HTTPEndpoint.method_not_allowed:
        return False
    return method_of(endpoint, scope["method"]) is endpoint.method_not_allowed


def dispatches(endpoint: Any) -> bool:
    """Whether an endpoint is a class that chooses its method as Starlette does."""
    return is_endpoint_class(endpoint) and endpoint.dispatch is HTTPEndpoint.dispatch


def is_invented(route: Any, scope: Scope) -> bool:
    """Whether a class is about to look for the method of its own that a caller's invented HTTP method names.

    Starlette 1.0 calls any attribute of that name, helpers and `dispatch` included (PURGE calls `purge`). No HTTP
    method but those of `METHODS` chooses a handler here, whatever the version.
    """
    return scope["type"] == "http" and scope["method"].lower() not in METHODS and dispatches(handler_of(route))


async def run_not_allowed(endpoint: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Run what a class answers to methods it does not have, as `HTTPEndpoint.dispatch` of later versions does."""
    request = Request(scope, receive)
    answer = endpoint(scope, receive, send).method_not_allowed
    found = answer(request) if iscoroutinefunction(answer) else run_in_threadpool(answer, request)
    await (await found)(scope, receive, send)


def providers(route: Any, scope: Any) -> Iterator[Any]:
    """Yield the applications whose `dependency_overrides` count for a route: those FastAPI would look at, first.

    The policy of a mount is asked before the application in it is entered: the overrides of that one come first.
    """
    provider = getattr(effective(route, scope), "dependency_overrides_provider", None)
    if provider is not None:
        yield provider
        return
    if isinstance(route, (Mount, Host)):
        yield from (handler_of(route), *inside(route))
    yield scope.get("app")
