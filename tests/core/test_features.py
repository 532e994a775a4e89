from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from starlette.routing import Mount

from routeguard.core.errors import ConfigError
from routeguard.core.events import Event
from routeguard.core.feature import Feature
from routeguard.core.features import arranged, over, route_clashes
from routeguard.core.problem import ProblemType

COVERS = ("core/events", "core/feature")

GONE = ProblemType("gone", 410, "Gone", "It was here.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened(Event):
    pass


class Elsewhere:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Happened(Event):
        pass


def names(features: list[Feature]) -> list[str]:
    return [feature.name for feature in features]


def refused(*features: Feature) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        arranged(features)
    return caught.value.findings


def test_a_feature_is_set_up_after_those_it_requires_wherever_it_stands() -> None:
    links = Feature(name="links", requires=("users", "mail"))
    assert names(arranged([links, Feature(name="users"), Feature(name="free"), Feature(name="mail")])) == [
        "users",
        "free",
        "mail",
        "links",
    ]


def test_a_feature_that_is_required_and_not_there_is_named() -> None:
    assert refused(Feature(name="magic_links", requires=("users",))) == (
        "magic_links needs users, which is not in features",
    )


def test_features_that_require_each_other_are_named() -> None:
    found = refused(Feature(name="a", requires=("b",)), Feature(name="b", requires=("a",)), Feature(name="c"))
    assert found == ("features require each other: a -> b -> a",)


def test_every_clash_is_told_at_once() -> None:
    one = Feature(name="one", problems=(GONE,), events=(Happened,), requires=("none",))
    two = Feature(name="two", problems=(GONE,), events=(Elsewhere.Happened,))
    assert refused(one, two, Feature(name="two")) == (
        "2 features are named two",
        "the problem code gone is declared by one and by two",
        "the event Happened is declared by one and by two",
        "one needs none, which is not in features",
    )


class Route:
    def __init__(self, path: str, *methods: str) -> None:
        self.path = path
        self.methods = set(methods)


def test_a_route_that_two_features_make_is_named() -> None:
    made = [
        ("one", Route("/a/{id}", "GET", "HEAD")),
        ("two", Route("/a/{name}", "GET", "HEAD")),
        ("two", Route("/a/{name}", "POST")),
        ("one", Route("/b")),
        ("two", Route("/b")),
        ("one", Route("/c/{n:int}", "GET")),
        ("two", Route("/c/{n:str}", "GET")),
    ]
    assert route_clashes(made) == [
        "the route GET /a/{} is made by one and by two",
        "the route WS /b is made by one and by two",
    ]
    assert route_clashes([("a", Route("/a", "GET", "HEAD")), ("b", Route("/a", "HEAD"))]) == [
        "the route HEAD /a is made by a and by b"
    ]


@pytest.mark.parametrize(
    ("mount", "shadowed"),
    [("/auth", ["/auth/sign-in", "/auth"]), ("", ["/auth/sign-in", "/auth", "/authors"]), ("/auth/sign", [])],
)
def test_a_mount_before_the_routes_of_others_is_named(mount: str, shadowed: list[str]) -> None:
    """Every request for them would go to the mount: their policies and handlers with it."""
    paths = ["/auth/sign-in", "/auth", "/authors"]
    made: list[tuple[str, Any]] = [
        ("mine", Mount(mount, routes=[])),
        *(("theirs", Route(path, "GET")) for path in paths),
    ]
    assert route_clashes(made) == [
        f"the mount {mount or '/'} of mine stands before {path} of theirs, which is never reached" for path in shadowed
    ]
    assert route_clashes([*made[1:], made[0]]) == []


def test_what_stands_over_a_feature_is_found_through_others() -> None:
    sessions, tokens = Feature(name="sessions"), Feature(name="tokens", requires=("sessions",))
    far = Feature(name="far", requires=("tokens",))
    assert over([far, Feature(name="other"), tokens, sessions], "sessions") == [far, tokens, sessions]
