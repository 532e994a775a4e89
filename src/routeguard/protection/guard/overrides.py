"""Overrides of the guard's values where they say nothing: outside test mode. Their author has to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from routeguard.core.overrides import IdentityOverrides
from routeguard.protection.guard.log import logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from routeguard.core.exchange import Exchange
    from routeguard.core.problem import Problem
    from routeguard.protection.guard.guard import Guard

_UNAUTHENTICATED = 401


def explained(guard: Guard, exchange: Exchange, problem: Problem) -> Problem:
    """Return a refusal, its cause in the log completed where the application overrides the guard's values in vain."""
    if problem.status != _UNAUTHENTICATED:
        return problem
    app = exchange.request.scope.get("app")
    names = _ignored(guard, app)
    if not names:
        return problem
    warn_of_overrides(guard, [app])
    return problem.with_debug("; ".join(filter(None, (problem.debug, _words(names)))))


def warn_of_overrides(guard: Guard, applications: Iterable[Any]) -> None:
    """Warn once that applications override the guard's values, and that no caller is let in by that."""
    names = sorted({name for app in applications for name in _ignored(guard, app)})
    if names and not guard.overrides_reported:
        guard.overrides_reported = True
        logger.warning("%s", _words(names))


def _ignored(guard: Guard, app: Any) -> list[str]:
    overrides = getattr(app, "dependency_overrides", None)
    if not overrides or guard.services.find(IdentityOverrides) is not None:
        return []
    return [f"guard.{call.__name__}" for call in guard.overridable if call in overrides]


def _words(names: list[str]) -> str:
    return (
        f'dependency_overrides of {", ".join(names)} are not asked outside test mode: set environment="test" '
        "(ROUTEGUARD_ENVIRONMENT=test) for the tests"
    )
