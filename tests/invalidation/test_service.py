"""The feed of the service's own processes: told at the commit, read by the others, and pruned now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from routeguard.core.clock import SteadyClock
from routeguard.foundation.db.time import database_time
from routeguard.foundation.invalidation.service import RETENTION, Invalidations
from routeguard.foundation.invalidation.store import invalidations
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from routeguard.foundation.db.database import Database

COVERS = ("foundation/invalidation/store",)

pytestmark = pytest.mark.anyio

KEEP = 660.0


def _feed(database: Database, clock: FakeClock, **given: Any) -> Invalidations:
    return Invalidations(database, clock=SteadyClock(clock), poll=1, trust=4, keep=KEEP, **given)


async def test_a_subject_is_stale_here_at_the_commit_and_elsewhere_at_the_next_poll(database: Database) -> None:
    """SES-18."""
    clock = FakeClock()
    here, there = _feed(database, clock), _feed(database, clock)
    await there.poll()
    async with database.transaction() as tx:
        await here.invalidate(tx, "usr_a", "ses_a")
        assert not here.is_stale("usr_a"), "nothing has been committed yet"
    assert here.is_stale("usr_a")
    assert here.is_stale("ses_a")
    assert not there.is_stale("usr_a")
    await there.poll()
    assert there.is_stale("usr_a")


async def test_nothing_is_stale_after_a_rollback(database: Database) -> None:
    feed = _feed(database, FakeClock())
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            await feed.invalidate(tx, "usr_a")
            raise ZeroDivisionError
    await feed.poll()
    assert not feed.is_stale("usr_a")


async def test_what_no_service_reads_any_more_is_deleted_with_what_prune_deletes(database: Database) -> None:
    clock, pruned = FakeClock(), []

    async def prune(tx: object) -> None:
        pruned.append(tx)

    feed = _feed(database, clock, prune=prune)

    async def add(subject: str, *, age: float) -> None:
        async with database.transaction() as tx:
            await tx.execute(sa.insert(invalidations).values(subject=subject, at=database_time() - age))

    async def subjects() -> set[str]:
        async with database.read() as tx:
            return {row.subject for row in await tx.all(sa.select(invalidations.c.subject))}

    await add("kept", age=RETENTION - 600)
    await add("over", age=RETENTION + 600)
    await feed.poll()
    assert await subjects() == {"kept"}
    assert len(pruned) == 1

    await add("over", age=RETENTION + 600)
    clock.advance(299)
    await feed.poll()
    assert await subjects() == {"kept", "over"}, "not with every poll"
    clock.advance(2)
    await feed.poll()
    assert await subjects() == {"kept"}
    assert len(pruned) == 2
