"""`routeguard migrate`: bring the database to the schema this version and its features need."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from routeguard.cli.application import database_of, load_guard
from routeguard.cli.main import FINDINGS, GOOD
from routeguard.foundation.db.branches import branches_of
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import current_heads, pending
from routeguard.foundation.db.migrate import migrate as apply
from routeguard.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from routeguard.foundation.db.branches import Branch


def migrate(
    *,
    check: Annotated[bool, Parameter(negative=(), help="Change nothing; exit 1 when something is pending.")] = False,
    app: Annotated[str, Parameter(help="MODULE:GUARD of an application with features of its own.")] = "",
) -> int:
    """Bring the database to the current schema. Several may run at once: one works, the others wait.

    The migrations are those of the built-in features and of those that the setting `features` lists or, with --app,
    that the application gave its Routeguard. A migration of a feature begins with its name.
    """
    if not app:
        database, others = database_of(Settings.load())
        return asyncio.run(_migrate(database, others, check=check))
    guard = load_guard(app)
    return asyncio.run(_migrate(guard.services.get(Database), branches_of(guard.features), check=check))


async def _migrate(database: Database, others: Sequence[Branch], *, check: bool) -> int:
    try:
        await database.start()
        found = await pending(database, others)
        if not found:
            sys.stdout.write(f"The database is up to date ({', '.join(sorted(await current_heads(database)))}).\n")
            return GOOD
        if check:
            sys.stdout.write("Pending: " + ", ".join(found) + "\n")
            return FINDINGS
        await apply(database, others)
    finally:
        await database.close()
    sys.stdout.write("Applied: " + ", ".join(found) + "\n")
    return GOOD
