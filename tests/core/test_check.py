"""Checks that other people wrote: their own attributes never change what the guard enforces, shows or starts with."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Any

import pytest

from routeguard.core.check import Check, Stage, distinct, optional_method
from routeguard.core.errors import ConfigError
from routeguard.core.policy import Policy, deferred, describe
from routeguard.core.problem import PERMISSION_DENIED, Problem
from routeguard.core.services import Services
from routeguard.guard.guard import Guard
from routeguard.guard.inventory import Entry, matrix, verify
from tests.conformance.wire import admin, key
from tests.core.test_policy import exchange

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

OPTIONAL = ("attacks", "body_limit", "describe", "presents", "presents_for", "unfit", "unfit_with")


async def refuse(exchange: Any) -> Problem:
    return PERMISSION_DENIED()


async def endpoint() -> None:
    """Stand for any handler."""


class Refuses:
    """A check that lets nobody in."""

    stage = Stage.ACCESS

    def bind(self, services: Services) -> Callable[[Any], Any]:
        return refuse


def with_field(name: str, value: Any) -> Any:
    return make_dataclass("Refuses", [(name, Any, value)], bases=(Refuses,), frozen=True)()


def with_attribute(name: str, value: Any) -> Any:
    check = Refuses()
    check.__dict__[name] = value
    return check


def with_property(name: str, value: Any) -> Any:
    return type("Refuses", (Refuses,), {name: property(lambda self: value)})()


@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("value", [None, 0, 10**9, "words", endpoint, lambda *_: None, Refuses])
@pytest.mark.parametrize("made", [with_field, with_attribute, with_property], ids=lambda made: made.__name__)
async def test_an_attribute_of_any_name_keeps_no_check_from_refusing(made: Any, name: str, value: Any) -> None:
    check = made(name, value)
    assert isinstance(check, Check)
    guard = Guard(Services())
    for policy in (Policy.of(check), Policy.of(check) & key, key & Policy.of(check), Policy.of(check) | admin):
        entry = Entry("GET", "/x", endpoint, marked=policy)
        assert verify(guard, [entry], undecided_is_fatal=True) == []
        assert "Refuses" in matrix(guard, [entry])[0].policy
    compiled = guard.compile(Policy.of(check), endpoint, "http")
    assert await compiled.run(exchange()) == PERMISSION_DENIED()
    assert compiled.body_limit is None
    assert await (Policy.of(check) | Policy.of(check) & key).bind(Services())(exchange()) == PERMISSION_DENIED()


@pytest.mark.parametrize("name", ["presents", "presents_for", "unfit", "unfit_with"])
def test_a_method_of_another_purpose_is_a_finding(name: str) -> None:
    check = type("Odd", (Refuses,), {name: lambda self, a, b, c: None})()
    policy = Policy.of(check) | key
    found = verify(Guard(Services()), [Entry("GET", "/x", endpoint, marked=policy)], undecided_is_fatal=True)
    assert [line for line in found if f"Odd.{name}" in line and "rename it" in line]


@pytest.mark.parametrize("words", ["", "  ", None], ids=repr)
def test_a_check_does_not_vanish_from_the_matrix(words: Any) -> None:
    blank = type("Blank", (Refuses,), {"describe": lambda self: words or ""})()
    assert describe(blank) == "Blank"
    assert describe(type("Long", (Refuses,), {"describe": lambda self, language: "words"})()) == "Long"


@pytest.mark.parametrize(
    "members",
    [
        {"bind": lambda self, services: None},
        {"bind": lambda self, services: True},
        {"stage": "access"},
        {"stage": 6},
        {"stage": None},
        {"stage": lambda self: Stage.ACCESS},
        {"presents_for": lambda self, services: True},
        {"unfit": lambda self, handler, kind: False},
    ],
    ids=lambda members: next(iter(members)),
)
def test_a_check_that_cannot_run_is_a_finding(members: dict[str, Any]) -> None:
    check = type("Odd", (Refuses,), members)()
    entry = Entry("GET", "/x", endpoint, marked=Policy.of(check) & key | Policy.of(check) & admin)
    assert verify(Guard(Services()), [entry], undecided_is_fatal=True) != []
    assert matrix(Guard(Services()), [entry]) != []


def test_what_is_no_check_is_a_finding() -> None:
    entry = Entry("GET", "/x", endpoint, marked=Policy(("admin", Refuses())))
    assert "'admin' is neither" in str(verify(Guard(Services()), [entry], undecided_is_fatal=True))


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


def test_no_check_is_dropped_for_one_that_only_equals_it() -> None:
    assert len(distinct([Role("a"), Role("b"), Role("a")])) == 2
    assert len(Policy.of(Named(), Named()).ordered()) == 2
    assert len(Policy.of(Thawed("a"), Thawed("b"), Thawed("a")).ordered()) == 2
    same = Named()
    assert distinct([same, same]) == [same]


def test_optional_methods_are_those_of_the_class() -> None:
    class Static(Refuses):
        @staticmethod
        def describe() -> str:
            return "static"

        @classmethod
        def attacks(cls) -> tuple[()]:
            return ()

    assert describe(Static()) == "static"
    method = optional_method(Static(), "attacks")
    assert method is not None
    assert method() == ()
    assert optional_method(Refuses(), "attacks") is None


def test_deferred_inside_or_still_has_to_be_decided() -> None:
    assert Guard(Services()).compile(deferred | key, endpoint, "http").deferred


def test_findings_of_a_method_are_config_errors() -> None:
    check = type("Odd", (Refuses,), {"unfit": lambda self: None})()
    with pytest.raises(ConfigError, match=r"endpoint: Odd\.unfit does not take"):
        Guard(Services()).compile(Policy.of(check), endpoint, "http")
