"""FastAPI's `dependency_overrides` of the guard's values, in test mode: they say who is calling, before the route runs.

FastAPI itself solves the override, so that it may be whatever a dependency may be. It solves it once more for each
handler that takes the value: nothing tells it that the value is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import Host, Mount
from starlette.websockets import WebSocket

from routeguard.adapters.handlers import effective, handler_of, inside
from routeguard.core.overrides import NOT_OVERRIDDEN, OVERRIDE, IdentityOverrides
from routeguard.guard.connection import Connection
from routeguard.guard.log import logger

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from routeguard.core.exchange import Exchange
    from routeguard.guard.connection import Message, Scope


@dataclass(frozen=True, slots=True)
class Overridable:
    """A value of the guard that tests may override: its dependency, what that returns, and whether None is a guest."""

    call: Callable[..., Any]
    kinds: tuple[type[Any], ...]
    guest: bool = False

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"guard.{self.call.__name__}"

    def checked(self, value: Any) -> Any:
        """Return what an override returned. Raises TypeError for what can be no caller."""
        if value is None and self.guest:
            return None
        words = " or ".join([kind.__name__ for kind in self.kinds] + ["None"] * self.guest)
        advice = "routeguard.testing makes them: session_for(user), key_for(user)"
        if not isinstance(value, self.kinds):
            kind = type(value).__name__
            raise TypeError(f"the override of {self.name} returned {kind}, and has to return {words}; {advice}")
        if getattr(value, "principal_id", None) is None:
            raise TypeError(f"the override of {self.name} returned a caller without an id; {advice}")
        return value


class Overrides:
    """The `IdentityOverrides` of a guard: `dependency_overrides` of the application at hand, else `acting`."""

    def __init__(self, overridable: Sequence[Overridable]) -> None:
        self._overridable = tuple(overridable)
        self.acting: Any = NOT_OVERRIDDEN
        """The principal of every request, or None for guests, where its application overrides nothing."""

    async def start(self) -> None:
        """Say in the log that tests decide who is calling."""
        logger.warning('TEST MODE (environment="test"): dependency_overrides and acting_as say who is calling.')

    def may_hold(self, exchange: Exchange, kind: type[Any]) -> bool:
        """Return whether an override of this request may give a principal of class `kind`, or a guest."""
        return self.acting is None or isinstance(self.acting, kind) or self._chosen(exchange, kind) is not None

    async def find(self, exchange: Exchange, kind: type[Any]) -> Any:
        """Return a principal of class `kind`, None for a guest, or NOT_OVERRIDDEN. Raises what the override raises."""
        chosen = self._chosen(exchange, kind)
        found = self.acting if chosen is None else await self._solved(exchange, *chosen)
        if found is None:
            return None
        if not isinstance(found, kind):
            return NOT_OVERRIDDEN
        exchange.record_credential(found, OVERRIDE)
        return found

    def _chosen(self, exchange: Exchange, kind: type[Any]) -> tuple[Overridable, Any] | None:
        """Return the override that decides whether there is a principal of class `kind`, and whose it is."""
        for provider in _providers(_connection(exchange)):
            overrides = getattr(provider, "dependency_overrides", None) or {}
            for one in self._overridable:
                if kind in one.kinds and one.call in overrides:
                    return one, provider
        return None

    async def _solved(self, exchange: Exchange, one: Overridable, provider: Any) -> Any:
        """Return the value of an override, which runs once for all policies of a request."""
        key = (IdentityOverrides, one.call, id(provider))
        if key not in exchange.memo:
            exchange.memo[key] = one.checked(await _solve(_connection(exchange), one, provider))
        return exchange.memo[key]


def _connection(exchange: Exchange) -> Connection:
    original = exchange.original
    assert isinstance(original, Connection)
    return original


def _providers(connection: Connection) -> Iterator[Any]:
    """Yield the applications whose overrides count for the route being entered: those FastAPI would look at, first.

    The policy of a mount is asked before the application in it is entered: the overrides of that one come first.
    """
    route: Any = connection.current
    scope: Any = connection.request.scope
    if route is not None:
        provider = getattr(effective(route, scope), "dependency_overrides_provider", None)
        if provider is not None:
            yield provider
            return
        if isinstance(route, (Mount, Host)):
            yield from (handler_of(route), *inside(route))
    yield scope.get("app")


async def _solve(connection: Connection, one: Overridable, provider: Any) -> Any:
    """Let FastAPI run the override. Its generators end after the answer, as those of a handler do."""
    from fastapi import Depends  # noqa: PLC0415 - adapters load their framework
    from fastapi.dependencies.utils import get_dependant, solve_dependencies  # noqa: PLC0415 - the same
    from fastapi.exceptions import RequestValidationError  # noqa: PLC0415 - the same

    def take(value: Any) -> Any:
        return value

    take.__defaults__ = (Depends(one.call),)
    scope: Any = connection.request.scope
    path: str = getattr(effective(connection.current, scope), "path_format", "")
    if _takes_body(get_dependant(path=path, call=provider.dependency_overrides[one.call])):
        raise TypeError(f"the override of {one.name} takes the body of the request, which is read after the decision")
    stack = _stack_of(connection)
    solved = await solve_dependencies(
        request=_request(connection, stack), dependant=get_dependant(path=path, call=take),
        dependency_overrides_provider=provider, async_exit_stack=stack, embed_body_fields=False,
    )  # fmt: skip
    if solved.errors:
        raise RequestValidationError(solved.errors)
    return solved.values["value"]


def _takes_body(dependant: Any) -> bool:
    return bool(dependant.body_params) or any(map(_takes_body, dependant.dependencies))


def _stack_of(connection: Connection) -> AsyncExitStack:
    """Return what ends an override that is a generator, once the request is answered."""
    stack, before = AsyncExitStack(), connection.ended

    async def ended(status: int | None) -> None:
        try:
            await stack.aclose()
        finally:
            if before is not None:
                await before(status)

    connection.ended = ended
    return stack


def _request(connection: Connection, stack: AsyncExitStack) -> Any:
    """Return the request for an override. What that reads of the body is kept for the handler."""
    scope: Scope = {
        **connection.request.scope, "fastapi_inner_astack": stack, "fastapi_function_astack": stack,
    }  # fmt: skip
    read = False

    async def receive() -> Message:
        nonlocal read
        if read or connection.read_body is None:
            return {"type": "http.disconnect"}
        read = True
        return {"type": "http.request", "body": await connection.read_body(), "more_body": False}

    async def send(message: Message) -> None:  # noqa: RUF029 - the shape of ASGI
        raise RuntimeError(f"an override says who is calling before the request is answered ({message['type']})")

    made: HTTPConnection = (
        Request(scope, receive, send) if connection.request.kind == "http" else WebSocket(scope, receive, send)
    )
    return made
