"""The list of features: its order, and whatever two of them claim at the same time."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.errors import ConfigError
from routeguard.core.order import in_order

_NAME_OF_PARAMETER: Final = re.compile(r"\{\w+")

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from routeguard.core.feature import Feature


def arranged(features: Sequence[Feature], *, commands: Iterable[str] = ()) -> list[Feature]:
    """Return the features, each after those it requires and otherwise as given. `commands` are taken already.

    Raises ConfigError with every clash, missing feature and cycle.
    """
    findings = [*_clashes(features), *_taken(features, set(commands)), *_missing(features)]
    names, cycle = in_order([feature.name for feature in features], {one.name: one.requires for one in features})
    if cycle:
        findings.append(f"features require each other: {' -> '.join(cycle)}")
    if findings:
        raise ConfigError(findings)
    by_name = {feature.name: feature for feature in features}
    return [by_name[name] for name in names]


def distinct(features: Iterable[Feature]) -> list[Feature]:
    """Return the features without those that stand there already: listed in the settings, and passed in the code."""
    kept: list[Feature] = []
    for feature in features:
        if not any(feature is one for one in kept):
            kept.append(feature)
    return kept


def over(features: Sequence[Feature], name: str) -> list[Feature]:
    """Return the feature of that name and all that require it, also by way of another one."""
    found = {name}
    while more := {one.name for one in features if one.name not in found and not found.isdisjoint(one.requires)}:
        found |= more
    return [feature for feature in features if feature.name in found]


def route_clashes(made: Iterable[tuple[str, Any]]) -> list[str]:
    """Return every method and path that two routes answer, of which the second would never be reached.

    `made` are routes with the name of their feature. Names of path parameters tell no two paths apart. A mount
    answers every path below its own.
    """
    owners: dict[tuple[str, str], list[str]] = {}
    mounts: dict[str, str] = {}
    below: list[str] = []
    for name, route in made:
        path = _NAME_OF_PARAMETER.sub("{", str(getattr(route, "path", "")))
        below += (
            f"the mount {mount or '/'} of {owner} stands before {path} of {name}, which is never reached"
            for mount, owner in mounts.items()
            if f"{path}/".startswith(f"{mount}/")
        )
        if hasattr(route, "routes") and hasattr(route, "path"):
            mounts.setdefault(path, name)
            continue
        for method in sorted(getattr(route, "methods", None) or ("WS",)):
            owners.setdefault((method, path), []).append(name)
    return below + [
        f"the route {method} {path} is made by {' and by '.join(names)}"
        for (method, path), names in owners.items()
        # GET brings HEAD along.
        if len(names) > 1 and not (method == "HEAD" and owners.get(("GET", path)) == names)
    ]


def _missing(features: Sequence[Feature]) -> Iterator[str]:
    there = {feature.name for feature in features}
    for feature in features:
        for name in feature.requires:
            if name not in there:
                yield f"{feature.name} needs {name}, which is not in features"


def _clashes(features: Sequence[Feature]) -> Iterator[str]:
    """Yield what more than one feature claims, with all that claim it."""
    for name, times in Counter(feature.name for feature in features).items():
        if times > 1:
            yield f"{times} features are named {name}"
    yield from _shared(features, "the problem code", lambda one: (problem.code for problem in one.problems))
    yield from _shared(features, "the principal", lambda one: (each.kind.__qualname__ for each in one.provides))
    yield from _shared(features, "the command", lambda one: one.commands)
    # The stored rows name the class alone: a listener to one event would be given the other's.
    yield from _shared(features, "the event", lambda one: (event.__name__ for event in one.events))


def _taken(features: Sequence[Feature], commands: set[str]) -> Iterator[str]:
    for feature in features:
        for name in feature.commands:
            if name in commands:
                yield f"the command {name} of {feature.name} is one of Routeguard's own"


def _shared(features: Sequence[Feature], what: str, claims: Callable[[Feature], Iterable[Hashable]]) -> Iterator[str]:
    """Yield every claim that is made twice, by two features or by one."""
    owners: dict[Hashable, list[str]] = {}
    for feature in features:
        for claim in claims(feature):
            owners.setdefault(claim, []).append(feature.name)
    for claim, names in owners.items():
        if len(names) > 1:
            yield f"{what} {claim} is declared by {' and by '.join(names)}"
