"""The mark a handler carries: its policy, bound to the function itself and never to a path."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from routeguard.core.errors import ConfigError
from routeguard.core.policy import Policy

ATTRIBUTE: Final = "__routeguard_policy__"
_NEEDS: Final = "__routeguard_needs_guard__"

H = TypeVar("H")
F = TypeVar("F", bound=Callable[..., Any])


class _Made:
    """Counts the marks of this process, so that what was worked out from them is not believed after the next."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


MADE: Final = _Made()
_observers: Final[list[Callable[[Any], None]]] = []


def observe_marks(observer: Callable[[Any], None]) -> None:
    """Call `observer` with whatever is about to be marked. Adapters take the seam of their framework by this.

    An observer raises ConfigError for an object of its framework on which a mark would not hold.
    """
    _observers.append(observer)


def mark(handler: H, policy: Policy) -> H:
    """Attach `policy` to a handler and return the same handler. Marks add up: all of them must pass.

    Raises ConfigError for an object that cannot carry an attribute (a bound method: mark its function instead).
    """
    for observer in _observers:
        observer(handler)
    own = vars(handler).get(ATTRIBUTE) if hasattr(handler, "__dict__") else None
    try:
        setattr(handler, ATTRIBUTE, own & policy if own is not None else policy)
    except AttributeError:
        raise ConfigError(f"{handler!r} cannot carry a policy; mark the function it is made from") from None
    MADE.count += 1
    return handler


def policy_of(handler: Any) -> Policy | None:
    """Return the policy a handler carries, or None. Looks through `functools.partial`."""
    found = getattr(handler, ATTRIBUTE, None)
    while found is None and isinstance(handler, partial):
        handler = handler.func
        found = getattr(handler, ATTRIBUTE, None)
    return found if isinstance(found, Policy) else None


def needs_guard(function: F) -> F:
    """Say that `function` has a value to give only inside an application the guard is installed in."""
    setattr(function, _NEEDS, True)
    return function


def is_in_need(call: Any) -> bool:
    """Return whether a dependency of a handler is one of those functions."""
    return getattr(call, _NEEDS, False) is True
