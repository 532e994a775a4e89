"""A caller that is cancelled leaves a transaction whole and the pool full, on both products (attack OPS-04)."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
import sqlalchemy as sa

from routeguard.core.tasks import uncancelled
from routeguard.foundation.db.database import Database
from routeguard.identity.users.store import users
from tests.db.test_database import count, user
from tests.steady import cancelled_after

COVERS = ("core/tasks",)

pytestmark = pytest.mark.anyio

TURNS = 60
"""Of the event loop: more than a transaction takes here when nothing else runs; the last ones therefore commit."""
PAUSE = 0.0002


async def test_what_waits_for_a_commit_is_called_exactly_when_it_was_made(database: Database) -> None:
    told: set[int] = set()

    async def insert(number: int) -> None:
        async with database.transaction() as tx:
            await tx.execute(user(number))
            tx.after_commit(lambda: told.add(number))

    for turns in range(TURNS):
        await cancelled_after(turns, insert(turns), pause=PAUSE)
    async with database.read() as tx:
        made = {int(row[0].removeprefix("usr_")) for row in await tx.all(sa.select(users.c.id))}
    assert made == told
    assert 0 < len(made) < TURNS


async def test_no_connection_is_lost_by_a_cancellation(database: Database) -> None:
    async def look() -> None:
        async with database.read() as tx:
            await tx.scalar(sa.select(sa.func.count()).select_from(users))

    async def change() -> None:
        with suppress(LookupError):
            async with database.transaction() as tx:
                await tx.execute(user(1))
                raise LookupError

    for turns in range(TURNS):
        for work in (look, change):
            await cancelled_after(turns, work(), pause=PAUSE)
    assert database._backend.writes.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert database._backend.reads.pool.checkedout() == 0  # type: ignore[attr-defined]
    async with database.transaction() as tx:
        await tx.execute(user(2))
    assert await count(database) == 1


async def test_work_goes_on_while_its_caller_is_cancelled_again_and_again() -> None:
    begun, gate, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await gate.wait()
        ended.set()

    task = asyncio.create_task(uncancelled(work))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_the_work_raises_is_raised() -> None:
    async def work() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await uncancelled(work)
