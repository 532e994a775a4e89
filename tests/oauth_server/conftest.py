"""The identity service on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.oauth_server.world import Service, World


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """One process."""
    async with World.open(database_url) as world:
        yield world


@pytest.fixture
async def shop(world: World) -> Service:
    """A registered client."""
    return await world.client()
