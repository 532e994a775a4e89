"""What a check is: the base class of all of them, ours and other people's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, is_dataclass
from enum import IntEnum
from functools import lru_cache
from types import MemberDescriptorType, MethodType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from routeguard.core.check_class import findings_of
from routeguard.core.decision import Reply
from routeguard.core.errors import ConfigError
from routeguard.core.problem import Problem

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.policy import Policy
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


class Check(ABC):
    """One requirement, declared as a frozen dataclass: printable, comparable, and bound once at start-up.

    The members below are all that the guard reads of a check; a subclass with one that is misspelt, or of another
    kind, is a ConfigError when the class is made. Fields and helpers of other names are the check's own.
    """

    __slots__ = ()

    stage: Stage
    """Where it runs: a value in the class, or a field or property where it varies."""
    statuses: ClassVar[tuple[int, ...]] = ()
    """What it can refuse with, for OpenAPI; where empty, the statuses of its attacks."""
    unsafe_only: ClassVar[bool] = False
    """Whether safe methods (RFC 9110 section 9.2.1) pass it, for OpenAPI."""
    once: ClassVar[bool] = False
    """Whether being asked spends something, such as a unit of a rate, so that it is not asked twice of a request."""

    @abstractmethod
    def bind(self, services: Services) -> BoundCheck:
        """Return the function run per request. Raises ConfigError for anything knowable now."""

    def describe(self) -> str:
        """Return its words in the matrix."""
        return type(self).__name__

    def attacks(self) -> Iterable[Attack]:
        """Return the requests that it must refuse: the counter-example it ships with."""
        return ()

    def presents(self, services: Services) -> Callable[[Exchange], bool] | None:  # noqa: ARG002 - for subclasses
        """Return what tells whether the credential it looks for was sent, or None if it always counts as sent.

        Of `|`, only sides whose credential was sent are tried.
        """
        return None

    def conflicts(self, policy: Policy, handler: Any, kind: str) -> str | None:  # noqa: ARG002 - for subclasses
        """Return why it cannot guard `handler`, or not as part of `policy`; None where it can.

        `kind` is "http" or "websocket".
        """
        return None

    def __init_subclass__(cls, **options: Any) -> None:
        """Raise ConfigError for a member that the guard would not read as it was meant."""
        super().__init_subclass__(**options)
        if findings := findings_of(cls, Check, Stage):
            raise ConfigError(findings)


@lru_cache(maxsize=1024)
def _findings_of(cls: type[Any]) -> list[str]:
    """Return what is wrong with a class of checks, also where a base keeps `__init_subclass__` from looking."""
    kinds = [kind for kind in cls.__mro__ if kind is not Check and issubclass(kind, Check)]
    return list(dict.fromkeys(finding for kind in kinds for finding in findings_of(kind, Check, Stage)))


def unusable(part: Any) -> str | None:
    """Return why `part` cannot be a check of a policy, or None."""
    # Not isinstance: a class that is only registered has none of the members.
    if Check not in type(part).__mro__:
        return _no_policy(part)
    kind: Any = type(part)
    if findings := _findings_of(kind):
        return "; ".join(findings)
    own = getattr(part, "__dict__", {})
    if hidden := [name for name in vars(Check) if name in own and not name.startswith("_")]:
        return f"{type(part).__qualname__} has attributes that hide members of its class: {', '.join(hidden)}"
    return None


def _no_policy(part: Any) -> str:
    """Say what was given in a policy's place, and where it is a function, that it was not called."""
    name = getattr(part, "__qualname__", None)
    if isinstance(part, MethodType) and not isinstance(part.__self__, type):
        # The class that was written, and not a base of it that happens to hold the method.
        name = f"{type(part.__self__).__qualname__}.{part.__name__}"
    if name is not None and callable(part):
        words = f"{name} is a {'class' if isinstance(part, type) else 'function'}, not a policy"
        if str(getattr(part, "__module__", "")).startswith("routeguard."):
            return f"{words}: did you mean {name.rpartition('.')[2]}(...)?"
        code = getattr(part, "__code__", None)
        place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
        return f"{words}: write @guard(policy) above a handler to guard it, and call what makes a policy{place}"
    if hasattr(part, "bind"):
        return f"{part!r} is neither a policy nor a check: {type(part).__qualname__} must subclass routeguard.Check"
    return f"{part!r} is neither a policy nor a check"


def distinct(checks: Iterable[Check]) -> list[Check]:
    """Return the checks without repetitions, in order."""
    kept: list[Check] = []
    for check in checks:
        if not any(is_same(check, other) for other in kept):
            kept.append(check)
    return kept


def is_same(one: Check, other: Check) -> bool:
    """Return whether two checks ask exactly the same: one class, and equal in everything that they keep.

    Equality of a foreign class is not enough. Two checks may differ only in a field with ``compare=False``, in what
    `__post_init__` made of an `InitVar`, or in an attribute of a subclass that is no dataclass itself. Taken for the
    same, the second would be dropped and never asked, or the first be asked in its place (attack AZ-16).
    """
    if one is other:
        return True
    if type(one) is not type(other) or (one == other) is not True:
        return False
    return (isinstance(one, tuple) or is_dataclass(one)) and _keep_same(one, other)


def _keep_same(one: Any, other: Any) -> bool:
    """Return whether two objects of one class keep equal values, in fields and in any other attribute."""
    kept, others = _state(one), _state(other)
    return kept.keys() == others.keys() and all(_is_equal(kept[name], others[name]) for name in kept)


def _state(keeper: Any) -> dict[Any, Any]:
    items = dict(enumerate(keeper)) if isinstance(keeper, tuple | list) else {}
    slots = (name for kind in type(keeper).__mro__ for name in _slots_of(kind))
    found = {name: getattr(keeper, name) for name in slots if hasattr(keeper, name)}
    return items | found | getattr(keeper, "__dict__", {})


def _slots_of(kind: type[Any]) -> Iterable[str]:
    return (name for name, member in vars(kind).items() if isinstance(member, MemberDescriptorType))


def _is_equal(one: Any, other: Any) -> bool:
    """Return whether two values are of one type and equal, and so is what containers and dataclasses keep.

    1 equals True, and is another limit.
    """
    if one is other:
        return True
    if type(one) is not type(other) or (one == other) is not True:
        return False
    if isinstance(one, set | frozenset):
        return _are_equal(one, other)
    if isinstance(one, dict):
        return _are_equal(one, other) and all(_is_equal(one[key], other[key]) for key in one)
    # A dataclass with an equality of its own, such as a policy, has said what counts.
    made = is_dataclass(one) and getattr(type(one), "__dataclass_params__").eq  # noqa: B009 - unknown to type checkers
    return _keep_same(one, other) if made or isinstance(one, tuple | list) else True


def _are_equal(ones: Iterable[Any], others: Iterable[Any]) -> bool:
    """Return whether equal members, in whatever order, are of one type too."""
    known = {other: other for other in others}
    return all(_is_equal(one, known[one]) for one in ones)
