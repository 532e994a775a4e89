"""Checks that other people wrote: their own attributes never change what the guard enforces, shows or starts with."""

from __future__ import annotations

from abc import abstractmethod
from copy import copy
from dataclasses import InitVar, dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Any

import pytest

from routeguard.core.check import Check, Stage, distinct
from routeguard.core.errors import ConfigError
from routeguard.core.policy import Policy, deferred, describe, public
from routeguard.core.problem import PERMISSION_DENIED, Problem
from routeguard.core.services import Services
from routeguard.protection.guard.guard import Guard
from routeguard.protection.guard.inventory import Handler
from routeguard.protection.guard.matrix import Entry, matrix, verify
from tests.conformance.wire import admin, key
from tests.core.test_policy import exchange

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

METHODS = ("bind", "describe", "attacks", "presents", "conflicts")
OWN = ("body_limit", "limit", "matches", "status", "unfit", "unfit_with", "presents_for")
"""Names that mean nothing to the guard where a field has them: it once read some, and has others elsewhere."""


async def refuse(exchange: Any) -> Problem:
    return PERMISSION_DENIED()


async def endpoint() -> None:
    """Stand for any handler."""


class Refuses(Check):
    """A check that lets nobody in."""

    stage = Stage.ACCESS

    def bind(self, services: Services) -> Callable[[Any], Any]:
        return refuse


def with_field(name: str, value: Any) -> Any:
    return make_dataclass("Refuses", [(name, Any, value)], bases=(Refuses,), frozen=True)()


def with_attribute(name: str, value: Any) -> Any:
    check = Refuses()
    setattr(check, name, value)
    return check


def with_property(name: str, value: Any) -> Any:
    return type("Refuses", (Refuses,), {name: property(lambda self: value)})()


CASES = [
    *((with_field, name) for name in OWN),
    *((with_attribute, name) for name in OWN),
    *((with_property, name) for name in OWN[:4]),
]


@pytest.mark.parametrize(("made", "name"), CASES, ids=lambda part: getattr(part, "__name__", part))
@pytest.mark.parametrize("value", [None, 0, 10**9, "words", endpoint, lambda *_: None, Refuses])
async def test_an_attribute_of_any_name_keeps_no_check_from_refusing(made: Any, name: str, value: Any) -> None:
    check = made(name, value)
    guard = Guard(Services())
    for policy in (Policy.of(check), Policy.of(check) & key, key & Policy.of(check), Policy.of(check) | admin):
        entry = Entry(Handler("GET", "/x", endpoint), marked=policy)
        assert verify(guard, [entry], undecided_is_fatal=True) == []
        assert "Refuses" in matrix(guard, [entry])[0].policy
    compiled = guard.compile(Policy.of(check), endpoint, "http")
    assert await compiled.run(exchange()) == PERMISSION_DENIED()
    assert compiled.body_limit is None
    assert await (Policy.of(check) | Policy.of(check) & key).bind(Services())(exchange()) == PERMISSION_DENIED()


@pytest.mark.parametrize("name", [*METHODS, "statuses", "unsafe_only", "once"])
def test_an_attribute_that_hides_a_member_is_refused_where_the_policy_is_written(name: str) -> None:
    for written in (Policy.of, lambda check: Policy((check,)), lambda check: check | public):
        with pytest.raises(ConfigError, match=rf"^Refuses has attributes that hide members of its class: {name}$"):
            written(with_attribute(name, refuse))


@pytest.mark.parametrize("words", ["", "  ", None], ids=repr)
def test_a_check_does_not_vanish_from_the_matrix(words: Any) -> None:
    blank = type("Blank", (Refuses,), {"describe": lambda self: words or ""})()
    assert describe(blank) == "Blank"
    assert describe(Refuses()) == "Refuses"


@pytest.mark.parametrize(
    "members",
    [
        {"bind": lambda self, services: None},
        {"bind": lambda self, services: True},
        {"stage": property(lambda self: "access")},
        {"presents": lambda self, services: True},
        {"presents": lambda self, services: lambda: True},
        {"conflicts": lambda self, policy, handler, kind: False},
    ],
    ids=lambda members: next(iter(members)),
)
def test_a_check_that_cannot_run_is_a_finding(members: dict[str, Any]) -> None:
    check = type("Odd", (Refuses,), members)()
    entry = Entry(Handler("GET", "/x", endpoint), marked=Policy.of(check) & key | Policy.of(check) & admin)
    assert verify(Guard(Services()), [entry], undecided_is_fatal=True) != []
    assert matrix(Guard(Services()), [entry]) != []


def test_a_conflict_names_the_handler_and_is_found_inside_or() -> None:
    class Alone(Refuses):
        def conflicts(self, policy: Policy, handler: Any, kind: str) -> str | None:
            return f"{kind} {handler.__name__} {len(policy.checks)}"

    for policy in (Policy.of(Alone()), Policy.of(Alone()) | key):
        with pytest.raises(ConfigError, match=r"endpoint: http endpoint 1"):
            Guard(Services()).compile(policy, endpoint, "http")


class Quacks:
    """Has what a check has, and is none."""

    stage = Stage.ACCESS

    def bind(self, services: Services) -> Callable[[Any], Any]:
        return refuse


