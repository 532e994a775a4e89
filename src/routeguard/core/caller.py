"""The caller of a guarded request, for handlers that have no guard at hand: those of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from routeguard.core.errors import GuardNotApplied
from routeguard.core.exchange import SCOPE_KEY, Exchange
from routeguard.core.problem import authentication_required

if TYPE_CHECKING:
    from routeguard.core.principal import Principal

P = TypeVar("P", bound="Principal")
T = TypeVar("T")


def principal_of(connection: Any, kind: type[P]) -> P:
    """Return who the policy of a handler let in: ``principal_of(request, UserSession)``.

    `connection` is the framework's request or WebSocket. Raises ProblemError 401 where the policy found no principal
    of that class, and GuardNotApplied where no guard has decided about the request.
    """
    exchange = connection.scope.get(SCOPE_KEY)
    if not isinstance(exchange, Exchange) or exchange.decision is None:
        raise GuardNotApplied("principal_of() is for the handler of a guarded route, after its policy was asked")
    return principal_as(exchange, kind)


def principal_as(exchange: Exchange, kind: type[T]) -> T:
    """Return the principal of an exchange. Raises ProblemError 401 for one of another class, or none."""
    principal: object = exchange.principal
    if isinstance(principal, kind):
        return principal
    raise authentication_required(f"a handler took a {kind.__name__} its policy did not provide").error()
