"""One example application for each module of attacks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.attacks.world import Browser, World


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with World.open(tmp_path_factory.mktemp("attacked")) as opened:
        yield opened


@pytest.fixture
async def alice(world: World) -> Browser:
    return await world.browser("alice")


@pytest.fixture
async def bob(world: World) -> Browser:
    return await world.browser("bob")


@pytest.fixture
def guest(world: World) -> Browser:
    return Browser(world)
