from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from routeguard.core.changes import Changes
from routeguard.core.errors import ConfigError
from routeguard.core.events import Event
from routeguard.core.principal import PrincipalWatchers
from routeguard.core.services import Services
from routeguard.core.setup import Place, Plugs, Setup

COVERS = ("core/principal",)

Plug = Callable[[Setup], None]


def set_up(*plugs: tuple[str, Plug], own: dict[Place, Any] | None = None) -> list[str]:
    """Set features up one after the other, and hand over what they plugged in. Returns the findings."""
    services, all_ = Services(), Plugs()
    services.add(Changes, Changes())
    services.add(PrincipalWatchers, PrincipalWatchers())
    for place, take in (own or {}).items():
        all_.own(place, take)
    for name, plug in plugs:
        plug(Setup(name, all_, settings=None, services=services, deployment=None, user_class=object))
    return all_.hand_over([name for name, _ in plugs])


def step(name: str, *after: str) -> tuple[str, Plug]:
    return name, lambda setup: setup.sign_in_step(name, after=after)


def test_steps_come_in_the_order_of_the_features_but_for_what_they_come_after() -> None:
    steps: list[str] = []
    features = [step("mfa", "emails", "terms"), step("emails"), step("terms")]
    assert set_up(*features, own={Place.SIGN_IN_STEP: steps.append}) == []
    assert steps == ["emails", "terms", "mfa"]


def test_a_step_may_come_after_a_feature_that_has_none_today() -> None:
    steps: list[str] = []
    features = [step("mfa", "emails"), ("emails", lambda _: None)]
    assert set_up(*features, own={Place.SIGN_IN_STEP: steps.append}) == []
    assert steps == ["mfa"]


def test_a_step_after_a_feature_that_is_not_there_or_after_itself_is_a_finding() -> None:
    steps: list[str] = []
    features = [step("mfa", "emial"), step("a", "b"), step("b", "a")]
    assert set_up(*features, own={Place.SIGN_IN_STEP: steps.append}) == [
        "mfa: a step of the sign-in comes after 'emial', which is not in features",
        "a step of the sign-in comes after itself: a -> b -> a",
    ]


def test_what_nobody_takes_is_a_finding_and_readiness_is_none() -> None:
    async def check() -> None: ...

    features: list[tuple[str, Plug]] = [
        step("mfa"),
        ("news", lambda setup: setup.on(Event, check)),  # type: ignore[arg-type]
        ("store", lambda setup: setup.ready(check)),
    ]
    assert set_up(*features) == [
        "news plugs in a listener to events, and no feature in features takes one",
        "mfa plugs in a step of the sign-in, and no feature in features takes one",
    ]


def test_an_owner_that_is_set_up_last_is_handed_all_that_came_before() -> None:
    steps: list[str] = []
    owner = ("sessions", lambda setup: setup.own(Place.SIGN_IN_STEP, steps.append))
    assert set_up(step("mfa"), owner) == []
    assert steps == ["mfa"]


def test_a_place_has_one_owner() -> None:
    with pytest.raises(ConfigError, match="two features take"):
        set_up(
            ("one", lambda setup: setup.own(Place.SIGN_IN_STEP, print)),
            ("two", lambda setup: setup.own(Place.SIGN_IN_STEP, print)),
        )


def test_what_the_owner_refuses_is_a_finding() -> None:
    def refuse(*_: Any) -> None:
        raise ConfigError("heard twice")

    features: list[tuple[str, Plug]] = [step("a"), step("b")]
    assert set_up(*features, own={Place.SIGN_IN_STEP: refuse}) == ["heard twice"]


def test_what_is_plugged_in_after_setup_is_refused_and_not_dropped() -> None:
    kept: list[Setup] = []
    assert set_up(("mfa", kept.append), own={Place.SIGN_IN_STEP: lambda _: None}) == []
    with pytest.raises(ConfigError, match="after its setup has returned"):
        kept[0].sign_in_step("a second factor")
