"""Behind an application's own middleware: the policy is asked again where that has passed on other facts.

``Route(..., middleware=[...])``, ``Mount(..., middleware=[...])``, an ASGI application that wraps another, and a
`route_class` of FastAPI stand between the guard and the handler. A middleware there that makes a POST of a GET would
run the handler of a method that no policy was asked about. So a second look is put between what is innermost and the
handler, once, when the route is first entered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from inspect import Parameter, iscoroutinefunction, signature
from operator import is_
from types import FunctionType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from starlette.routing import BaseRoute, Host, Mount, Route, WebSocketRoute

from routeguard.core.errors import GuardNotApplied
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.marks import policy_of
from routeguard.protection.adapters.starlette.handlers import handler_of, inside, is_endpoint_class, marked
from routeguard.protection.adapters.starlette.wrapping import is_router, references, wrapped_by
from routeguard.protection.guard.asgi import Connection
from routeguard.protection.guard.guard import handler_name
from routeguard.protection.guard.unguarded import refuse_unguarded

if TYPE_CHECKING:
    from routeguard.protection.guard.asgi import App, Receive, Scope, Send

HIDDEN: Final = (
    "its middleware or route class hides what it wraps, so the policy cannot be asked about what that gets: keep it as "
    "`app`, or in a variable of the function around it"
)
_INNER: Final = "__routeguard_inner__"
_EACH: Final = "__routeguard_each__"
_DEEPEST: Final = 32
_WIRE: Final = ("scope", "receive", "send")
_FRAMEWORKS: Final = frozenset({"starlette.routing", "fastapi.routing"})
_ENDPOINTS: Final = frozenset({"request_response.<locals>.app", "websocket_session.<locals>.app"})
_HANDLER: Final = "get_request_handler.<locals>.app"
_LIMITS: Final = "fastapi._body_limit"

Look: TypeAlias = "Callable[[Connection, App, Scope, Receive, Send], Awaitable[None]]"
HandedLook: TypeAlias = "Callable[[Connection, Scope], Awaitable[None]]"
_Make: TypeAlias = "Callable[[Any], Inner | Handed]"
_IsTarget: TypeAlias = "Callable[[Any], bool]"


class Inner:
    """The second look: an ASGI application around the handler. `marked` is the name of a handler that has a mark."""

    def __init__(self, app: Callable[..., Awaitable[Any]], look: Look, marked: str) -> None:
        self.app = app
        self.look = look
        self.marked = marked

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *rest: Any, **named: Any) -> Any:
        """Look at what the middleware passes on, and run the handler; `rest` and `named` are for that alone.

        Returns what it returned: what takes three values need not be an application.
        """
        if not isinstance(scope, MutableMapping):
            return await self.app(scope, receive, send, *rest, **named)
        returned: Any = None

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal returned
            returned = await self.app(scope, receive, send, *rest, **named)

        connection = scope.get(SCOPE_KEY)
        if isinstance(connection, Connection):
            await self.look(connection, app, scope, receive, send)
        elif self.marked and scope.get("type") in {"http", "websocket"}:
            # Its middleware passes on a scope of its own making: nothing could tell what was asked about it.
            await refuse_unguarded(self.marked, scope, send)
        else:
            await app(scope, receive, send)
        return returned

    def __getattr__(self, name: str) -> Any:
        """Return what the wrapped application has: what keeps it may use more than the call."""
        if name.startswith("__") or name == "app":
            raise AttributeError(name)
        return getattr(self.app, name)


class Handed:
    """The second look behind FastAPI's `get_route_handler`, whose wrapper may hand on another request."""

    def __init__(self, app: Callable[[Any], Awaitable[Any]], look: HandedLook, marked: str) -> None:
        self.app = app
        self.look = look
        self.marked = marked

    async def __call__(self, request: Any) -> Any:
        """Look at the request, and run the handler. Raises ProblemError for a refusal."""
        connection = request.scope.get(SCOPE_KEY)
        if isinstance(connection, Connection):
            await self.look(connection, request.scope)
        elif self.marked:
            raise GuardNotApplied(f"the route class of {self.marked} hands on a scope of its own making")
        return await self.app(request)


def stand_inside(route: Any, holder: Any, look: Look, handed: HandedLook) -> bool:
    """Put the second look where there is middleware. False where it cannot be seen what the middleware wraps.

    `holder` keeps the application of the route: FastAPI makes one for each inclusion of a router.
    """
    if not has_middleware(route, holder):
        return True
    if _is_of_fastapi(route) and holder is not route and getattr(holder, "app", None) is None:
        return _look_in_each(route, handed)
    holder = _keeper(route, holder)
    if not vars(holder).get(_INNER, False):
        insertions = _insertions(route, holder, look, handed)
        vars(holder)[_INNER] = bool(insertions) and all(each.into(holder) for each in insertions)
    return bool(vars(holder)[_INNER])


def _look_in_each(route: Any, handed: HandedLook) -> bool:
    """Put the second look behind each handler that a route makes: older versions of FastAPI make one for each request.

    Only of a route of an included router, and there they do not use what the route keeps. False as in `stand_inside`.
    """
    if _EACH not in vars(route):
        make = route.get_route_handler
        name = handler_name(handler_of(route)) if marked(route) is not None else ""
        behind = partial(Handed, look=handed, marked=name)

        def looked_into() -> Any:
            kept = SimpleNamespace(app=make())
            if not _Insertion(_is_request_handler, behind).into(kept):
                raise GuardNotApplied(HIDDEN)
            return kept.app

        trial = SimpleNamespace(app=make())
        vars(route)[_EACH] = _Insertion(_is_request_handler, behind).into(trial)
        vars(route)["get_route_handler"] = looked_into
    return bool(vars(route)[_EACH])


