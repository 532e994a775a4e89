"""Two processes on one SQLite file: the one that leaves takes nothing away from the one that stays."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from routeguard.core.clock import SystemClock
from routeguard.foundation.db.database import Database
from routeguard.foundation.invalidation.store import insert_invalidations, invalidations

COVERS = ("foundation/db/private_file",)

pytestmark = pytest.mark.anyio

_VISIT = """
import sqlite3, sys
visitor = sqlite3.connect(sys.argv[1])
visitor.execute("INSERT INTO routeguard_session_invalidations (subject, at) VALUES ('visitor', 1)")
visitor.commit()
visitor.close()
"""


async def subjects(database: Database) -> list[str]:
    async with database.read() as tx:
        return [row.subject for row in await tx.all(sa.select(invalidations.c.subject).order_by(invalidations.c.id))]


async def test_a_process_that_leaves_does_not_take_the_log_with_it(sqlite_url: str):
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    log = path.with_name(path.name + "-wal")
    database = Database(sqlite_url, clock=SystemClock())
    await database.start()
    try:
        # Connections of every kind: each one made must leave the locks of those before it alone.
        for number in range(3):
            async with database.transaction() as tx:
                await insert_invalidations(tx, [f"mine-{number}"])
            async with database.read(), database.read():
                await subjects(database)
        before = log.stat().st_ino
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", _VISIT, str(path)], check=True, timeout=60)
        assert log.stat().st_ino == before
        async with database.transaction() as tx:
            await insert_invalidations(tx, ["after"])
        assert await subjects(database) == ["mine-0", "mine-1", "mine-2", "visitor", "after"]
    finally:
        await database.close()
    other = Database(sqlite_url, clock=SystemClock())
    await other.start()
    assert (await subjects(other))[-1] == "after"
    await other.close()
