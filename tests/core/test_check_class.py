"""A member of a check that the guard would not read as it was meant is refused when the class is made."""

from __future__ import annotations

import dataclasses
import typing
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partialmethod
from typing import Any, ClassVar, Generic, TypeVar

import pytest

from routeguard.core.check import Check, Stage
from routeguard.core.errors import ConfigError
from routeguard.core.policy import Policy
from routeguard.core.services import Services

T = TypeVar("T")


async def allow(exchange: Any) -> None:
    """Let everybody in."""


def bind(self: Any, services: Services) -> Any:
    return allow


def made(**members: Any) -> type[Check]:
    """Return a class of checks with these members beside a stage and `bind`."""
    return type("Shop", (Check,), {"stage": Stage.ACCESS, "bind": bind} | members)


def findings(**members: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        made(**members)
    return tuple(caught.value.findings)


def helper(self: Any) -> None:
    """Do something of the check's own."""


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("described", "describe"),
        ("descirbe", "describe"),
        ("descibe", "describe"),
        ("describes", "describe"),
        ("attack", "attacks"),
        ("atacks", "attacks"),
        ("attakcs", "attacks"),
        ("present", "presents"),
        ("conflict", "conflicts"),
        ("stages", "stage"),
        ("stgae", "stage"),
        ("statusses", "statuses"),
        ("unsafe_onyl", "unsafe_only"),
        ("unsafeonly", "unsafe_only"),
        ("onec", "once"),
        ("bnid", "bind"),
    ],
)
@pytest.mark.parametrize("kind", [lambda one: one, property, staticmethod, bool])
def test_a_misspelt_member_names_the_right_one(name: str, meant: str, kind: Callable[[Any], Any]) -> None:
    assert findings(**{name: kind(helper)}) == (
        f"Shop.{name} is not read: write {meant} if that is meant, else give it another name",
    )


@pytest.mark.parametrize(
    "name",
    [
        "matches",
        "status",
        "prevents",
        "represents",
        "state",
        "usage",
        "image",
        "storage",
        "blind",
        "find",
        "nonce",
        "description",
        "gates",
        "limit",
        "body_limit",
        "allows",
        "stage_of",
        "attack_names",
        "conflicts_in",
        "_attack",
        "__attack__",
        "presence",
        "describe_all",
        "credential",
        "unfitting",
    ],
)
def test_a_helper_of_another_name_is_the_checks_own(name: str) -> None:
    assert isinstance(made(**{name: helper})(), Check)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("unfit", "conflicts(self, policy, handler, kind)"),
        ("unfit_with", "conflicts(self, policy, handler, kind)"),
        ("presents_for", "presents(self, services)"),
    ],
)
def test_a_method_by_a_name_of_before_says_what_to_write(name: str, instead: str) -> None:
    assert findings(**{name: helper}) == (f"Shop.{name} is not read any more: write `{instead}`",)


def test_a_field_of_a_name_that_is_alike_is_the_checks_own() -> None:
    @dataclass(frozen=True, slots=True)
    class Shop(Check):
        stage = Stage.ACCESS

        attack: str
        present: bool = False
        unfit: int = 0
        stages: tuple[str, ...] = field(default=())
        described: dataclasses.InitVar[str] = ""

        def bind(self, services: Services) -> Any:
            return allow

    assert (Shop("x").attack, Shop("x").unfit) == ("x", 0)


class Silent:
    """A mixin that does not hand `__init_subclass__` on."""

    def __init_subclass__(cls) -> None:
        pass


def test_a_class_that_nothing_looked_at_when_it_was_made_is_refused_where_it_is_written() -> None:
    kind = type("Shop", (Silent, Check), {"stage": Stage.ACCESS, "bind": bind, "presents_for": helper})
    with pytest.raises(ConfigError, match="presents_for is not read any more"):
        Policy.of(kind())
    late = made()
    late.conflict = helper  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="write conflicts"):
        Policy.of(late())


def test_a_mixin_is_looked_at_too() -> None:
    class Mixin:
        def attack(self) -> None: ...

    with pytest.raises(ConfigError, match=r"Mixed\.attack is not read: write attacks"):

        class Mixed(Mixin, Check):
            stage = Stage.ACCESS

            def bind(self, services: Services) -> Any:
                return allow


METHODS = ("bind", "describe", "attacks", "presents", "conflicts")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: 1,
        lambda: "words",
        lambda: property(helper),
        lambda: cached_property(helper),
        lambda: Services,
    ],
)
def test_a_method_is_overridden_by_a_method_only(name: str, make: Callable[[], Any]) -> None:
    member = make()
    [finding] = findings(**{name: member})
    assert finding.startswith(f"Shop.{name} is a {type(member).__name__}, but the guard calls `{name}(self")


@pytest.mark.parametrize("name", [*METHODS, "statuses", "once", "unsafe_only"])
@pytest.mark.parametrize("options", [{}, {"slots": True, "frozen": True}], ids=str)
def test_a_field_hides_no_member(name: str, options: dict[str, Any]) -> None:
    for fields in ([(name, Any)], [(name, Any, 5)], [(name, Any, field(default=None))]):
        with pytest.raises(
            ConfigError, match=rf"Shop\.{name} is a field, but the guard reads `{name}.* rename the field"
        ):
            dataclasses.make_dataclass(
                "Shop", fields, bases=(Check,), namespace={"stage": Stage.ACCESS, "bind": bind}, **options
            )


