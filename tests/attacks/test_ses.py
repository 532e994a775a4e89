"""SES: endings and beginnings that meet, on both databases."""

from __future__ import annotations

import asyncio

import pytest

from routeguard.core.problem import Problem
from routeguard.foundation.db.database import Database
from tests.sessions.world import Browser, World

pytestmark = pytest.mark.anyio


async def test_a_sign_in_under_way_does_not_survive_signing_out_everywhere(database: Database) -> None:
    """SES-09: the ending waits for the sign-in that holds the user, and then ends its session too."""
    async with World.open(database) as world:
        user = await world.user()
        exchange = Browser(world).exchange()

        async def everywhere() -> int:
            async with database.transaction() as tx:
                return await world.sessions.revoke_all(tx, user.id)

        async with database.transaction() as tx:
            found = await world.sessions.sign_in_user(tx, user.id)
            assert not isinstance(found, Problem)
            await world.sessions.start(tx, found, exchange=exchange, amr=("pwd",))
            ending = asyncio.create_task(everywhere())
            done, _ = await asyncio.wait({ending}, timeout=0.3)
            assert not done
        assert await ending == 1
        assert await world.rows() == []


async def test_a_sign_in_that_begins_during_the_ending_comes_after_it(database: Database) -> None:
    """SES-09: the other order; the twin, for that session lives."""
    async with World.open(database) as world:
        user = await world.user()
        await world.sign_in(user)
        async with database.transaction() as tx:
            assert await world.sessions.revoke_all(tx, user.id) == 1
            beginning = asyncio.create_task(world.try_sign_in(user))
            done, _ = await asyncio.wait({beginning}, timeout=0.3)
            assert not done
        assert not isinstance(await beginning, Problem)
        assert len(await world.rows()) == 1
