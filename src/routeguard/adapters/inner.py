"""Behind a route's own middleware: the policy is asked again where that has passed on other facts.

``Route(..., middleware=[...])`` and ``Mount(..., middleware=[...])`` wrap the handler; the guard stands before both.
A middleware there that makes a POST of a GET would run the handler of a method that no policy was asked about. So a
second look is put between the innermost middleware and the handler, once, when the route is first entered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from starlette.routing import Host, Mount, Route, WebSocketRoute

from routeguard.adapters.handlers import handler_of, is_router, wrapped_by
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
        vars(route)[_INNER] = _insert(route, _is_innermost(route), lambda app: Inner(app, look), 0, set())
    return bool(vars(route)[_INNER])


def has_middleware(route: Any) -> bool:
    """Whether something of the application's own runs between a route and its handler."""
    if not isinstance(route, Route | WebSocketRoute | Mount | Host) or hasattr(route, "get_route_handler"):
        return False
    handler = handler_of(route)
    if _marked_inside(handler):
        return True
    if isinstance(route, Mount | Host):
        return route.app is not handler and not is_router(handler)
    return not _is_endpoint(route.app, handler)


def _marked_inside(handler: Any) -> list[Any]:
    """Return the marked applications that a handler wraps: then it is a middleware itself."""
    return [inner for inner in wrapped_by(handler) if policy_of(inner) is not None and not is_router(inner)]


def _is_innermost(route: Any) -> Callable[[Any], bool]:
    handler = handler_of(route)
    marked = _marked_inside(handler)
    if marked or isinstance(route, Mount | Host):
        target = marked[-1] if marked else handler
        return lambda app: app is target
    return lambda app: _is_endpoint(app, handler)


def _is_endpoint(app: Any, handler: Any) -> bool:
    """Whether `app` is the handler itself, or what the framework made of a function."""
    made = isinstance(app, FunctionType) and app.__module__ in _FRAMEWORKS and app.__qualname__ in _ENDPOINTS
    return app is handler or made


def _insert(
    holder: Any, is_target: Callable[[Any], bool], make: Callable[[Any], Inner], depth: int, seen: set[int]
) -> bool:
    """Replace the application that a chain of middleware ends in, wherever the last of them keeps it."""
    if depth > _DEEPEST or id(holder) in seen:
        return False
    seen.add(id(holder))
    nexts: list[Any] = []
    for name, kept in _references(holder, only_app=depth == 0):
        if is_target(kept):
            vars(holder)[name] = make(kept)
            return True
        nexts.append(kept)
    for cell in _cells(holder):
        if is_target(cell.cell_contents):
            cell.cell_contents = make(cell.cell_contents)
            return True
        nexts.append(cell.cell_contents)
    followed = [each for each in nexts if callable(each) and not isinstance(each, type)]
    return any(_insert(each, is_target, make, depth + 1, seen) for each in followed)


def _references(holder: Any, *, only_app: bool) -> list[tuple[str, Any]]:
    """Return the attributes of a middleware, `app` first. Of a route only that is called."""
    kept = vars(holder) if hasattr(holder, "__dict__") else {}
    names = ["app"] if only_app else sorted(kept, key=lambda name: name != "app")
    return [(name, kept[name]) for name in names if name in kept]


def _cells(holder: Any) -> list[CellType]:
    """Return what a middleware written as a function keeps."""
    found = holder.__closure__ or () if isinstance(holder, FunctionType) else ()
    return [cell for cell in found if cell != CellType()]
