"""A migrated database with one user, for applications that are started by a test."""

from __future__ import annotations

from typing import Any

from routeguard import Routeguard, Settings
from routeguard.cli.accounts import make_account
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate

EMAIL, PASSWORD = "ada@example.com", "plum tractor wobble seventeen"


async def prepare(settings: Settings) -> None:
    guard: Routeguard[Any] = Routeguard(settings)
    await migrate(guard.services.get(Database))
    await guard.start()
    await make_account(guard.services, EMAIL, name="Ada", role="user", password=PASSWORD)
    await guard.close()
