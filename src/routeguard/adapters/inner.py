"""Behind a route's own middleware: the policy is asked again where that has passed on other facts.

``Route(..., middleware=[...])`` and ``Mount(..., middleware=[...])`` wrap the handler; the guard stands before both.
A middleware there that makes a POST of a GET would run the handler of a method that no policy was asked about. So a
second look is put between the innermost middleware and the handler, once, when the route is first entered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from operator import is_
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from starlette.routing import Host, Mount, Route, WebSocketRoute

from routeguard.adapters.handlers import handler_of, inside, is_endpoint_class
from routeguard.adapters.wrapping import is_router, references
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.marks import policy_of
from routeguard.guard.connection import Connection

if TYPE_CHECKING:
    from routeguard.guard.connection import App, Receive, Scope, Send

HIDDEN: Final = (
    "its middleware hides what it wraps, so the policy cannot be asked about what that gets: keep it as `app`"
)
_INNER: Final = "__routeguard_inner__"
_DEEPEST: Final = 32
_FRAMEWORKS: Final = frozenset({"starlette.routing", "fastapi.routing"})
_ENDPOINTS: Final = frozenset({"request_response.<locals>.app", "websocket_session.<locals>.app"})

Look: TypeAlias = "Callable[[Connection, App, Scope, Receive, Send], Awaitable[None]]"


class Inner:
    """The second look: an ASGI application around the handler."""

    def __init__(self, app: App, look: Look) -> None:
        self.app = app
        self.look = look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at what the middleware passes on, and run the handler."""
        connection = scope.get(SCOPE_KEY)
        if isinstance(connection, Connection):
            await self.look(connection, self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)


def stand_inside(route: Any, look: Look) -> bool:
    """Put the second look where there is middleware. False where it cannot be seen what the middleware wraps."""
    if not has_middleware(route):
        return True
    if not vars(route).get(_INNER, False):
        vars(route)[_INNER] = all(
            _insert(route, is_target, lambda app: Inner(app, look), 0, set()) for is_target in _targets(route)
        )
    return bool(vars(route)[_INNER])


def has_middleware(route: Any) -> bool:
    """Whether something of the application's own runs between a route and its handler."""
    if not isinstance(route, Route | WebSocketRoute | Mount | Host) or hasattr(route, "get_route_handler"):
        return False
    if _decided(route):
        return True
    handler = handler_of(route)
    if isinstance(route, Mount | Host):
        return route.app is not handler and not is_router(handler)
    return not _is_endpoint(route.app, handler)


def _decided(route: Any) -> list[Any]:
    """Return what the application of a route wraps and a policy is asked for: what is marked, and what has methods."""
    return [
        each
        for each in inside(route)
        if not is_router(each) and (is_endpoint_class(each) or policy_of(each) is not None)
    ]


def _targets(route: Any) -> list[Callable[[Any], bool]]:
    """Return what tells the places before which the second look stands."""
    handler, decided = handler_of(route), _decided(route)
    if not decided and not isinstance(route, Mount | Host):
        return [lambda app: _is_endpoint(app, handler)]
    return [partial(is_, each) for each in decided or [handler]]


def _is_endpoint(app: Any, handler: Any) -> bool:
    """Whether `app` is the handler itself, or what the framework made of a function."""
    made = isinstance(app, FunctionType) and app.__module__ in _FRAMEWORKS and app.__qualname__ in _ENDPOINTS
    return app is handler or made


def _insert(
    holder: Any, is_target: Callable[[Any], bool], make: Callable[[Any], Inner], depth: int, seen: set[int]
) -> bool:
    """Replace the application that a chain of middleware ends in, in every place that keeps it: any may be called."""
    if depth > _DEEPEST or id(holder) in seen:
        return False
    seen.add(id(holder))
    found, nexts = False, []
    # Of a route only `app` is called.
    for kept, put in [(holder.app, partial(setattr, holder, "app"))] if depth == 0 else list(references(holder)):
        if is_target(kept) and put is not None:
            put(make(kept))
            found = True
        elif callable(kept) and not isinstance(kept, type):
            nexts.append(kept)
    for each in nexts:
        found = _insert(each, is_target, make, depth + 1, seen) or found
    return found
