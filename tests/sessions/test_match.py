"""Which users a field match admits: source A's own cases, and those it gets wrong or leaves open."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from routeguard.identity.sessions.match import check_fields, flatten, match_user

COVERS = ("identity/sessions/field_values",)

Tier = Literal["bronze", "silver", "gold"]
Alias = TypeAliasType("Alias", Tier)


@dataclass(frozen=True, slots=True)
class Profile:
    plan: str
    seats: int | None = None
    tier: Tier = "bronze"
    tiers: frozenset[Tier] | None = None


class Kind(enum.Enum):
    PERSON = "person"


class Text(enum.StrEnum):
    ADMIN = "admin"


class Number(enum.IntEnum):
    THREE = 3


@dataclass(frozen=True, slots=True)
class Member:
    role: str = "user"
    tags: tuple[str, ...] = ()
    teams: frozenset[str] = frozenset()
    profile: Profile | None = None
    age: int = 3
    beta: bool = False
    kind: Kind = Kind.PERSON
    plan: str | None = None
    level: Literal["low", "high"] = "low"
    tier: Alias | None = None
    kinds: tuple[Kind, ...] = ()
    number: Number = Number.THREE
    mixed: Kind | str | int = "free"
    lists: list[list[Tier]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def shouting(self) -> str:
        return self.role.upper()

    def method(self) -> str:
        return self.role


ADMIN = Member(role="admin", tags=("a", "b"), profile=Profile("pro"), extra={"region": {"code": "eu"}})


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        pytest.param({"role": "admin"}, True, id="one equal field"),
        pytest.param({"role": "user"}, False, id="one different field"),
        pytest.param({"role": ["user", "admin"]}, True, id="listed"),
        pytest.param({"role": ("user", "owner")}, False, id="not listed"),
        pytest.param({"role": {"admin"}}, True, id="set"),
        pytest.param({"role": "admin", "age": 3}, True, id="both right"),
        pytest.param({"role": "admin", "age": 4}, False, id="one of two wrong"),
        pytest.param({"missing": "x"}, False, id="absent field"),
        pytest.param({}, True, id="empty match"),
        pytest.param({"role": []}, False, id="empty list"),
        pytest.param({"role": "Admin"}, False, id="case"),
        pytest.param({"role": "adm"}, False, id="no substring"),
        pytest.param({"age": "3"}, False, id="no coercion"),
        pytest.param({"age": 3.0}, False, id="float is not int"),
        pytest.param({"beta": 0}, False, id="0 is not False"),
        pytest.param({"beta": False}, True, id="False is False"),
        pytest.param({"plan": None}, False, id="None never matches None"),
        pytest.param({"missing": None}, False, id="None never matches missing"),
        pytest.param({"missing": [None]}, False, id="listed None never matches missing"),
        pytest.param({"tags": "a"}, True, id="membership"),
        pytest.param({"tags": ["x", "b"]}, True, id="membership of any"),
        pytest.param({"tags": "x"}, False, id="no membership"),
        pytest.param({"profile.plan": "pro"}, True, id="dotted"),
        pytest.param({"profile": {"plan": ["pro", "max"]}}, True, id="nested"),
        pytest.param({"profile": {"plan": "free"}}, False, id="nested wrong"),
        pytest.param({"profile": {}}, True, id="nested empty asks for presence"),
        pytest.param({"profile.seats": 1}, False, id="nested None"),
        pytest.param({"extra.region.code": "eu"}, True, id="through a mapping"),
        pytest.param({"kind": Kind.PERSON}, True, id="enum"),
        pytest.param({"kind": "person"}, False, id="enum is not its value"),
        pytest.param({"shouting": "ADMIN"}, True, id="property"),
        pytest.param({"__class__": Member}, False, id="inherited"),
        pytest.param({"method": ADMIN.method}, False, id="method"),
        pytest.param({"role.upper": "x"}, False, id="method of a value"),
    ],
)
def test_match(match: dict[str, Any], expected: bool) -> None:
    assert match_user(ADMIN, match) is expected


def test_a_missing_parent_never_matches() -> None:
    assert not match_user(Member(), {"profile.plan": "pro"})


def test_several_roles_in_one_string_are_not_several_roles() -> None:
    assert not match_user(Member(role="admin,moderator"), {"role": "admin"})


def test_mappings_are_users_too() -> None:
    assert match_user({"role": "admin", "profile": {"plan": "pro"}}, {"role": "admin", "profile.plan": "pro"})
    assert not match_user({"role": "admin"}, {"keys": "x"})


def test_structs_and_plain_objects() -> None:
    class Struct(msgspec.Struct):
        role: str

    class Plain:
        kind = "of the class"

        def __init__(self) -> None:
            self.role = "admin"

    assert match_user(Struct("admin"), {"role": "admin"})
    assert match_user(Plain(), {"role": "admin"})
    assert not match_user(Plain(), {"kind": "of the class"})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(), st.lists, max_leaves=5))
def test_a_missing_field_never_matches(expected: Any) -> None:
    assert not match_user(ADMIN, {"no_such_field": expected})


@given(st.text())
def test_a_name_that_is_no_field_never_matches(name: str) -> None:
    if name.split(".", maxsplit=1)[0] not in Member.__dataclass_fields__:
        assert not match_user(ADMIN, {name: ["admin", "", True]})


class Typed(TypedDict):
    role: str


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ({"rol": "admin"}, "Member has no field 'rol'; did you mean 'role'?"),
        ({"profile.pln": "pro"}, "Profile has no field 'pln', which 'profile.pln' names; did you mean 'plan'?"),
        ({"_private": "x"}, "Member has no field '_private'"),
        ({"method": "x"}, "Member has no field 'method'"),
        ({"role": None}, "is a variable unset?"),
        ({"role": ["admin", None]}, "is a variable unset?"),
        ({"role": ...}, "is a variable unset?"),
        ({"role": [["admin"]]}, "flatten it"),
        ({"age": "3"}, "holds int and never equals '3'"),
        ({"tags": 1}, "holds str and never equals 1"),
        ({"beta": 1}, "holds bool and never equals 1"),
        ({"level": 1}, "holds str and never equals 1"),
        ({"level": "hihg"}, "holds 'low' or 'high' and never equals 'hihg'; did you mean 'high'?"),
        ({"level": ["low", "top"]}, "never equals 'top'"),
        ({"profile": {"tier": "bromze"}}, "did you mean 'bronze'?"),
        ({"profile.tiers": ["gold", "sliver"]}, "did you mean 'silver'?"),
        ({"tier": "platinum"}, "user field 'tier' holds 'bronze' or 'silver' or 'gold'"),
        ({"kind": "person"}, "holds Kind and never equals 'person'; did you mean Kind.PERSON?"),
        ({"kinds": "PERSON"}, "did you mean Kind.PERSON?"),
        ({"kind": Text.ADMIN}, "holds Kind and never equals"),
        ({"role": Text.ADMIN}, "holds str and never equals <Text.ADMIN: 'admin'>"),
        ({"number": 3}, "holds Number and never equals 3; did you mean Number.THREE?"),
    ],
)
def test_mistakes_are_named_at_start_up(match: dict[str, Any], words: str) -> None:
    (finding,) = check_fields(flatten(match), Member)
    assert words in finding


@pytest.mark.parametrize(
    "match",
    [
        {"role": ["admin"], "profile": {"plan": "pro"}, "tags": "a", "teams": {"x"}, "level": "low"},
        {"extra.anything.goes": 1, "kind": Kind.PERSON, "shouting": "X", "profile.seats": 3},
        {"tier": ["bronze", "gold"], "profile.tiers": "silver", "kinds": [Kind.PERSON], "number": Number.THREE},
        {"mixed": ["anything", 3, Kind.PERSON], "lists": "x", "level": []},
    ],
)
def test_right_matches_have_no_findings(match: dict[str, Any]) -> None:
    assert check_fields(flatten(match), Member) == []
    assert check_fields(flatten(match), None) == []


def test_typed_dicts_know_their_keys() -> None:
    assert check_fields(flatten({"role": "x"}), Typed) == []
    assert "no field 'rule'" in check_fields(flatten({"rule": "x"}), Typed)[0]


def test_equal_wishes_are_equal_and_unequal_ones_are_not() -> None:
    assert flatten({"a": {"b": {"y", "x"}}}) == flatten({"a.b": {"x", "y"}})
    assert flatten({"beta": 1}) != flatten({"beta": True})
    hash(flatten({"a": [1, "x"], "b": {"c": {}}}))


def test_a_value_that_is_listed_elsewhere_is_named_too() -> None:
    roles = {"role": ("user", "admin")}
    assert check_fields(flatten({"role": ["admin", "user"]}), Member, listed=roles) == []
    (finding,) = check_fields(flatten({"role": ["admin", "adminn"]}), Member, listed=roles)
    assert finding == "user field 'role' holds 'user' or 'admin' and never equals 'adminn'; did you mean 'admin'?"
    # What is wrong already is said once.
    assert len(check_fields(flatten({"role": 1}), Member, listed=roles)) == 1
    assert len(check_fields(flatten({"role": None}), Member, listed=roles)) == 1
