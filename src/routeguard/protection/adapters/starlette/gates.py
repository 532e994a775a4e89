"""Routers and applications that carry a policy: it holds for every route below, whenever and however it got there.

A mark on a router puts a gate before the router's two entrances, `middleware_stack` (mounted, or the application's own)
and FastAPI's `handle` (included). The gate decides nothing: it notes the policy, and the hook at the route that is
chosen below asks it before that route's own. Routers without a mark have no gate and pay nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount, Router

from routeguard.core.errors import ConfigError
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.marks import MADE, policy_of
from routeguard.core.policy import joined
from routeguard.core.problem import GUARD_NOT_APPLIED
from routeguard.protection.guard.asgi import Connection
from routeguard.protection.guard.guard import handler_name
from routeguard.protection.guard.layers import Layer, run_below
from routeguard.protection.guard.log import logger
from routeguard.protection.guard.unguarded import refuse_unguarded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from routeguard.core.policy import Policy
    from routeguard.protection.guard.asgi import App, Receive, Scope, Send
    from routeguard.protection.guard.guard import Compiled

_OWNERS: Final = "__routeguard_owners__"
_gated: Final[list[Router]] = []
"""Every marked router, kept: its routes may be served by another after the last reference to it has gone."""
TAKEN: Final = "its router carries a policy, but here it is served without that: include or mount the router"


def before_mark(target: Any) -> None:
    """Make a mark on something of Starlette or FastAPI hold. Raises ConfigError where it would not."""
    if isinstance(target, type):
        if issubclass(target, (Starlette, Router, BaseRoute)):
            raise ConfigError(f"{target.__qualname__} is a class of routers or routes: mark the object made of it")
    elif isinstance(target, BaseRoute):
        # FastAPI drops such objects when it includes their router. A mount is found again.
        if not isinstance(target, (Mount, Host)):
            raise ConfigError(f"{target!r} is a route, where a policy can get lost: mark its endpoint")
    elif isinstance(target, (Starlette, Router)):
        _put_gate(target)
    elif _registers(target):
        raise ConfigError(f"{target!r} only registers handlers: put @guard(...) below it, on the handler")


def _registers(target: Any) -> bool:
    """Whether this is what ``app.get("/x")`` returns: it takes the handler, and a mark on it would be lost."""
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", "")
    return module in {"fastapi.routing", "starlette.routing", "fastapi.applications"} and name.endswith(".decorator")


def _put_gate(target: Starlette | Router) -> None:
    """Put the gate of `target` before its router, once."""
    router = _router_of(target)
    owners = vars(router).setdefault(_OWNERS, [])
    if any(owner is target for owner in owners):
        return
    owners.append(target)
    if isinstance(router.middleware_stack, Gate):
        return
    _gated.append(router)
    router.middleware_stack = Gate(router, router.middleware_stack)
    included: Any = getattr(router, "handle", None)
    if included is not None:
        router.handle = Gate(router, included)  # type: ignore[attr-defined]


def _router_of(target: Starlette | Router) -> Router:
    return target.router if isinstance(target, Starlette) else target


class Gate:
    """One entrance of a marked router."""

    def __init__(self, router: Router, inner: App) -> None:
        self.router = router
        self.inner = inner
        self._compiled: dict[tuple[int, str, int], tuple[Any, int, Compiled]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the policies of the router, and of the application it belongs to, for what is below."""
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, send)
            return
        connection = scope.get(SCOPE_KEY)
        if not isinstance(connection, Connection):
            await refuse_unguarded(handler_name(vars(self.router)[_OWNERS][0]), scope, send)
            return
        known = [owner for layer in connection.layers for owner in layer.owners]
        proceed = self.inner
        try:
            for owner in reversed(vars(self.router)[_OWNERS]):
                if not any(owner is each for each in known):
                    proceed = _Below(connection, Layer((owner,), self._policy(connection, owner), asked=False), proceed)
        except ConfigError as error:
            logger.error("the policy of a router cannot be bound, and what is below is refused: %s", error)
            problem = GUARD_NOT_APPLIED(debug=str(error))
            if connection.guard.mode != "observe":
                await connection.refuse(problem, send=send)
                return
            connection.log(problem, "", "would be refused")
        await proceed(scope, receive, send)

    def _policy(self, connection: Connection, owner: Any) -> Compiled:
        guard, kind = connection.guard, connection.request.kind
        # Two event loops at the same time have a guard each.
        key = (id(owner), kind, id(guard))
        known = self._compiled.get(key)
        if known is None or known[0] is not guard or known[1] != MADE.count:
            policy = policy_of(owner)
            assert policy is not None
            known = self._compiled[key] = guard, MADE.count, guard.compile(policy, owner, kind)
        return known[2]


class _Below:
    """What is below a layer, as an ASGI application."""

    __slots__ = ("connection", "inner", "layer")

    def __init__(self, connection: Connection, layer: Layer, inner: App) -> None:
        self.connection = connection
        self.layer = layer
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await run_below(self.connection, self.layer, self.inner, (scope, receive, send))


# -- to look at -------------------------------------------------------------------------------------------------------


def policy_of_router(app: Any) -> Policy | None:
    """Return what an application and its router carry together."""
    if not isinstance(app, (Starlette, Router)):
        return policy_of(app)
    owners = [app, _router_of(app), *vars(_router_of(app)).get(_OWNERS, ())]
    return joined(*(policy_of(owner) for owner in {id(owner): owner for owner in owners}.values()))


def has_lost_gate(app: Any) -> bool:
    """Whether an application is marked, and its router was replaced afterwards."""
    if not isinstance(app, (Starlette, Router)) or policy_of(app) is None:
        return False
    router = _router_of(app)
    # Copies share the gate of what they are copied from, and carry the same policy.
    same = (owner is app or policy_of(owner) == policy_of(app) for owner in vars(router).get(_OWNERS, ()))
    return not isinstance(router.middleware_stack, Gate) or not any(same)


def routers_with(route: Any) -> Iterator[Router]:
    """Yield the marked routers that a route was added to: it must not be served without them."""
    for router in _gated:
        if any(route is each for each in router.routes):
            yield router


def is_taken(route: Any, layers: Iterable[Layer]) -> bool:
    """Whether a route was added to a marked router, and is reached past it (attack: `Router(routes=marked.routes)`)."""
    owners = [owner for layer in layers for owner in layer.owners if isinstance(owner, (Starlette, Router))]
    around = [_router_of(owner).routes for owner in owners]
    return any(all(router.routes is not each for each in around) for router in routers_with(route))


def policy_around_frontend(group: Any) -> Policy | None:
    """Return the policy of the marked routers around the files of `router.frontend()`.

    FastAPI serves those from the application itself, past the entrances of included routers.
    """
    return joined(*(policy_of_router(router) for router in _gated if _serves(router, group)))


def _serves(router: Any, group: Any) -> bool:
    if any(group is each for each in getattr(router, "_low_priority_routes", ())):
        return True
    included = (getattr(route, "original_router", None) for route in router.routes)
    return any(_serves(each, group) for each in included if each is not None)
