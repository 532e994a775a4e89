"""What a check is, and what the guard may read of one that other people wrote."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from routeguard.core.decision import Reply
from routeguard.core.errors import ConfigError
from routeguard.core.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

Outcome: TypeAlias = Problem | Reply | None
"""None passes, a Problem refuses, a Reply answers in the handler's place."""

BoundCheck: TypeAlias = Callable[["Exchange"], Awaitable[Outcome]]


class Stage(IntEnum):
    """The order of checks. Binding sorts by it, so authors cannot get the order wrong."""

    RESPONSE = 0
    """what every answer says, refusals included: security headers, CORS"""
    TRANSPORT = 1
    """https, host, content type, body cap"""
    NETWORK = 2
    """addresses and per-address rates"""
    IDENTITY = 3
    """who is calling"""
    FORGERY = 4
    """CSRF, only when the credential is ambient"""
    ASSURANCE = 5
    """second factor, freshness, verified e-mail"""
    ACCESS = 6
    """roles, permissions, organization, rules"""
    QUOTA = 7
    """per-principal rates"""
    RESOURCE = 8
    """ownership"""
    EXECUTION = 9
    """de-duplication, idempotency"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A request that a check must refuse: the counter-example it ships with.

    `headers` are added to an otherwise legitimate request; `body` replaces its body; `status` is the answer due.
    """

    name: str
    status: int
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    anonymous: bool = False
    """Whether the credentials of the legitimate request are left out."""
    repeat: int = 1
    """How often it is sent; `status` is the last answer's."""


@runtime_checkable
class Check(Protocol):
    """One requirement, declared as a frozen dataclass: printable, comparable, and bound once at start-up.

    Optional methods: `attacks() -> Iterable[Attack]`; `describe() -> str`, its words in the matrix;
    `presents(exchange) -> bool` on identity checks, whether the credential it looks for was sent at all, or
    `presents_for(services)`, which returns that function where only the services can tell what it looks at;
    `unfit(handler, kind) -> str | None` and `unfit_with(policy) -> str | None`, why the check cannot guard a handler
    or be part of a policy. Fields and properties of these names mean nothing to the guard, and no member of any name
    keeps a check from being bound.
    """

    @property
    def stage(self) -> Stage:
        """Where it runs."""
        ...

    def bind(self, services: Services) -> BoundCheck:
        """Return the function run per request. Raises ConfigError for anything knowable now."""
        ...


class AskedOnce:
    """The base of checks that spend something when they are asked: they are not asked twice about one request."""

    __slots__ = ()


def optional_method(check: Any, name: str) -> Callable[..., Any] | None:
    """Return the method `name` that the class of `check` defines, or None.

    A field or property that happens to have the name is the check's own, and means nothing to the guard.
    """
    kind = type(check)
    if is_dataclass(kind) and any(field.name == name for field in fields(kind)):
        return None
    defined = inspect.getattr_static(kind, name, None)
    if defined is None or isinstance(defined, (property, type)) or inspect.isdatadescriptor(defined):
        return None
    found = getattr(check, name)
    return found if callable(found) else None


def call_method(check: Any, name: str, *arguments: Any) -> Any:
    """Call the optional method `name`, or return None where the class defines none.

    Raises ConfigError when it is a method of another purpose, which cannot take the arguments.
    """
    method = optional_method(check, name)
    if method is None:
        return None
    require_arguments(method, check, name, *arguments)
    return method(*arguments)


def require_arguments(method: Callable[..., Any], check: Any, name: str, *arguments: Any) -> None:
    """Raise ConfigError unless `method` can be called with `arguments`."""
    if not takes(method, *arguments):
        raise ConfigError(
            f"{type(check).__qualname__}.{name} does not take what the guard calls it with"
            f" ({len(arguments)} arguments): rename it if it is for something else"
        )


def takes(method: Callable[..., Any], *arguments: Any) -> bool:
    """Return whether `method` can be called with `arguments`."""
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # Written in C, without a signature.
        return True
    return True


def distinct(checks: Iterable[Any]) -> list[Any]:
    """Return the checks without repetitions, in order."""
    kept: list[Any] = []
    for check in checks:
        if not any(_is_same(check, other) for other in kept):
            kept.append(check)
    return kept


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two checks ask exactly the same.

    Equality of a foreign class is not enough: of two checks that differ only in a field with ``compare=False``, or
    whose `__eq__` looks at a name alone, the second would be dropped and never asked.
    """
    if one is other:
        return True
    if type(one) is not type(other) or (one == other) is not True:
        return False
    if isinstance(one, tuple):
        return True
    if not is_dataclass(one):
        return False
    return all(getattr(one, field.name) == getattr(other, field.name) for field in fields(one))
