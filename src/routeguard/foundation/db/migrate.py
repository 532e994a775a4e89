"""Brings the tables up to date: those of the package, and those of features from outside it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from routeguard.core.errors import ConfigError, Misconfigured, Unavailable
from routeguard.foundation.db.branches import built_in, missing, unknown
from routeguard.foundation.db.errors import ConstraintViolation
from routeguard.foundation.db.names import VERBATIM, Names
from routeguard.foundation.db.place import refusals, require_free, require_room, require_schema
from routeguard.foundation.db.renaming import add_prefix, has_unprefixed, unprefixed_revision

# Alembic itself (`db.revisions`) is loaded where there is something to apply: it takes longer than all else here
# together, and most starts find the tables up to date.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from routeguard.foundation.db.branches import Branch
    from routeguard.foundation.db.database import Database

VERSION_TABLE: Final = Names().version
"""What it is called by default."""


async def migrate(database: Database, others: Sequence[Branch] = ()) -> None:
    """Apply every migration not yet applied, in one transaction: all or none. Raises ConfigError and Unavailable.

    Those of all built-in features, and `others`. Processes that start together wait for the first one: SQLite for its
    write lock, PostgreSQL for a locked table (an advisory lock would not survive a connection pooler).
    """
    branches = [*built_in(), *others]
    if not missing(branches, await _known_heads(database, branches)):
        return
    from routeguard.foundation.db.revisions import upgrade  # noqa: PLC0415 - see above

    names = database.names

    def work(connection: sa.Connection) -> None:
        connection.execution_options(**{VERBATIM: True})
        if database.dialect == "postgresql":
            connection.execute(sa.text(f"LOCK TABLE {names.qualified(names.lock)} IN ACCESS EXCLUSIVE MODE"))
        add_prefix(connection, names)
        require_room(connection, names)
        # Read again: another process may have migrated while this one waited for the lock.
        current = _read(connection, names)
        _require_known(database, branches, current)
        require_free(connection, names, [branch.tables for branch in others if not current & {*branch.revisions()}])
        if names.schema:
            # Alembic's ALTER TABLE names no schema, and must not find an application's table of the same name.
            connection.exec_driver_sql(f"SET LOCAL search_path TO {names.schema}")
        connection.execution_options(**{VERBATIM: False})
        before = _orphans(connection)
        upgrade(connection, names, branches, current)
        if found := _orphans(connection) - before:
            tables = ", ".join(sorted({table for table, *_ in found}))
            raise ConfigError(f"the migrations would leave rows that refer to none in {tables}: nothing was changed")

    with refusals(names):
        if database.dialect == "postgresql":
            await _make_lock_table(database)
        await database.run_sync(work)


def _orphans(connection: sa.Connection) -> set[tuple[Any, ...]]:
    """Return the rows of SQLite whose foreign keys refer to no row: they are not enforced during a migration."""
    if connection.dialect.name != "sqlite":
        return set()
    return {tuple(row) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}


async def current_heads(database: Database) -> frozenset[str]:
    """Return the newest applied revision of each branch. Raises ConfigError and Unavailable."""
    names = database.names

    def work(connection: sa.Connection) -> frozenset[str]:
        connection.execution_options(**{VERBATIM: True})
        require_schema(connection, names)
        return _read(connection, names)

    with refusals(names):
        return await database.run_sync(work)


def _read(connection: sa.Connection, names: Names) -> frozenset[str]:
    if sa.inspect(connection).has_table(names.version, schema=names.schema or None):
        table = sa.table(names.version, schema=names.schema or None)
        return frozenset(connection.scalars(sa.select(sa.column("version_num")).select_from(table)))
    unprefixed = unprefixed_revision(connection) if has_unprefixed(connection, names) else None
    return frozenset() if unprefixed is None else frozenset({unprefixed})


async def pending(database: Database, others: Sequence[Branch] = ()) -> list[str]:
    """Return the revisions not yet applied, feature by feature, oldest first. Raises ConfigError and Unavailable.

    A revision of a feature that is not here is a finding, and so is one that a newer version made.
    """
    branches = [*built_in(), *others]
    return missing(branches, await _known_heads(database, branches))


async def _known_heads(database: Database, branches: Sequence[Branch]) -> frozenset[str]:
    current = await current_heads(database)
    _require_known(database, branches, current)
    return current


def _require_known(database: Database, branches: Sequence[Branch], current: frozenset[str]) -> None:
    if findings := unknown(branches, current, others=database.settings.other_features):
        raise ConfigError(findings)


async def require_current(database: Database, others: Sequence[Branch] = ()) -> None:
    """Refuse to begin over tables of another version, which would fail at each request instead.

    A database that is away now may come back while we run. Raises ConfigError.
    """
    try:
        await database.check()
        behind = await pending(database, others)
    except Misconfigured as error:
        raise ConfigError(error.what) from None
    except Unavailable:
        return
    if behind:
        command = "routeguard migrate --app MODULE:GUARD" if others else "routeguard migrate"
        raise ConfigError(f"the database lacks {', '.join(behind)}: run `{command}`{await _hint(database)}")


async def _hint(database: Database) -> str:
    """Return a word on tables of the default name, which are not found once another is set."""
    default = Names()

    def work(connection: sa.Connection) -> bool:
        inspector = sa.inspect(connection.execution_options(**{VERBATIM: True}))
        return inspector.has_table(default.version) and inspector.has_table(default.table("users"))

    if database.names == default or await current_heads(database):
        return ""
    there = await database.run_sync(work)
    return f" (there are tables with the prefix {default.prefix}: is database.table_prefix right?)" if there else ""


class SchemaCheck:
    """Opens the database and looks at its tables, as a service: it starts before whatever reads one."""

    def __init__(self, database: Database, others: Sequence[Branch] = ()) -> None:
        self._database = database
        self._others = others

    async def start(self) -> None:
        """Open and look once. Raises ConfigError, and Unavailable for a file that cannot be opened just now."""
        try:
            await self._database.start()
        except Misconfigured as error:
            raise ConfigError(error.what) from None
        if self._database.temporary:
            await migrate(self._database, self._others)  # No command reaches it.
        await require_current(self._database, self._others)


async def _make_lock_table(database: Database) -> None:
    """Create the table that is only ever locked. Two that create it at once: the loser finds it made."""
    text = f"CREATE TABLE IF NOT EXISTS {database.names.qualified(database.names.lock)} (id integer PRIMARY KEY)"
    with suppress(ConstraintViolation):
        await database.run_sync(lambda connection: connection.exec_driver_sql(text).close())
