"""The mark a handler carries: its policy, bound to the function itself and never to a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from inspect import getattr_static
from types import FunctionType, MethodType
from typing import Any, Final, TypeVar
from weakref import WeakSet

from routeguard.core.check import distinct
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
_values: Final[WeakSet[Callable[..., Any]]] = WeakSet()


def observe_marks(observer: Callable[[Any], None]) -> None:
    """Call `observer` with whatever is about to be marked. Adapters take the seam of their framework by this.

    An observer raises ConfigError for an object of its framework on which a mark would not hold.
    """
    _observers.append(observer)


def mark(handler: H, policy: Policy) -> H:
    """Attach `policy` to a handler and return the same handler. Marks add up: all of them must pass.

    A handler is whatever a framework can choose and run: a function, a class-based endpoint, an object with
    `__call__`, a router, a mount, an application. Raises ConfigError for anything else, and for what cannot carry an
    attribute (a bound method: mark its function instead).
    """
    if isinstance(handler, staticmethod | classmethod):
        mark(handler.__func__, policy)  # The wrapper is gone once the class is made.
        return handler
    if (fault := _no_handler(handler)) is not None:
        raise ConfigError(fault)
    for observer in _observers:
        observer(handler)
    own = vars(handler).get(ATTRIBUTE) if hasattr(handler, "__dict__") else None
    whole = policy if own is None else own & policy
    try:
        setattr(handler, ATTRIBUTE, whole)
    except (AttributeError, TypeError, ValueError):  # ValueError: pydantic's models.
        raise ConfigError(f"{handler!r} cannot carry a policy; mark the function it is made from") from None
    if getattr(handler, ATTRIBUTE, None) is not whole:
        raise ConfigError(f"{handler!r} does not keep a policy; mark the function it is made from")
    MADE.count += 1
    return handler


def _no_handler(handler: Any) -> str | None:
    """Return why nothing would ever ask a mark on `handler`, or None."""
    if not isinstance(handler, type):
        return None if callable(handler) else f"{handler!r} is not a handler, so it cannot carry a policy"
    if any({"__call__", "__await__"} & vars(kind).keys() for kind in handler.__mro__):
        return None
    # A class that only groups handlers (a class-based view of another library): its routes run the methods.
    return f"{handler.__qualname__} is a class that no framework runs, so its policy would be lost: mark its methods"


def policy_of(handler: Any) -> Policy | None:
    """Return the policy a handler carries, or None.

    That is its own mark and those of what it is made of, all together: the classes of an object and its `__call__`,
    the function in a `functools.partial`, and the one in a decorator that used `functools.wraps`.
    """
    found: list[Policy] = []
    pending, seen = [handler], set()
    while pending:
        part = pending.pop(0)
        if id(part) in seen:
            continue
        seen.add(id(part))
        found += _marks_on(part)
        pending += _made_of(part)
    if len(found) < 2:
        return found[0] if found else None
    return Policy(tuple(distinct(check for policy in found for check in policy.checks)))


def _marks_on(part: Any) -> Iterator[Policy]:
    """Yield the mark of one object, and those of its class and the bases of that; of a bound method, its object's too.

    A method runs a part of its object: ``Route("/x", view.show)`` must not lose the mark of `view` or of its class.
    """
    if isinstance(part, MethodType):
        yield from _marks_on(part.__self__)
    own = getattr(part, ATTRIBUTE, None)
    if isinstance(own, Policy):
        yield own
    for kind in (part if isinstance(part, type) else type(part)).__mro__:
        inherited = vars(kind).get(ATTRIBUTE)
        if isinstance(inherited, Policy) and inherited is not own:
            yield inherited


def _made_of(part: Any) -> Iterator[Any]:
    """Yield what runs inside a handler, as far as Python's own ways of making one tell."""
    if isinstance(part, partial):
        yield part.func
    if isinstance(part, staticmethod | classmethod | MethodType):
        yield part.__func__
    if hasattr(part, "__dict__") and "__wrapped__" in vars(part):
        yield vars(part)["__wrapped__"]
    if not isinstance(part, type | FunctionType | MethodType):
        yield getattr_static(type(part), "__call__", None)


def needs_guard(function: F) -> F:
    """Say that `function` has a value to give only inside an application the guard is installed in."""
    setattr(function, _NEEDS, True)
    _values.add(function)
    return function


def values() -> Iterator[Callable[..., Any]]:
    """Yield those functions: an adapter whose framework reads signatures puts its own types into theirs."""
    yield from tuple(_values)


def is_in_need(call: Any) -> bool:
    """Return whether a dependency of a handler is one of those functions."""
    return getattr(call, _NEEDS, False) is True
