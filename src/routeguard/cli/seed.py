"""Preparing what the example needs: the tables, and its demonstration users."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from routeguard.app import Routeguard
from routeguard.cli.accounts import Made, make_account
from routeguard.example import store
from routeguard.example.origin import claim, require_own
from routeguard.example.people import PEOPLE
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.identity.users.service import Users

if TYPE_CHECKING:
    from routeguard.settings import Settings


async def prepare(settings: Settings) -> list[Made]:
    """Migrate the database and create the demonstration users that are missing; return those created now.

    Raises ConfigError, before anything is written, for a database that holds what `dev` did not make.
    """
    guard = Routeguard(settings)
    database = guard.services.get(Database)
    try:
        await database.start()
        await require_own(database)
        await migrate(database)
        await guard.start()
        await claim(database)
        await store.create_table(database)
        # All at once: their passwords are hashed on as many cores as there are.
        made = await asyncio.gather(*(_make(guard, email, name, role) for email, name, role in PEOPLE))
    finally:
        await guard.close()
        await database.close()
    return [one for one in made if one is not None]


async def _make(guard: Routeguard[Any], email: str, name: str, role: str) -> Made | None:
    """Create one user, unless the address is taken: then no password is hashed either."""
    async with guard.services.get(Database).read() as tx:
        if await guard.services.get(Users).find_by_email(tx, email) is not None:
            return None
    return await make_account(guard.services, email, name=name, role=role)
