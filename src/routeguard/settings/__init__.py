"""Settings: a tree of small frozen objects, read from arguments, the environment and TOML, checked all at once."""

from __future__ import annotations

from routeguard.settings.development_secret import keep_development_secret
from routeguard.settings.tree import Settings

__all__ = ["Settings", "keep_development_secret"]