def has_middleware(route: Any, holder: Any = None) -> bool:
    """Whether something of the application's own runs between a route and its handler."""
    if not isinstance(route, Route | WebSocketRoute | Mount | Host):
        return False
    if _is_of_fastapi(route):
        app = _without_limits(_keeper(route, holder).app)
        return not _is_made(app) or not _ends_in_request_handler(app)
    if _wrapped(route):
        return True
    handler = handler_of(route)
    if isinstance(route, Mount | Host):
        return route.app is not handler and not is_router(handler)
    return not _is_endpoint(route.app, handler)


def _is_of_fastapi(route: Any) -> bool:
    return isinstance(route, Route) and hasattr(route, "get_route_handler")


def _keeper(route: Any, holder: Any) -> Any:
    return holder if _is_of_fastapi(route) and getattr(holder, "app", None) is not None else route


def _without_limits(app: Any) -> Any:
    """Return an application without FastAPI's own limit of the body around it."""
    while type(app).__module__ == _LIMITS and hasattr(app, "app"):
        app = app.app
    return app


def _ends_in_request_handler(app: Any) -> bool:
    return any(_is_request_handler(kept) for kept, _ in references(app))


def _wrapped(route: Any) -> list[Any]:
    """Return what the application of a route wraps and a request may run: classes, what is marked, applications."""
    return [
        each
        for each in inside(route)
        if not is_router(each)
        and not isinstance(each, BaseRoute | Inner)
        and (is_endpoint_class(each) or policy_of(each) is not None or _is_application(each))
    ]


def _is_application(each: Any) -> bool:
    """Whether an object can be called as an ASGI application, by the names of what it takes or by their number."""
    if isinstance(each, type):
        return False
    # Of an object, what its class has for calls, bound: `signature` takes a static method for a plain one.
    called: Any = each if isinstance(each, partial | FunctionType | MethodType) else getattr(each, "__call__", None)  # noqa: B004 - its signature is wanted
    try:
        taken = [one for one in signature(called).parameters.values() if one.default is Parameter.empty]
    except (TypeError, ValueError):
        return False
    placed = [one for one in taken if one.kind in {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}]
    if tuple(one.name for one in placed) == _WIRE:
        return True
    function = called.func if isinstance(called, partial) else called
    if not (iscoroutinefunction(function) or iscoroutinefunction(getattr(type(function), "__call__", None))):  # noqa: B004
        return False
    return len(placed) == len(_WIRE) or any(one.kind is Parameter.VAR_POSITIONAL for one in taken)


def _insertions(route: Any, holder: Any, look: Look, handed: HandedLook) -> list[_Insertion]:
    """Return what puts the second look before each place where it has to stand."""
    handler, wrapped = handler_of(route), [] if _is_of_fastapi(route) else _wrapped(route)
    if wrapped or isinstance(route, Mount | Host):
        if route.app is not handler and not is_router(handler):
            wrapped = [*wrapped, handler]
        # They may be part of another application too, which has no guard.
        return [_Insertion(partial(is_, each), partial(Inner, look=look, marked="")) for each in wrapped]
    name = handler_name(handler) if marked(route) is not None else ""
    before, behind = partial(Inner, look=look, marked=name), partial(Handed, look=handed, marked=name)
    if not _is_of_fastapi(route):
        return [_Insertion(lambda app: _is_endpoint(app, handler), before)]
    app = _without_limits(holder.app)
    made = [app] if _is_made(app) else [each for each in wrapped_by(app) if _is_made(each)]
    needed = [_Insertion(_is_request_handler, behind)]
    if made and all(_ends_in_request_handler(each) for each in made):
        needed = []
    return needed if _is_made(app) else [*needed, _Insertion(_is_made, before)]


def _is_made(app: Any) -> bool:
    """Whether `app` is what the framework made of a function."""
    return isinstance(app, FunctionType) and app.__module__ in _FRAMEWORKS and app.__qualname__ in _ENDPOINTS


def _is_request_handler(app: Any) -> bool:
    """Whether `app` is what FastAPI made of a function, as `get_route_handler` returns it."""
    return isinstance(app, FunctionType) and app.__module__ in _FRAMEWORKS and app.__qualname__ == _HANDLER


def _is_endpoint(app: Any, handler: Any) -> bool:
    """Whether `app` is the handler itself, or what the framework made of a function."""
    return app is handler or _is_made(app)


class _Insertion:
    """Replaces the application that a chain of middleware ends in, in every place that keeps it: any may be called."""

    def __init__(self, is_target: _IsTarget, make: _Make) -> None:
        self._is_target = is_target
        self._make = make
        self._seen: set[int] = set()
        self._fixed = False

    def into(self, holder: Any) -> bool:
        """Replace it in what is called from `holder.app` on. False where it is not found, or kept unchangeably."""
        # Of a route only `app` is called.
        found = self._look([(holder.app, partial(setattr, holder, "app"))], 0)
        return found and not self._fixed

    def _look(self, places: Any, depth: int) -> bool:
        found, nexts = False, []
        for kept, put in places:
            if isinstance(kept, Inner | Handed) and self._is_target(kept.app):
                found = True
            elif self._is_target(kept):
                found, self._fixed = True, self._fixed or put is None
                if put is not None:
                    put(self._make(kept))
            elif callable(kept) and not isinstance(kept, type | BaseRoute) and not is_router(kept):
                nexts.append(kept)
        for each in nexts:
            if depth < _DEEPEST and id(each) not in self._seen:
                self._seen.add(id(each))
                found = self._look(list(references(each)), depth + 1) or found
        return found
