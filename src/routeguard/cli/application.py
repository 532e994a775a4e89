"""Finds what a command is about: the guard of an application, or the database of a deployment."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routeguard.app import Routeguard
from routeguard.core.clock import SystemClock
from routeguard.core.errors import ConfigError
from routeguard.foundation.db.branches import Branch, branches_of
from routeguard.foundation.db.database import Database
from routeguard.settings.branches import listed

if TYPE_CHECKING:
    from routeguard.settings import Settings


def database_of(settings: Settings) -> tuple[Database, list[Branch]]:
    """Return the database of a deployment, and the migrations of the features that its settings list.

    Raises ConfigError.
    """
    features, findings = listed(settings.features)
    if findings:
        raise ConfigError(findings)
    branches = branches_of(features)
    tables = [table for branch in branches for table in branch.tables]
    database = Database(settings.database_url, clock=SystemClock(), settings=settings.database, tables=tables)
    return database, branches


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