@pytest.mark.parametrize(
    ("name", "member", "wanted"),
    [
        ("describe", lambda self, language: "", "`describe(self)`"),
        ("attacks", lambda: (), "`attacks(self)`"),
        ("presents", lambda self: None, "`presents(self, services)`"),
        ("presents", lambda self, services, exchange: None, "`presents(self, services)`"),
        ("conflicts", lambda self, handler, kind: None, "`conflicts(self, policy, handler, kind)`"),
        ("bind", lambda self, *, services: None, "`bind(self, services)`"),
        ("describe", staticmethod(lambda self: ""), "`describe(self)`"),
        ("describe", classmethod(lambda cls, language: ""), "`describe(self)`"),
        ("describe", partialmethod(lambda self, language, more: "", "en"), "`describe(self)`"),
    ],
)
def test_a_method_takes_what_the_guard_calls_it_with(name: str, member: Any, wanted: str) -> None:
    assert findings(**{name: member}) == (f"Shop.{name} does not take what the guard calls it with: {wanted}",)


@pytest.mark.parametrize(
    "member",
    [
        lambda self, language="en": "",
        lambda *_: "",
        staticmethod(lambda: ""),
        classmethod(lambda cls: ""),
        partialmethod(lambda self, language: "", "en"),
        lru_cache(lambda self: ""),
    ],
)
def test_whatever_takes_it_is_a_method(member: Any) -> None:
    assert made(describe=member)().describe() == ""


async def later(self: Any, *_: Any) -> Any:
    """Answer too late."""


async def generated(self: Any, *_: Any) -> Any:
    yield


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("member", [later, generated])
def test_a_method_that_would_have_to_be_awaited_is_refused(name: str, member: Any) -> None:
    [finding] = findings(**{name: member})
    assert "is asynchronous, but the guard calls" in finding


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("access", "stage is 'access', not one of routeguard.Stage"),
        (6, "stage is 6, not one"),
        (None, "stage is missing: write `stage = Stage.ACCESS`"),
        (lambda self: Stage.ACCESS, "not one of"),
        (staticmethod(lambda: Stage.ACCESS), "not one of"),
        (Stage, "not one of"),
    ],
)
def test_a_stage_is_one_of_them(stage: Any, words: str) -> None:
    [finding] = findings(stage=stage)
    assert finding.startswith("Shop.stage is ")
    assert words in finding


def test_a_check_without_a_stage_is_told_how_to_write_one() -> None:
    with pytest.raises(ConfigError, match=r"Shop\.stage is missing: write `stage = Stage\.ACCESS`"):
        type("Shop", (Check,), {"bind": bind})


def test_a_stage_may_vary_by_instance() -> None:
    @dataclass(frozen=True, slots=True)
    class ByField(Check):
        stage: Stage

        def bind(self, services: Services) -> Any:
            return allow

    @dataclass(frozen=True)
    class ByDefault(ByField):
        stage: Stage = field(default=Stage.QUOTA)

    class ByProperty(ByField):
        @property
        def stage(self) -> Stage:  # type: ignore[override]
            return Stage.NETWORK

        def __init__(self) -> None: ...

    assert [check.stage for check in (ByField(Stage.ACCESS), ByDefault(), ByProperty())] == [
        Stage.ACCESS,
        Stage.QUOTA,
        Stage.NETWORK,
    ]


def test_a_class_that_leaves_a_method_to_its_subclasses_may_leave_the_stage_too() -> None:
    @dataclass(frozen=True, slots=True)
    class Asks(Check, Generic[T]):
        whom: T

        def bind(self, services: Services) -> Any:
            return self.allows

        @abstractmethod
        async def allows(self, exchange: Any) -> None: ...

    with pytest.raises(ConfigError, match=r"Early\.stage is missing"):

        class Early(Asks[str]):
            async def allows(self, exchange: Any) -> None: ...

    class Late(Asks[str]):
        stage = Stage.ACCESS

        async def allows(self, exchange: Any) -> None: ...

    assert Late("shop").stage is Stage.ACCESS


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"statuses": 403}, "statuses is 403, not a tuple such as ()"),
        ({"statuses": ("403",)}, "statuses is ('403',), not HTTP statuses"),
        ({"statuses": None}, "statuses is None, not a tuple"),
        ({"once": 1}, "once is 1, not a bool such as False"),
        ({"unsafe_only": helper}, "not a bool such as False"),
        ({"once": property(helper)}, "not a bool such as False"),
    ],
)
def test_values_are_of_the_declared_kind(members: dict[str, Any], words: str) -> None:
    [finding] = findings(**members)
    assert words in finding


def test_class_variables_are_no_fields() -> None:
    class Shop(Check):
        stage = Stage.ACCESS
        statuses: ClassVar[tuple[int, ...]] = (403,)
        once: typing.ClassVar[bool] = True
        describe: ClassVar[Callable[[Any], str]] = lambda self: "open"

        def bind(self, services: Services) -> Any:
            return allow

    assert Shop().describe() == "open"
    with pytest.raises(ConfigError, match=r"Bad\.attack is not read"):

        class Bad(Shop):
            attack: ClassVar[int] = 1


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert len(findings(attack=helper, unfit=helper, describe=5, once="yes", stage="access")) == 5


def test_options_of_a_class_reach_the_other_bases() -> None:
    class Named:
        word: ClassVar[str]

        def __init_subclass__(cls, *, word: str = "", **options: Any) -> None:
            super().__init_subclass__(**options)
            cls.word = word

    class Shop(Check, Named, word="shop"):
        stage = Stage.ACCESS

        def bind(self, services: Services) -> Any:
            return allow

    assert Shop.word == "shop"
