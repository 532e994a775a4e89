"""The settings of features that are not built in: a branch each, read, checked and shown like those of the tree."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

from routeguard.core.errors import ConfigError
from routeguard.core.feature import Feature
from routeguard.settings.reader import leaves, variable_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


def listed(names: Iterable[str]) -> tuple[list[Feature], list[str]]:
    """Return the features that the setting `features` names, and a finding for each name that leads to none."""
    found: list[Feature] = []
    findings: list[str] = []
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            feature = getattr(import_module(module), attribute) if module and attribute else None
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            findings.append(f"features: {name!r} cannot be imported: {error}")
            continue
        if isinstance(feature, Feature):
            found.append(feature)
        else:
            findings.append(f"features: {name!r} is no feature; write package.module:name of a routeguard.Feature")
    return found, findings


def branches(features: Sequence[Feature], tree: type[Any]) -> tuple[dict[str, type[Any]], list[str]]:
    """Return the classes of the branches by name, without those that cannot be one, and why not.

    A branch shares no name and no environment variable with the tree or another branch: what is set for one must not
    change the other.
    """
    owners: dict[str, str] = {variable_of(name): "Routeguard" for name, _ in leaves(tree)}
    taken = {item.name for item in fields(tree)}
    built_in = get_type_hints(tree)
    found: dict[str, type[Any]] = {}
    findings: list[str] = []
    for feature in features:
        if feature.settings is not None and built_in.get(feature.name) is feature.settings:
            continue  # It has its place in the tree.
        wrong = list(_unfit(feature, taken)) or list(_shared(feature, owners))
        findings += wrong
        if feature.settings is not None and not wrong:
            found[feature.name] = feature.settings
            owners |= {variable_of(f"{feature.name}.{leaf}"): feature.name for leaf, _ in leaves(feature.settings)}
    return found, findings


def _unfit(feature: Feature, taken: set[str]) -> Iterator[str]:
    """Yield why a feature cannot have a branch of its own."""
    if feature.settings is None:
        return
    if not feature.name.isidentifier() or not feature.name.islower():
        yield f"{feature.name!r} cannot name settings: write lower-case letters, digits and underscores"
    elif feature.name in taken:
        yield f"the settings of the feature {feature.name} have the name of a setting of Routeguard"
    elif not is_dataclass(feature.settings):
        yield f"the settings of {feature.name} are no dataclass: {feature.settings!r}"
    else:
        try:
            feature.settings()
        except (TypeError, ConfigError) as error:
            yield f"the settings of {feature.name} cannot be left at their defaults: {error}"


def _shared(feature: Feature, owners: Mapping[str, str]) -> Iterator[str]:
    """Yield the variables of a branch that set something else already: `body.limit` is `body_limit` there."""
    if feature.settings is None:
        return
    for leaf, _ in leaves(feature.settings):
        variable = variable_of(f"{feature.name}.{leaf}")
        if variable in owners:
            yield f"the settings of {feature.name} and of {owners[variable]} share {variable}"


def misplaced(given: Mapping[str, Any], kinds: Mapping[str, type[Any]]) -> Iterator[str]:
    """Yield what stands in `Settings.own` and is of no feature, or of another class than the feature's."""
    for name, branch in given.items():
        if name not in kinds:
            yield f"own: no feature in features has settings called {name}"
        elif not isinstance(branch, kinds[name]):
            yield f"own: {name} must be {kinds[name].__name__}, not {type(branch).__name__}"
