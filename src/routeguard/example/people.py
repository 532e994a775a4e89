"""The people the example begins with."""

from __future__ import annotations

from typing import Final

PEOPLE: Final = (
    ("admin@example.com", "Ada Admin", "admin"),
    ("moderator@example.com", "Mo Moderator", "moderator"),
    ("alice@example.com", "Alice", "user"),
    ("bob@example.com", "Bob", "user"),
)
"""Address, name and site-wide role. Their passwords are made at the first start and kept as hashes only."""
