"""Starlette: every handler is entered through its route's `handle`, and there the guard stands.

`BaseRoute.handle(scope, receive, send)` is the framework's one seam between "this handler was chosen" and "it
runs", for every kind of route, however deep it was included or mounted and whenever it was added. FastAPI makes
route objects of its own inside `include_router`, so the seam is taken on the classes, once a process; for
applications without a guard it is one dictionary look-up (docs/decisions/0002).
"""

from __future__ import annotations

import sys
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, Literal

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute

from routeguard.core.errors import ConfigError
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.marks import policy_of
from routeguard.core.problem import GUARD_NOT_APPLIED, Problem
from routeguard.guard.connection import Connection
from routeguard.guard.edge import enter
from routeguard.guard.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from routeguard.core.decision import Reply
    from routeguard.core.policy import Policy
    from routeguard.core.request import RequestView
    from routeguard.guard.connection import App, Receive, Scope, Send
    from routeguard.guard.guard import Compiled, Guard

_HOOKED: Final = "__routeguard_hook__"
_CACHE: Final = "__routeguard_compiled__"
_EDGE: Final = "__routeguard_edge__"
_SEAMS: Final = (Route, WebSocketRoute, Mount, Host)
METHODS: Final = ("get", "head", "post", "put", "patch", "delete", "options", "query")
"""What an `HTTPEndpoint` may define (RFC 9110 section 9 and the QUERY method)."""
_USUAL: Final = frozenset(method.upper() for method in METHODS)


