"""Finds the guard of an application that a command is about."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from routeguard.app import Routeguard
from routeguard.core.errors import ConfigError


def load_guard(place: str) -> Routeguard[Any]:
    """Import `MODULE:NAME`, also from the current directory, and return the Routeguard there. Raises ConfigError."""
    module_name, _, name = place.partition(":")
    if not (module_name and name):
        raise ConfigError(f"--app {place!r} is not MODULE:NAME, such as myapp.auth:guard")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ModuleNotFoundError, AttributeError) as error:
        # What an import of the module's own lacks is a fault of that module, which its traceback shows.
        if isinstance(error, ModuleNotFoundError) and not module_name.startswith(error.name or "\0"):
            raise
        raise ConfigError(f"--app {place}: {error}") from None
    if not isinstance(found, Routeguard):
        raise ConfigError(f"--app {place} is a {type(found).__name__}, and no Routeguard")
    return found
