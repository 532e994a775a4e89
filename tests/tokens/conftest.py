"""Refresh families on both databases: every test with a `world` runs twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tokens.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from routeguard.foundation.db.database import Database


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    """One process that has caught up."""
    async with World.of(database) as world:
        yield world
