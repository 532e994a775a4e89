"""Reading one tree of dataclasses from arguments, the environment and TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from routeguard.core.errors import ConfigError
from routeguard.core.rate import parse_duration, parse_size
from routeguard.core.secret import Secret

PREFIX: Final = "ROUTEGUARD_"
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_SIZES: Final = frozenset({"body_limit"})


def read_toml(directory: Path) -> Mapping[str, Any]:
    """Return `[tool.routeguard]` of a directory's pyproject.toml. Raises ConfigError."""
    path = directory / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        found: Mapping[str, Any] = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("routeguard", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return found


class Reader:
    """Reads one tree of dataclasses from three sources and collects what it cannot read."""

    def __init__(self, environ: Mapping[str, str], toml: Mapping[str, Any], explicit: Mapping[str, Any]) -> None:
        self._environ = environ
        self._toml = toml
        self._explicit = explicit
        self._known: set[str] = set()
        self.findings: list[str] = []
        self.provenance: dict[str, str] = {}

    def read(self, kind: type[Any], prefix: str) -> dict[str, Any]:
        """Return what is given for the fields of `kind`, whose dotted names begin with `prefix`."""
        hints = get_type_hints(kind)
        values: dict[str, Any] = {}
        for item in fields(kind):
            if item.name == "provenance":
                continue
            name, hint = prefix + item.name, hints[item.name]
            if isinstance(hint, type) and is_dataclass(hint) and not self._given(name):
                values[item.name] = hint(**self.read(hint, name + "."))
                continue
            found = self._find(name, hint)
            if found is not MISSING:
                values[item.name] = found
        return values

    def refuse_unknown(self) -> None:
        """A misspelt variable would silently leave a default in place."""
        for variable in self._environ:
            if variable.startswith(PREFIX) and variable not in self._known:
                self.findings.append(f"{variable} is not a setting")
        for name in _dotted(self._toml):
            if PREFIX + name.replace(".", "_").upper() not in self._known:
                self.findings.append(f"[tool.routeguard] {name} is not a setting")
        for name in self._explicit:
            if PREFIX + name.upper() not in self._known:
                self.findings.append(f"{name} is not a setting")

    def _given(self, name: str) -> bool:
        if name in self._explicit:
            self._known.add(PREFIX + name.upper())
            return True
        return False

    def _find(self, name: str, hint: Any) -> Any:
        variable = PREFIX + name.replace(".", "_").upper()
        self._known.add(variable)
        if name in self._explicit:
            self.provenance[name] = "argument"
            return self._explicit[name]
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
        except (ConfigError, ValueError, TypeError) as error:
            # The value itself may be a secret, so only its name is shown.
            self.findings.append(f"{label}: {error if isinstance(error, ConfigError) else 'cannot be read'}")
            return MISSING


def _converted(name: str, value: Any, hint: Any) -> Any:
    options = [option for option in get_args(hint) if option is not type(None)]
    if get_origin(hint) is tuple:
        parts = value if isinstance(value, list) else [part.strip() for part in str(value).split(",") if part.strip()]
        return tuple(_converted(name, part, options[0]) for part in parts)
    if options and get_origin(hint) is not None and type(None) in get_args(hint):
        return _converted(name, value, options[0])
    if hint is bool:
        text = str(value).lower()
        if text not in _TRUE | _FALSE:
            raise ConfigError("must be true or false")
        return text in _TRUE
    if hint is timedelta:
        return parse_duration(value)
    if hint is int:
        return parse_size(value) if name.rpartition(".")[2] in _SIZES else int(value)
    if hint is Secret:
        return Secret(str(value))
    return str(value) if hint is str else hint(value)


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, value in tree.items():
        names += _dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [prefix + name]
    return names
