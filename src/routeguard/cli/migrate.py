"""`routeguard migrate`: bring the database to the schema this version needs."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

from cyclopts import Parameter

from routeguard.cli.main import FINDINGS, GOOD
from routeguard.core.clock import SystemClock
from routeguard.db.database import Database
from routeguard.db.migrate import migrate as apply
from routeguard.db.migrate import pending
from routeguard.settings import Settings


def migrate(
    *, check: Annotated[bool, Parameter(negative=(), help="Change nothing; exit 1 when something is pending.")] = False
) -> int:
    """Bring the database to the current schema. Several may run at once: one works, the others wait."""
    return asyncio.run(_migrate(Settings.load(), check=check))


async def _migrate(settings: Settings, *, check: bool) -> int:
    database = Database(settings.database_url, clock=SystemClock(), settings=settings.database)
    try:
        await database.start()
        found = await pending(database)
        if not found:
            sys.stdout.write("The database is up to date.\n")
            return GOOD
        if check:
            sys.stdout.write("Pending: " + ", ".join(found) + "\n")
            return FINDINGS
        await apply(database)
    finally:
        await database.close()
    sys.stdout.write("Applied: " + ", ".join(found) + "\n")
    return GOOD
