"""Starlette: every handler is entered through its route's `handle`, and there the guard stands.

`BaseRoute.handle(scope, receive, send)` is the framework's one seam between "this handler was chosen" and "it
runs", for every kind of route, however deep it was included or mounted and whenever it was added. FastAPI makes
route objects of its own inside `include_router`, so the seam is taken on the classes, once a process; for
applications without a guard it is one dictionary look-up (docs/decisions/0002).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import BaseRoute

from routeguard.core.decision import Refuse
from routeguard.core.errors import ConfigError
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.marks import MADE, observe_marks
from routeguard.core.policy import joined
from routeguard.core.problem import GUARD_NOT_APPLIED, Problem
from routeguard.core.request import is_preflight
from routeguard.protection.adapters.protocol import not_an_application
from routeguard.protection.adapters.starlette.gates import TAKEN, before_mark, is_taken, policy_around_frontend
from routeguard.protection.adapters.starlette.handlers import (
    METHODS,
    SEAMS,
    UNMARKED,
    USUAL,
    answers_405,
    asked,
    calls_of,
    effective,
    frontend_class,
    handler_of,
    holds_more,
    inside,
    is_frontend,
    is_invented,
    marked,
    misplaced,
    original_of,
    run_not_allowed,
    unguarded,
)
from routeguard.protection.adapters.starlette.inner import HIDDEN, has_middleware, stand_inside
from routeguard.protection.adapters.starlette.pages import docs_policy
from routeguard.protection.adapters.starlette.wrapping import is_router
from routeguard.protection.guard.asgi import Connection
from routeguard.protection.guard.edge import Edge, enter
from routeguard.protection.guard.facts import Seen
from routeguard.protection.guard.guard import Compiled
from routeguard.protection.guard.layers import Around, Layer, Within, ask_all, has_changed, run_below
from routeguard.protection.guard.log import logger
from routeguard.protection.guard.outside import passes_outside
from routeguard.protection.guard.unguarded import refuse_unguarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from routeguard.core.decision import Reply
    from routeguard.core.policy import Outcome
    from routeguard.protection.guard.asgi import App, Receive, Scope, Send
    from routeguard.protection.guard.guard import Guard

Ready: TypeAlias = "Compiled | Around | Within | Problem | None"
Cache: TypeAlias = "tuple[Guard, int, dict[tuple[str, bool], Compiled | Around | Within | Literal[False]]]"
"""Of a route: by which guard, after how many marks, what; False where it leaves the decision to what is around it."""

_HOOKED: Final = "__routeguard_hook__"
_CACHE: Final = "__routeguard_compiled__"
_CACHES: Final = "__routeguard_compiled_by_guard__"
_MOST_CACHES: Final = 8
_EDGE: Final = "__routeguard_edge__"
_HANDED: Final = "its route class hands on another method than its policy was asked about: change it in a middleware"


def hook(kind: type[BaseRoute]) -> None:
    """Let the guard stand before `kind.handle`. Done once a class."""
    original: Any = kind.__dict__["handle"]
    if hasattr(original, _HOOKED):
        return

    async def handle(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope.get(SCOPE_KEY)
        if not isinstance(connection, Connection):
            fresh = self.__dict__.get(UNMARKED) != MADE.count or "fastapi" in scope
            if fresh and (name := unguarded(self, scope)) is not None:
                await refuse_unguarded(name, scope, send)
            else:
                await original(self, scope, receive, send)
            return
        seen = connection.request
        # A middleware inside the edge, or the route's own class, may have passed on other facts; the policy must see
        # what the handler will see.
        if connection.watched is None and (
            seen.scope is scope and seen.raw_headers is scope["headers"] and seen.method == scope.get("method", "GET")
        ):
            changed = False
        else:
            changed = has_changed(connection, scope)
            if changed and connection.outer is not None and not await passes_outside(connection, scope, send):
                return
        if not changed and connection.current is self:
            await original(self, scope, receive, send)
            return
        ready = _ready(connection, self, scope)
        proceed = original.__get__(self)
        if scope.get("method") not in USUAL and is_invented(self, scope):
            proceed = partial(run_not_allowed, handler_of(self))
        if type(ready) is Compiled and not connection.layers:
            connection.current = self
            await enter(connection, ready, proceed, (scope, receive, send))
        else:
            await _arrive(connection, self, ready, proceed, (scope, receive, send), changed=changed)

    setattr(handle, _HOOKED, True)
    kind.handle = handle  # type: ignore[method-assign]


def hook_routes() -> None:
    """Take the seam of Starlette's route classes, and of every class made from them that has a `handle` of its own.

    FastAPI's are among them, loaded now or later: its applications may be mounted in any other.
    """
    for kind in (*SEAMS, *_descendants(BaseRoute)):
        _hook_new(kind)
    own = BaseRoute.__dict__.get("__init_subclass__")
    if own is None or not hasattr(own, _HOOKED):
        BaseRoute.__init_subclass__ = _watch_new(own)  # type: ignore[method-assign]


def _watch_new(own: Any) -> Any:
    """Return the `__init_subclass__` that hooks each route class when it is made, after what the class had (`own`)."""

    def made(cls: type[BaseRoute], /, **options: Any) -> None:
        if own is None:
            super(BaseRoute, cls).__init_subclass__(**options)
        else:
            own.__get__(None, cls)(**options)
        _hook_new(cls)

    watching = classmethod(made)
    setattr(watching, _HOOKED, True)
    return watching


def _hook_new(kind: type[BaseRoute]) -> None:
    """Hook a class that has a `handle` of its own, but for the parts the frameworks keep to themselves."""
    private = kind.__module__.partition(".")[0] in {"starlette", "fastapi"} and kind is not frontend_class()
    if "handle" in kind.__dict__ and (issubclass(kind, SEAMS) or not private):
        hook(kind)


def is_hooked(route: Any) -> bool:
    """Whether the guard stands before this route."""
    return hasattr(type(route).handle, _HOOKED) and "handle" not in vars(route)


def _descendants(kind: type[BaseRoute]) -> Iterator[type[BaseRoute]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


async def _arrive(
    connection: Connection, route: Any, ready: Ready, proceed: App, wire: tuple[Scope, Receive, Send], *, changed: bool
) -> None:
    """Enter a route that is not alone with its policy: something stands around it, or there is more below it."""
    send = wire[2]
    if isinstance(ready, Problem):
        if connection.guard.mode != "observe":
            await connection.refuse(ready, send=send)
            return
        connection.log(ready, "", "would be refused")
        ready = None
    asks = is_preflight(connection.request)
    if asks and (reply := _preflight(connection, route, ready, wire[0])) is not None:
        await connection.answer(reply, send=send)
    elif asks and is_router(handler_of(route)):
        # It carries no credential: the route below, or a CORS middleware of the application there, answers it.
        layer = Layer(ready.owners, ready.compiled, asked=False) if isinstance(ready, Around) else None
        await (_watch(connection, proceed, *wire) if layer is None else run_below(connection, layer, proceed, wire))
    elif isinstance(ready, Around):
        connection.current, connection.own = route, ready.compiled
        below = partial(_run_below, connection, Layer(ready.owners, ready.compiled, asked=True), proceed)
        await enter(connection, ready.compiled, below, wire, changed=changed)
    elif isinstance(ready, Within):
        connection.current, connection.own = route, ready.compiled
        await enter(connection, ready.compiled, partial(_watch, connection, proceed), wire, changed=changed)
    elif ready is None and (not connection.layers or answers_405(route, wire[0])):
        await _watch(connection, proceed, *wire)
    else:
        connection.current = route
        await enter(connection, ready, proceed, wire, changed=changed)


async def _watch(connection: Connection, proceed: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Go on where a middleware may stand before what comes next."""
    connection.watched = Seen(scope)
    await proceed(scope, receive, send)


