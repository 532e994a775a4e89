"""The whole service on both databases: every test here that asks for `world` runs twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.passwords.world import World


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """One running process of the service."""
    async with World.open(database_url) as world:
        yield world
