"""One token in many hands at once: 64 in one process, 32 in two, and against everything that ends the family.

Longer: ``ROUTEGUARD_RACE_ROUNDS=2000 python -m pytest -m long tests/tokens/test_refresh_races.py``.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from routeguard.core.errors import ProblemError
from routeguard.identity.tokens.refresh import hash_of
from tests.rounds import rounds as repeated
from tests.tokens.world import LAPTOP, PHONE, World

if TYPE_CHECKING:
    from routeguard.identity.users.models import User

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

VARIABLE: Final = "ROUTEGUARD_RACE_ROUNDS"
AT_ONCE: Final = 64
BETWEEN_TWO: Final = 32


@repeated(20, 200, variable=VARIABLE)
async def test_one_successor_for_sixty_four(world: World, rounds: int) -> None:
    """SES-04, SES-14: one child, the same for all, nobody else's live, and nobody is taken for a thief."""
    text = (await world.family()).refresh_token
    for generation in range(1, rounds + 1):
        answers = await asyncio.gather(*(world.rotate(text) for _ in range(AT_ONCE)))
        assert len(set(answers)) == 1
        assert answers[0] is not None
        text = answers[0]
        [row] = await world.family_rows()
        assert (row.generation, row.current_hash) == (generation, hash_of(text))
    assert await world.events() == []


@repeated(24, 200, variable=VARIABLE)
async def test_two_clients_with_one_token(world: World, rounds: int) -> None:
    """SES-13, SES-14: one child at most, and then the family dies: once."""
    times = max(rounds // 8, 2)
    for _ in range(times):
        family = await world.family()
        calls = [world.rotate(family.refresh_token, (PHONE, LAPTOP)[number % 2]) for number in range(AT_ONCE)]
        answers = set(await asyncio.gather(*calls)) - {None}
        assert len(answers) == 1
        assert await world.family_rows() == []
        assert await world.rotate(answers.pop() or "") is None
    assert len(await world.events()) == times


@repeated(24, 200, variable=VARIABLE)
async def test_a_thief_and_the_owner_of_different_generations(world: World, rounds: int) -> None:
    """SES-06, SES-14: while the owner goes on with the live token, a spent one comes 32 times: all ends, once."""
    times = max(rounds // 8, 2)
    for _ in range(times):
        first = (await world.family()).refresh_token
        second = await world.rotate(first)
        assert second is not None
        third = await world.rotate(second)
        assert third is not None
        calls = [world.rotate(text) for text in (first, third) for _ in range(AT_ONCE // 2)]
        answers = set(await asyncio.gather(*calls)) - {None}
        assert len(answers) <= 1
        assert await world.family_rows() == []
        assert await world.rows() == []
        for text in (third, *answers):
            assert await world.rotate(text or "") is None
    assert len(await world.events()) == times


@repeated(32, 200, variable=VARIABLE)
@pytest.mark.parametrize("kind", ["revoke", "everywhere", "suspend"])
async def test_nothing_survives_an_ending(world: World, kind: str, rounds: int) -> None:
    """SES-08, SES-09: refreshes interleaved with an ending; once it has returned, nothing of the family is good."""
    dice = random.Random(9)
    for _ in range(max(rounds // 8, 2)):
        user = await world.user()
        session = await world.session(user)
        families = [await world.family(session) for _ in range(2)]
        seen = [family.refresh_token for family in families]
        chains = [_go_on(world, text, seen) for text in list(seen)]
        starts = [_start(world, session, seen) for _ in range(2)]
        await asyncio.gather(*chains, *starts, _end(world, user, session.id, kind, dice.random() / 50))
        assert await world.family_rows() == []
        assert await world.rows() == []
        for text in seen:
            assert await world.rotate(text) is None
    assert await world.events() == []


@repeated(20, 200, variable=VARIABLE)
async def test_one_successor_across_two_processes(world: World, database_url: str, rounds: int) -> None:
    """SES-05, SES-10: two processes, two event loops, one database."""
    async with other_process(database_url) as ask:
        text = (await world.family()).refresh_token
        half = BETWEEN_TWO // 2
        for generation in range(1, max(rounds // 2, 2) + 1):
            theirs = asyncio.create_task(ask(text, half))
            ours = await asyncio.gather(*(world.rotate(text) for _ in range(half)))
            answers = {*ours, *await theirs}
            assert len(answers) == 1
            text = answers.pop() or ""
            [row] = await world.family_rows()
            assert (row.generation, row.current_hash) == (generation, hash_of(text))
    assert await world.events() == []


@asynccontextmanager
async def other_process(url: str) -> AsyncIterator[Any]:
    """Yield what lets another process rotate one token many times at once."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.tokens.racer", url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answered = process.stdin, process.stdout

    async def ask(text: str, times: int) -> list[str | None]:
        asked.write(json.dumps([text, times]).encode() + b"\n")
        found: list[str | None] = json.loads(await answered.readline())
        return found

    try:
        assert await answered.readline() == b"ready\n"
        yield ask
    finally:
        asked.close()
        await process.wait()


async def _go_on(world: World, text: str, seen: list[str]) -> None:
    while (found := await world.rotate(text)) is not None:
        text = found
        seen.append(text)


async def _start(world: World, session: Any, seen: list[str]) -> None:
    with pytest.raises(ProblemError, match="authentication-required"):
        while True:
            seen.append((await world.family(session)).refresh_token)
            await asyncio.sleep(0.001)


async def _end(world: World, user: User, session_id: str, kind: str, after: float) -> None:
    await asyncio.sleep(after)
    if kind == "suspend":
        await world.suspend(user)
        return
    async with world.database.transaction() as tx:
        if kind == "revoke":
            await world.sessions.revoke(tx, user.id, session_id)
        else:
            await world.sessions.revoke_all(tx, user.id)
