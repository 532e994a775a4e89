"""Keys used, made and rotated by many at once, in two real processes on each database."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from routeguard.core.clock import SystemClock
from routeguard.core.errors import ProblemError
from tests.api_keys.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@asynccontextmanager
async def racers(url: str, number: int = 2) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    command = [sys.executable, "-m", "tests.api_keys.racer", url]
    pipes: Any = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    started: list[asyncio.subprocess.Process] = []
    try:
        while len(started) < number:
            started += [await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[2], **pipes)]
        for one in started:
            assert await heard(one) == "ready"
        yield started
    finally:
        for one in started:
            if one.returncode is None:
                one.kill()
                await one.wait()


async def heard(one: asyncio.subprocess.Process) -> str:
    assert one.stdout is not None
    return (await asyncio.wait_for(one.stdout.readline(), 60)).decode().strip()


async def told(started: list[asyncio.subprocess.Process], *order: Any) -> int:
    """Tell all processes the same and return how often it succeeded in all of them."""
    for one in started:
        assert one.stdin is not None
        one.stdin.write(json.dumps(order).encode() + b"\n")
    return sum([int(await heard(one)) for one in started])


async def test_of_uses_and_keys_no_more_than_allowed_and_every_use_is_counted(world: World, database_url: str) -> None:
    """KEY-13: one use left and 100 at once in two processes; then five left; the counts of both are summed.

    Another owner makes twenty keys at once, of which he gets the five the settings allow.
    """
    user = await world.user()
    once, five = await world.key(user, remaining=1), await world.key(user, remaining=5)
    endless = await world.key(user)
    async with racers(database_url) as started:
        assert await told(started, "verify", once.text, 50) == 1
        assert await told(started, "verify", five.text, 20) == 5
        assert await told(started, "verify", endless.text, 20) == 40
        many = await world.user()
        assert await told(started, "create", many.id, 10) == 5
        assert len(await world.keys.list(many.id)) == 5
        for one in started:
            assert one.stdin is not None
            one.stdin.close()
            assert await asyncio.wait_for(one.wait(), 60) == 0
    keys = {key.id: key for key, _ in await world.keys.list(user.id)}
    assert keys[once.key.id].remaining == 0
    assert keys[five.key.id].remaining == 0
    assert [keys[one.key.id].usage_count for one in (once, five, endless)] == [1, 5, 40]


async def test_of_rotations_that_saw_the_same_secret_one_wins(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """KEY-14: all have looked before any writes; the losers are told 409 and no key that is dead already."""
    made = await world.key()
    everybody = asyncio.Barrier(4)
    look = world.keys._find

    async def together(owner_id: str, key_id: str) -> Any:
        found = await look(owner_id, key_id)
        if found.last_four == made.text[-4:] and everybody.n_waiting < everybody.parties:
            await everybody.wait()
        return found

    monkeypatch.setattr(world.keys, "_find", together)
    rotations = [world.keys.rotate(made.key.owner_id, made.key.id) for _ in range(4)]
    answers = await asyncio.gather(*rotations, return_exceptions=True)
    problems = [one.problem.type.code for one in answers if isinstance(one, ProblemError)]
    winners = [one for one in answers if not isinstance(one, BaseException)]
    assert problems == ["api-key-conflict"] * 3
    assert await world.status(winners[0].text) == 200
    assert await world.status(made.text) == 401


@pytest.fixture
async def world(database: Any) -> AsyncIterator[World]:
    async with World.of(database, SystemClock(), maximum=5) as world:
        yield world
