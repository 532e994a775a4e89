"""FastAPI's `dependency_overrides` of the guard's values, in test mode: they say who is calling, before the route runs.

FastAPI itself solves the override, so that it may be whatever a dependency may be. It solves it once more for each
handler that takes the value: nothing tells it that the value is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from routeguard.core.overrides import NOT_OVERRIDDEN, OVERRIDE, IdentityOverrides
from routeguard.protection.guard.asgi import Connection
from routeguard.protection.guard.log import logger

if TYPE_CHECKING:
    from routeguard.core.check import Check
    from routeguard.core.exchange import Exchange


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

    def __init__(self, overridable: Sequence[Overridable], kinds: Mapping[type[Check], type[Any]]) -> None:
        """Keep the values of a guard, and the classes of principals that the identity checks of features find."""
        self._overridable = tuple(overridable)
        self._kinds = kinds
        self.acting: Any = NOT_OVERRIDDEN
        """The principal of every request, or None for guests, where its application overrides nothing."""

    async def start(self) -> None:
        """Say in the log that tests decide who is calling."""
        logger.warning('TEST MODE (environment="test"): dependency_overrides and acting_as say who is calling.')

    def kind_of(self, check: Check) -> type[Any] | None:
        """Return the class of principals that an identity check of another feature finds."""
        return self._kinds.get(type(check))

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
            from routeguard.protection.adapters.fastapi.overrides import solve  # noqa: PLC0415 - it loads FastAPI

            solved = await solve(_connection(exchange), provider, call=one.call, name=one.name)
            exchange.memo[key] = one.checked(solved)
        return exchange.memo[key]


def _connection(exchange: Exchange) -> Connection:
    original = exchange.original
    assert isinstance(original, Connection)
    return original


def _providers(connection: Connection) -> Iterator[Any]:
    """Yield the applications whose overrides count for the route being entered: those FastAPI would look at, first."""
    if connection.current is not None:
        from routeguard.protection.adapters.starlette.handlers import providers  # noqa: PLC0415 - the framework of the route

        yield from providers(connection.current, connection.request.scope)
    else:
        yield connection.request.scope.get("app")
