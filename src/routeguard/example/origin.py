"""Which databases the example may write into: empty ones, and those an earlier start of it made."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from routeguard.core.errors import ConfigError
from routeguard.example.store import invoices
from routeguard.foundation.db.errors import ConstraintViolation
from routeguard.identity.users.store import users

if TYPE_CHECKING:
    from routeguard.foundation.db.database import Database

_mark: Final = sa.Table("example_database", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
"""One row, written before the first demonstration user: this database belongs to the example."""
_BESIDE: Final = frozenset({"sqlite_sequence", invoices.name, _mark.name})
_ADVICE: Final = (
    "demonstration users, an admin among them, are written only into an empty database or into one that an earlier "
    "`routeguard dev` made"
)


async def require_own(database: Database) -> None:
    """Refuse a database that holds what the example did not make. Reads only, and needs no table of ours.

    Attack: the example's admin in a database that other people sign in to. Raises ConfigError, Unavailable.
    """

    def work(connection: sa.Connection) -> str | None:
        tables = set(sa.inspect(connection).get_table_names(schema=database.names.schema or None))
        if _mark.name in tables and connection.scalar(sa.select(_mark.c.id)) is not None:
            return None
        if tables - _BESIDE - database.names.all:
            return "tables that are not the example's"
        if database.names.table("users") in tables and connection.scalar(sa.select(sa.func.count()).select_from(users)):
            return "users that the example did not make"
        return None

    found = await database.run_sync(work)
    if found is not None:
        raise ConfigError(f"the database holds {found}: {_ADVICE}")


async def claim(database: Database) -> None:
    """Mark the migrated database as the example's, if there is no user in it. Raises ConfigError, Unavailable.

    Checked again in the transaction that marks it: a user may have signed up since `require_own`.
    """
    # Of two that do it at once, the second finds it done.
    with suppress(ConstraintViolation):
        async with database.transaction() as tx:
            await tx.execute(CreateTable(_mark, if_not_exists=True))
    with suppress(ConstraintViolation):
        async with database.transaction() as tx:
            if await tx.scalar(sa.select(_mark.c.id)) is not None:
                return
            if await tx.scalar(sa.select(sa.func.count()).select_from(users)):
                raise ConfigError(f"the database holds users that the example did not make: {_ADVICE}")
            await tx.execute(sa.insert(_mark).values(id=1))