@pytest.mark.parametrize(
    "written",
    [
        lambda check: Policy((check,)),
        Policy.of,
        lambda check: public & check,
        lambda check: check | public,
        Guard(Services()),
    ],
)
def test_what_only_looks_like_a_check_is_refused_where_it_is_written(written: Any) -> None:
    with pytest.raises(ConfigError, match=r"Quacks must subclass routeguard\.Check"):
        written(Quacks())


def test_a_class_that_is_only_registered_is_no_check() -> None:
    class Registered(Quacks):
        pass

    Check.register(Registered)
    assert isinstance(Registered(), Check)
    with pytest.raises(ConfigError, match="must subclass"):
        Policy.of(Registered())


def test_what_is_no_check_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigError, match="'admin' is neither"):
        Policy(("admin", Refuses()))  # type: ignore[arg-type]


def test_a_check_without_bind_cannot_be_made() -> None:
    class Unbound(Check):
        @abstractmethod
        def extra(self) -> None: ...

    class Unfinished(Check):
        stage = Stage.ACCESS

    for kind in (Unbound, Unfinished):
        with pytest.raises(TypeError, match="abstract"):
            kind()  # type: ignore[abstract]


def test_checks_are_values() -> None:
    @dataclass(frozen=True, slots=True)
    class Open(Refuses):
        hour: int

    class Plain(Check):
        __slots__ = ()
        stage = Stage.ACCESS

        def bind(self, services: Services) -> Callable[[Any], Any]:
            return refuse

    @dataclass(frozen=True, slots=True)
    class Slotted(Plain):
        hour: int

    assert (repr(Open(9)).rpartition(".")[2], Open(9), hash(Open(9))) == ("Open(hour=9)", Open(9), hash(Open(9)))
    assert Open(9) != Open(10)
    assert not hasattr(Slotted(9), "__dict__")


@dataclass(frozen=True)
class Role(Refuses):
    """Equal whatever the role is."""

    role: str = field(compare=False)


class Named(Refuses):
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Thawed(Refuses):
    """Not frozen, so it has no hash."""

    role: str


@dataclass(frozen=True)
class Derived(Refuses):
    """Keeps what it is made with outside its fields."""

    role: InitVar[str]

    def __post_init__(self, role: str) -> None:
        object.__setattr__(self, "wanted", role)


@dataclass(frozen=True)
class Labelled(Refuses):
    """Has a field, which its subclass gives a constant."""

    label: str


class Further(Labelled):
    """A subclass of a dataclass that is none itself."""

    def __init__(self, role: str) -> None:
        super().__init__("role")
        object.__setattr__(self, "role", role)


@dataclass(frozen=True)
class Holding(Refuses):
    """Keeps a value whose equality looks at less than it holds."""

    rule: Any


class Keeping(Holding):
    """Keeps what has no hash, and has one."""

    def __hash__(self) -> int:
        return 0


@dataclass(frozen=True)
class Rule:
    """Equal whatever it wants."""

    wanted: Any = field(compare=False)


ALIKE = [
    *((kind("member"), kind("admin")) for kind in (Role, Derived, Further)),
    (Holding(Rule("member")), Holding(Rule("admin"))),
    (Holding((Rule("member"),)), Holding((Rule("admin"),))),
    (Holding(1), Holding(True)),
    (Keeping([1]), Keeping([True])),
    (Keeping([[Rule("member")]]), Keeping([[Rule("admin")]])),
    (Holding(frozenset({1, "a"})), Holding(frozenset({True, "a"}))),
    (Keeping({"limit": 1}), Keeping({"limit": True})),
    (Keeping({1: "limit"}), Keeping({True: "limit"})),
]


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=repr)
def test_a_check_that_only_equals_another_is_asked_too(one: Check, other: Check) -> None:
    """AZ-16: beside the other, inside `|`, and where compiled policies are kept by the policy."""
    assert one == other
    assert list(Policy.of(one, other).ordered()) == [one, other]
    first, second = (Policy.of(each) | Policy.of(each) for each in (one, other))
    assert len((first & second).ordered()) == 2
    assert first != second
    assert {Policy.of(one): "one"}.get(Policy.of(other)) is None


@pytest.mark.parametrize("check", [one for one, _ in ALIKE], ids=repr)
def test_a_check_that_is_written_twice_is_asked_once(check: Check) -> None:
    twin = copy(check)
    assert distinct([check, twin]) == [check]
    assert Policy.of(check) == Policy.of(twin)
    assert len(((Policy.of(check) | key) & (Policy.of(twin) | key)).ordered()) == 1


def test_no_check_is_dropped_for_one_that_only_equals_it() -> None:
    assert len(distinct([Role("a"), Role("b"), Role("a")])) == 2
    assert len(Policy.of(Named(), Named()).ordered()) == 2
    assert len(Policy.of(Thawed("a"), Thawed("b"), Thawed("a")).ordered()) == 2
    same = Named()
    assert distinct([same, same]) == [same]


def test_a_method_may_be_static_or_of_the_class() -> None:
    members = {"describe": staticmethod(lambda: "static"), "conflicts": classmethod(lambda cls, *_: "of the class")}
    check = type("Static", (Refuses,), members)()
    assert describe(check) == "static"
    with pytest.raises(ConfigError, match="of the class"):
        Guard(Services()).compile(Policy.of(check), endpoint, "http")


def test_deferred_inside_or_still_has_to_be_decided() -> None:
    assert Guard(Services()).compile(deferred | key, endpoint, "http").deferred
