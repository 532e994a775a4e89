"""Making ready what the example needs: the tables, and the people it begins with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from routeguard.app import Routeguard
from routeguard.cli.accounts import Made, make_account
from routeguard.db.database import Database
from routeguard.db.migrate import migrate
from routeguard.example import store
from routeguard.example.people import PEOPLE
from routeguard.users.service import Users

if TYPE_CHECKING:
    from routeguard.settings import Settings


async def prepare(settings: Settings) -> list[Made]:
    """Bring the database up to date and make the people who are not there yet; return those made just now."""
    guard = Routeguard(settings)
    database = guard.services.get(Database)
    await migrate(database)
    await guard.start()
    try:
        await store.create_table(database)
        # All at once: their passwords are hashed on as many cores as there are.
        made = await asyncio.gather(*(_make(guard, email, name, role) for email, name, role in PEOPLE))
    finally:
        await guard.close()
    return [one for one in made if one is not None]


async def _make(guard: Routeguard[Any], email: str, name: str, role: str) -> Made | None:
    """Make one person, unless he is there already: then not even a password is hashed for him."""
    async with guard.services.get(Database).read() as tx:
        if await guard.services.get(Users).find_by_email(tx, email) is not None:
            return None
    return await make_account(guard.services, email, name=name, role=role)
