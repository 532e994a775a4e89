"""How often keys are used: no count is lost in order, and none is counted twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from routeguard.core.errors import Unavailable
from tests.api_keys.world import World
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(database: Any) -> AsyncIterator[World]:
    async with World.of(database) as world:
        yield world


async def counted(world: World, made: Any) -> tuple[int, float]:
    async with World.of(world.database, FakeClock(world.clock.time())) as other:
        key = (await other.keys.find(made.key.owner_id, made.key.id))[0]
        return key.usage_count, key.last_used_at.timestamp() if key.last_used_at else 0.0


async def test_closing_writes_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routeguard.identity.api_keys.uses._BATCH", 2)
    made = [await world.key() for _ in range(5)]
    await world.uses.start()
    for number, one in enumerate(made):
        for _ in range(number):
            await world.verify(one.text)
    now = world.clock.time()
    await world.uses.close()
    assert [await counted(world, one) for one in made] == [(0, 0.0), (1, now), (2, now), (3, now), (4, now)]
    assert world.uses.pending(made[4].key.id) is None


async def test_what_could_not_be_written_is_kept_for_the_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await world.key()
    await world.verify(made.text)

    async def away(_: Any) -> None:
        raise Unavailable("the database")

    with monkeypatch.context() as patched:
        patched.setattr(world.database, "run", away)
        with pytest.raises(Unavailable):
            await world.uses.flush()
    await world.verify(made.text)
    await world.uses.flush()
    await world.uses.flush()
    assert (await counted(world, made))[0] == 2


async def test_the_last_use_never_goes_back(world: World) -> None:
    made = await world.key()
    async with World.of(world.database, FakeClock(world.clock.time() - 50)) as behind:
        await behind.verify(made.text)
        await world.verify(made.text)
        await world.uses.flush()
        await behind.uses.flush()
    assert await counted(world, made) == (2, world.clock.time())
