"""Reading one tree of dataclasses from arguments, the environment and TOML, collecting whatever is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from routeguard.core.errors import ConfigError
from routeguard.core.rate import parse_duration, parse_size
from routeguard.core.secret import Secret

PREFIX: Final = "ROUTEGUARD_"
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_SIZES: Final = frozenset({"body_limit"})
NOT_SET: Final = frozenset({"provenance", "own"})
"""Fields of the tree that no operator writes."""
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_SIMILAR: Final = 0.6
"""From 0 to 1: how alike a known name must be to be suggested for an unknown one."""
_UNREADABLE: Final = ", unreadable"
"""Ends the provenance of a value that was left at its default because it cannot be read."""


def unreadable(provenance: Mapping[str, str]) -> set[str]:
    """Return the names of the settings whose given value cannot be read."""
    return {name for name, source in provenance.items() if source.endswith(_UNREADABLE)}


def follows(finding: str, names: Iterable[str]) -> bool:
    """Return whether a finding is about one of these settings: beside what is wrong with that one, it says nothing."""
    return any(re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", finding) for name in names)


def read_toml(directory: Path) -> tuple[Mapping[str, Any], list[str]]:
    """Return `[tool.routeguard]` of a directory's pyproject.toml, and what keeps it from being read."""
    path = directory / "pyproject.toml"
    if not path.is_file():
        return {}, []
    try:
        tree: Any = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        return {}, [f"{path} cannot be read: {error}"]
    for name in ("tool", "routeguard"):
        tree = tree.get(name, {})
        if not isinstance(tree, Mapping):
            return {}, [f"[tool.routeguard] of {path} is not a table"]
    return tree, []


class Reader:
    """Reads one tree from three sources; the first that has a value wins.

    `findings` collects what cannot be read, contradicts something else in its branch, or is no setting at all.
    """

    def __init__(self, environ: Mapping[str, str], toml: Mapping[str, Any], explicit: Mapping[str, Any]) -> None:
        self._environ = environ
        self._toml = toml
        self._explicit = explicit
        self.findings: list[str] = []
        self.provenance: dict[str, str] = {}

    def read(self, kind: type[Any], prefix: str = "") -> dict[str, Any]:
        """Return what is given for the fields of `kind`, whose dotted names begin with `prefix`."""
        values: dict[str, Any] = {}
        for name, hint in _fields(kind):
            dotted = prefix + name
            if _is_branch(hint) and dotted not in self._explicit:
                values[name] = self._branch(hint, dotted)
                continue
            found = self._find(dotted, hint)
            if found is not MISSING:
                values[name] = found
        return values

    def refuse_unknown(self, kind: type[Any], branches: Mapping[str, type[Any]]) -> None:
        """Add a finding for every name that is not one of `kind`'s: misspelt, it would leave a default in place."""
        names = [name for name, _ in leaves(kind)]
        names += [name for branch, own in branches.items() for name, _ in leaves(own, f"{branch}.")]
        variables = [variable_of(name) for name in names]
        for variable in self._environ:
            if variable.upper().startswith(PREFIX) and variable not in variables and not self._is_link(variable):
                self.findings.append(f"{variable} is not a setting{_nearest(variable.upper(), variables)}")
        for name in _dotted(self._toml):
            if name not in names:
                self.findings.append(f"[tool.routeguard] {name} is not a setting{_nearest(name, names)}")
        arguments = [*names, *(name for name, hint in _fields(kind) if _is_branch(hint)), *branches]
        for name in self._explicit:
            if name not in arguments:
                self.findings.append(f"the argument {name} is not a setting{_nearest(name, arguments)}")

    def branch(self, kind: type[Any], name: str) -> Any:
        """Return the branch of a feature: given as an argument whole, or read value by value."""
        return self._explicit[name] if name in self._explicit else self._branch(kind, name)

    def _branch(self, hint: type[Any], name: str) -> Any:
        """Return one branch; one whose values contradict each other is left at its defaults."""
        values = self.read(hint, name + ".")
        try:
            return hint(**values)
        except ConfigError as error:
            # What was not readable was left at its default, and the operator wrote no contradiction with that.
            unread = unreadable(self.provenance)
            self.findings += [one for one in error.findings if not follows(one, unread)]
            return hint()

    def _find(self, name: str, hint: Any) -> Any:
        variable = variable_of(name)
        if name in self._explicit:
            self.provenance[name] = "argument"
            value = self._explicit[name]
            return self._convert(name, name, value, hint) if isinstance(value, str) else value
        if variable in self._environ:
            self.provenance[name] = f"environment {variable}"
            return self._convert(variable, name, self._environ[variable], hint)
        node: Any = self._toml
        for part in name.split("."):
            node = node.get(part, MISSING) if isinstance(node, Mapping) else MISSING
        if node is MISSING:
            return MISSING
        self.provenance[name] = "pyproject.toml"
        return self._convert(f"[tool.routeguard] {name}", name, node, hint)

    def _convert(self, label: str, name: str, value: Any, hint: Any) -> Any:
        try:
            return _converted(name, value, hint)
        except ConfigError as error:
            # The value itself may be a secret, so only its name is shown.
            self.findings += [f"{label}: {finding}" for finding in error.findings]
            self.provenance[name] += _UNREADABLE
            return MISSING

    def _is_link(self, variable: str) -> bool:
        """Whether Kubernetes set the variable for a Service whose name begins with `routeguard`.

        Every container of the namespace is given ROUTEGUARD_SERVICE_HOST, ROUTEGUARD_PORT_8000_TCP and their like
        (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
        """
        name = re.fullmatch(r"(.+?)_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_[A-Z_]+)?)", variable)
        return name is not None and {f"{name[1]}_SERVICE_HOST", f"{name[1]}_SERVICE_PORT"} <= self._environ.keys()