async def _look_inside(connection: Connection, proceed: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Go on behind the middleware of a route, which may have passed on other facts than its policy was asked about."""
    route: Any = connection.current
    if route is None or not has_changed(connection, scope):
        await proceed(scope, receive, send)
        return
    if connection.outer is not None and not await passes_outside(connection, scope, send):
        return
    before = connection.layers, connection.above
    if connection.layers and connection.layers[-1].owners[0] is handler_of(route):
        # What this route was asked by is no cover for what it is asked by now.
        connection.layers = connection.layers[:-1]
        connection.above = any(layer.compiled.decides for layer in connection.layers)
    try:
        ready = _ready(connection, route, scope, chosen=True)
        if isinstance(ready, Problem) and connection.guard.mode != "observe":
            await connection.refuse(ready, send=send)
            return
        compiled = ready.compiled if isinstance(ready, Within | Around) else None
        if is_invented(route, scope):
            proceed = partial(run_not_allowed, handler_of(route))
        if isinstance(ready, Around):
            proceed = partial(_run_below, connection, Layer(ready.owners, ready.compiled, asked=True), proceed)
        await enter(connection, compiled, proceed, (scope, receive, send), changed=True, passed=connection.own)
    finally:
        connection.layers, connection.above = before


async def _look_at_handed(connection: Connection, scope: Scope) -> None:
    """Ask again where a route class of FastAPI hands on another request. Raises ProblemError for a refusal.

    There is no `send` to keep an answer by, as `idempotent()` does for unsafe methods: another method is refused.
    """
    route, method = connection.current, connection.request.method
    if route is None or not has_changed(connection, scope):
        return
    if connection.outer is not None and not await passes_outside(connection, scope, connection.send):
        raise (connection.refusal or GUARD_NOT_APPLIED(debug=_HANDED)).error()
    ready = _ready(connection, route, scope, chosen=True)
    if connection.request.method != method:
        ready = GUARD_NOT_APPLIED(debug=_HANDED)
    if isinstance(ready, Problem):
        outcome: Outcome = ready
        if connection.guard.mode == "observe":
            connection.log(ready, "", "would be refused")
            return
    else:
        compiled = ready.compiled if isinstance(ready, Within | Around) else ready
        outcome = await ask_all(connection, compiled, changed=True, passed=connection.own)
    if outcome is not None:
        problem = outcome if isinstance(outcome, Problem) else GUARD_NOT_APPLIED(debug=_HANDED)
        connection.decision = Refuse(problem)  # The wrapper may answer in its place.
        raise problem.error()


def hides_handler(route: Any, holder: Any) -> bool:
    """Whether the middleware of a route hides what it wraps."""
    return not stand_inside(route, holder, _look_inside, _look_at_handed)


async def _run_below(
    connection: Connection, layer: Layer, proceed: App, scope: Scope, receive: Receive, send: Send
) -> None:
    await run_below(connection, layer, proceed, (scope, receive, send))


def _preflight(connection: Connection, route: Any, ready: Ready, scope: Scope) -> Reply | None:
    """Answer a browser that asks for leave before it sends a method this route has a handler for (attack CSRF-21).

    It carries no credential and often has no handler, so it is answered here, by the `cors()` of the first route on the
    path or of what stands around that.
    """
    guard, request = connection.guard, connection.request
    policies = [layer.compiled.policy for layer in reversed(connection.layers)]
    if ready is None and answers_405(route, scope):
        own = guard.effective_policy(marked(route), None, above=connection.above)
        policies = [own, *policies] if own is not None else policies
    elif not isinstance(ready, Compiled):
        return None
    return next((reply for policy in policies if (reply := guard.preflight(policy, request)) is not None), None)


def _ready(connection: Connection, route: Any, scope: Scope, *, chosen: bool = False) -> Ready:
    """Return the compiled policy for the handler chosen; None where no handler is entered here.

    A handler without any is a Problem here, before it runs. Kept on the route object, so late routes work too.
    `chosen`: the route itself has let the method pass.
    """
    holder = effective(route, scope)
    cache: Cache | None = holder.__dict__.get(_CACHE)
    if cache is None or cache[0] is not connection.guard or cache[1] != MADE.count:
        cache = _cache_of(holder, connection.guard)
    # What stands around it may decide on one way to this route and not on another: the two are kept apart.
    key = (scope.get("method", "WS"), connection.above)
    known = cache[2].get(key)
    if known is not None:
        return known or None
    if answers_405(route, scope, chosen=chosen):
        return None
    try:
        ready: Ready = _compile(connection, route, holder, scope)
    except ConfigError as error:
        logger.error("a policy added late cannot be bound, and its route is refused: %s", error)
        return GUARD_NOT_APPLIED(debug=str(error))
    # Methods that are not declared are invented by callers: not worth the memory.
    if not isinstance(ready, Problem) and (key[0] == "WS" or key[0].lower() in METHODS):
        cache[2][key] = ready if ready is not None else False
    return ready


def _cache_of(holder: Any, guard: Guard) -> Cache:
    """Return what was compiled for a route under a guard; each event loop that runs at the same time has its own."""
    caches: list[Cache] = holder.__dict__.setdefault(_CACHES, [])
    found = next((one for one in caches if one[0] is guard and one[1] == MADE.count), None)
    if found is None:
        found = (guard, MADE.count, {})
        # Bounded: a route may be part of one application after the other.
        others = [one for one in caches if one[0] is not guard]
        caches[:] = [*others[1 - _MOST_CACHES :], found]
    holder.__dict__[_CACHE] = found
    return found


def _compile(connection: Connection, route: Any, holder: Any, scope: Scope) -> Ready:
    method = scope.get("method", "WS")
    handler, calls, original = handler_of(route, method), calls_of(holder), original_of(route, scope)
    if (fault := misplaced(route, calls)) is not None:
        return GUARD_NOT_APPLIED(debug=fault)
    if is_taken(original or route, connection.layers):
        return GUARD_NOT_APPLIED(debug=TAKEN)
    guard, kind = connection.guard, connection.request.kind
    policy = docs_policy(guard, handler, marked(route, method, original))
    if is_frontend(route):
        policy = joined(guard.frontend, policy_around_frontend(original or route))
    if hides_handler(route, holder):
        return GUARD_NOT_APPLIED(debug=HIDDEN)
    if is_router(handler):
        # The routes below carry their own decisions; what only limits is added to those.
        return None if policy is None else Around((handler,), guard.compile(policy, handler, kind))
    above = connection.above
    policy = guard.effective_policy(policy, asked(guard, calls), above=above)
    if policy is None:
        return None if above else GUARD_NOT_APPLIED(debug=f"{handler!r} has no policy that says who may call")
    compiled = guard.compile(policy, handler, kind)
    if holds_more(route):
        return Around((handler, *inside(route)), compiled)
    return Within(compiled) if has_middleware(route, holder) else compiled


def has_edge(app: Any) -> bool:
    """Whether a guard of its own is installed in `app`."""
    return bool(getattr(app, _EDGE, False))


def wrap(app: Starlette, edge: Callable[[App], App]) -> None:
    """Put the edge around everything the application will build, its error pages included.

    Raises ConfigError for what is no application, RuntimeError when it has served a request already, or has a guard.
    """
    if not isinstance(app, Starlette):
        raise not_an_application(app)
    if app.middleware_stack is not None:
        raise RuntimeError("install the guard before the application serves its first request")
    if has_edge(app):
        raise RuntimeError("a guard is installed in this application already")
    setattr(app, _EDGE, True)
    build = app.build_middleware_stack

    def guarded() -> App:
        stack = build()
        made = edge(stack)
        if isinstance(made, Edge):
            # Starlette's own part of the stack passes requests on as they are.
            made.plain = not app.user_middleware and type(stack) is ServerErrorMiddleware
        return made

    app.build_middleware_stack = guarded  # type: ignore[method-assign]


def _before_mark(target: Any) -> None:
    """Take the seam with the first mark: what it promises must not depend on `install`. Raises ConfigError."""
    if not hasattr(BaseRoute.__dict__.get("__init_subclass__"), _HOOKED):
        hook_routes()
    before_mark(target)


observe_marks(_before_mark)