def hook(kind: type[BaseRoute]) -> None:
    """Let the guard stand before `kind.handle`. Done once a class."""
    original: Any = kind.__dict__["handle"]
    if hasattr(original, _HOOKED):
        return

    async def handle(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope.get(SCOPE_KEY)
        if not isinstance(connection, Connection):
            await original(self, scope, receive, send)
            return
        seen = connection.request
        same = (
            seen.scope is scope and seen.raw_headers is scope["headers"] and seen.method == scope.get("method", "GET")
        )
        if not same and _changed(seen, scope):
            # A middleware inside the edge, or the route's own class, passed on other facts; the policy must see what
            # the handler will see.
            connection.look_again(scope)
        elif connection.current is self:
            await original(self, scope, receive, send)
            return
        ready = _ready(connection, self, scope)
        if isinstance(ready, Problem) and connection.guard.mode == "observe":
            connection.log(ready, "", "would be refused")
            ready = None
        proceed = original.__get__(self)
        if scope.get("method") not in _USUAL and _is_invented(self, scope):
            proceed = partial(_not_allowed, handler_of(self))
        if ready is None:
            reply = _preflight(connection, self, scope)
            if reply is None:
                await proceed(scope, receive, send)
            else:
                await connection.answer(reply, send=send)
        elif isinstance(ready, Problem):
            await connection.refuse(ready, send=send)
        else:
            connection.current = self
            await enter(connection, ready, proceed, (scope, receive, send))

    setattr(handle, _HOOKED, True)
    kind.handle = handle  # type: ignore[method-assign]


def hook_routes() -> None:
    """Take the seam of Starlette's route classes, and of every class made from them that has a `handle` of its own.

    FastAPI's are among them wherever it is loaded: its applications may be mounted in any other.
    """
    for kind in _SEAMS:
        for each in (kind, *_descendants(kind)):
            if "handle" in each.__dict__:
                hook(each)
    if (frontend := _frontend_class()) is not None:
        hook(frontend)


def is_hooked(route: Any) -> bool:
    """Whether the guard stands before this route."""
    return hasattr(type(route).handle, _HOOKED)


def is_frontend(route: Any) -> bool:
    """Whether a route serves the files of FastAPI's `app.frontend()`."""
    kind = _frontend_class()
    return kind is not None and isinstance(route, kind)


def _frontend_class() -> type[BaseRoute] | None:
    """Return the route class behind `app.frontend()`, which has no public name."""
    found: type[BaseRoute] | None = getattr(sys.modules.get("fastapi.routing"), "_FrontendRouteGroup", None)
    return found


def _descendants(kind: type[BaseRoute]) -> Iterator[type[BaseRoute]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


def _changed(request: RequestView, scope: Scope) -> bool:
    """Whether the facts are others by now. Reading `Request.headers` alone makes a new, equal list."""
    headers = scope["headers"]
    return (
        request.scope is not scope
        or request.raw_headers != headers
        or (request.kind == "http" and request.method != scope["method"])
    )


def _answers_405(route: Any, scope: Scope) -> bool:
    """Whether the route is about to answer 405 by itself, without any handler."""
    if scope["type"] != "http":
        return False
    methods = getattr(route, "methods", None)
    if methods and scope["method"] not in methods:
        return True
    endpoint = handler_of(route)
    if not _dispatches(endpoint) or endpoint.method_not_allowed is not HTTPEndpoint.method_not_allowed:
        return False
    return _method_of(endpoint, scope["method"]) is endpoint.method_not_allowed


def _dispatches(endpoint: Any) -> bool:
    """Whether an endpoint is a class that chooses its method as Starlette does."""
    return is_endpoint_class(endpoint) and endpoint.dispatch is HTTPEndpoint.dispatch


def _is_invented(route: Any, scope: Scope) -> bool:
    """Whether a class is about to look for the method of its own that a caller's invented HTTP method names.

    Starlette 1.0 calls any attribute of that name, helpers and `dispatch` included (PURGE calls `purge`). No HTTP
    method but those of `METHODS` chooses a handler here, whatever the version.
    """
    return scope["type"] == "http" and scope["method"].lower() not in METHODS and _dispatches(handler_of(route))


async def _not_allowed(endpoint: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Run what a class answers to methods it does not have, as `HTTPEndpoint.dispatch` of later versions does."""
    request = Request(scope, receive)
    answer = endpoint(scope, receive, send).method_not_allowed
    found = answer(request) if iscoroutinefunction(answer) else run_in_threadpool(answer, request)
    await (await found)(scope, receive, send)


def _preflight(connection: Connection, route: Any, scope: Scope) -> Reply | None:
    """Answer a browser that asks for leave before it sends a method this route has a handler for (attack CSRF-21).

    It carries no credential and has no handler, so it is answered here, by the `cors()` of the first route on the path.
    """
    if connection.request.method != "OPTIONS" or not _answers_405(route, scope):
        return None
    policy = connection.guard.settle(marked(route), None)
    return None if policy is None else connection.guard.preflight(policy, connection.request)


def _ready(connection: Connection, route: Any, scope: Scope) -> Compiled | Problem | None:
    """Return the compiled policy for the handler chosen; None where no handler is entered here.

    A handler without any is a Problem here, before it runs. Kept on the route object, so late routes work too.
    """
    holder = effective(route, scope)
    cache: tuple[Guard, dict[tuple[str, bool], Compiled]] | None = holder.__dict__.get(_CACHE)
    if cache is None or cache[0] is not connection.guard:
        cache = holder.__dict__[_CACHE] = (connection.guard, {})
    # A mount above may have decided on one way to this route and not on another: the two are kept apart.
    key = (scope.get("method", "WS"), connection.decision is None)
    ready: Compiled | Problem | None = cache[1].get(key)
    if ready is not None or _answers_405(route, scope):
        return ready
    try:
        ready = _compile(connection, route, holder, key[0])
    except ConfigError as error:
        logger.error("a policy added late cannot be bound, and its route is refused: %s", error)
        return GUARD_NOT_APPLIED(debug=str(error))
    # Methods nobody declared are sent by somebody who invents them: not worth the memory.
    if not isinstance(ready, Problem) and ready is not None and (key[0] == "WS" or key[0].lower() in METHODS):
        cache[1][key] = ready
    return ready


def _compile(connection: Connection, route: Any, holder: Any, method: str) -> Compiled | Problem | None:
    handler = handler_of(route, method)
    if (fault := misplaced(route)) is not None:
        return GUARD_NOT_APPLIED(debug=fault)
    guard = connection.guard
    policy = guard.frontend if is_frontend(route) else marked(route, method)
    if policy is None and isinstance(route, (Mount, Host)) and is_router(handler):
        return None  # The routes below carry their own decisions.
    # A mount above may have a policy for all that is in it.
    above = connection.decision is not None
    policy = guard.settle(policy, asked(guard, holder)[0], above=above)
    if policy is None:
        return None if above else GUARD_NOT_APPLIED(debug=f"{handler!r} has no policy that says who may call")
    kind: Literal["http", "websocket"] = connection.request.kind
    return guard.compile(policy, handler, kind)


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
        return _method_of(endpoint, method) or endpoint
    return endpoint


def marked(route: Any, method: str = "") -> Policy | None:
    """Return the policy a route's handler carries. A class and its method both count: marks add up."""
    endpoint = handler_of(route)
    policy = policy_of(endpoint)
    if method and is_endpoint_class(endpoint):
        own = policy_of(_method_of(endpoint, method))
        policy = own if policy is None else policy if own is None else policy & own
    return policy


def _method_of(endpoint: Any, method: str) -> Any:
    """Return the method of a class that an HTTP method runs, or None where only its own `dispatch` knows."""
    name = method.lower()
    if not _dispatches(endpoint):
        return getattr(endpoint, name, None)
    found = getattr(endpoint, name, None) if name in METHODS else None
    if found is None and method == "HEAD":
        found = getattr(endpoint, "get", None)
    return endpoint.method_not_allowed if found is None else found


def misplaced(route: Any) -> str | None:
    """Return what is wrong when a route object itself is marked; FastAPI drops such objects on inclusion."""
    if isinstance(route, _SEAMS) and policy_of(route) is not None:
        return "the mark is on the route object, where it can get lost: mark its endpoint, or the mounted application"
    return None


def asked(guard: Guard, route: Any) -> tuple[Policy | None, tuple[Any, ...]]:
    """Return the policy a handler asks for by its parameters, and every dependency it has.

    A handler that takes a session needs one: asking is requiring, and it is required before the body is read.
    Plain Starlette handlers have no dependencies and ask for nothing.
    """
    calls = tuple(_calls(getattr(route, "dependant", None)))
    policy: Policy | None = None
    for ask in guard.asks:
        if ask.call in calls:
            policy = ask.policy if policy is None else policy & ask.policy
    return policy, calls


def _calls(dependant: Any) -> Iterator[Any]:
    for child in getattr(dependant, "dependencies", ()):
        yield child.call
        yield from _calls(child)


def is_endpoint_class(endpoint: Any) -> bool:
    """Whether an endpoint is a class with a method for each HTTP method."""
    return isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint)


def is_router(app: Any) -> bool:
    """Whether `app` hands requests to routes that the guard stands before. Other frameworks' `routes` are not."""
    return isinstance(app, (Starlette, Router))


def has_edge(app: Any) -> bool:
    """Whether a guard of its own is installed in `app`."""
    return bool(getattr(app, _EDGE, False))


def wrap(app: Starlette, edge: Callable[[App], App]) -> None:
    """Put the edge around everything the application will build, its error pages included.

    Raises RuntimeError when the application has served a request already, or has a guard.
    """
    if app.middleware_stack is not None:
        raise RuntimeError("install the guard before the application serves its first request")
    if has_edge(app):
        raise RuntimeError("a guard is installed in this application already")
    setattr(app, _EDGE, True)
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: edge(build())  # type: ignore[method-assign]