def _fields(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(kind)
    for item in fields(kind):
        if item.name not in NOT_SET:
            yield item.name, hints[item.name]


def _is_branch(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def leaves(kind: type[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a tree by its dotted name, with its type."""
    for name, hint in _fields(kind):
        if _is_branch(hint):
            yield from leaves(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def variable_of(name: str) -> str:
    """Return the environment variable of a dotted name."""
    return PREFIX + name.replace(".", "_").upper()


def _nearest(name: str, known: list[str]) -> str:
    """Return the known name that was probably meant, as the rest of a sentence."""
    # The prefix, which all have, would make any two alike.
    short = {one.removeprefix(PREFIX): one for one in known}
    found = get_close_matches(name.removeprefix(PREFIX), short, n=1, cutoff=_SIMILAR)
    return f"; did you mean {short[found[0]]}?" if found else ""


def _converted(name: str, value: Any, hint: Any) -> Any:
    """Return a value as its field holds it. Raises ConfigError, which says what the field takes."""
    options = [option for option in get_args(hint) if option is not type(None)]
    if get_origin(hint) is tuple:
        if not isinstance(value, list | str):
            raise ConfigError("must be a list")
        parts = value if isinstance(value, list) else [part.strip() for part in value.split(",") if part.strip()]
        return tuple(_converted(name, part, options[0]) for part in parts)
    if options and type(None) in get_args(hint):
        return _converted(name, value, options[0])
    if hint is bool:
        text = str(value).lower()
        if text not in _TRUE | _FALSE:
            raise ConfigError("must be true or false")
        return text in _TRUE
    if hint is timedelta:
        return parse_duration(value)
    if hint is int:
        return parse_size(value) if name.rpartition(".")[2] in _SIZES else _integer(value)
    if not isinstance(value, str):
        raise ConfigError("must be text")
    return Secret(value) if hint is Secret else value


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not _INTEGER.fullmatch(value.strip()):
        raise ConfigError("must be a whole number")
    return int(value)


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, value in tree.items():
        names += _dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [prefix + name]
    return names
