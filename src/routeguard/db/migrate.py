"""Bringing the tables up to date: Alembic's scripts, packaged with the code that needs them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from routeguard.core.errors import ConfigError, Misconfigured, Unavailable
from routeguard.db.errors import ConstraintViolation
from routeguard.db.names import VERBATIM, Names
from routeguard.db.place import refusals, require_room, require_schema
from routeguard.db.renaming import add_prefix, has_unprefixed, unprefixed_revision

# Alembic itself is loaded where there is something to apply: it takes longer than all else here together, and most
# starts find the tables up to date.
if TYPE_CHECKING:
    from alembic.config import Config

    from routeguard.db.database import Database

VERSION_TABLE: Final = Names().version
"""What it is called by default."""
_SCRIPTS: Final = Path(__file__).parent / "migrations"


async def migrate(database: Database) -> None:
    """Apply every migration not yet applied, in one transaction: all or none. Raises ConfigError and Unavailable.

    Processes that start together wait for the first one: SQLite for its write lock, PostgreSQL for a locked table
    (an advisory lock would not survive a connection pooler).
    """
    if await current_revision(database) == head_revision():
        return
    from alembic import command  # noqa: PLC0415 - see above

    names = database.names

    def work(connection: sa.Connection) -> None:
        connection.execution_options(**{VERBATIM: True})
        if database.dialect == "postgresql":
            connection.execute(sa.text(f"LOCK TABLE {names.qualified(names.lock)} IN ACCESS EXCLUSIVE MODE"))
        add_prefix(connection, names)
        require_room(connection, names)
        if names.schema:
            # Alembic's ALTER TABLE names no schema, and must not find an application's table of the same name.
            connection.exec_driver_sql(f"SET LOCAL search_path TO {names.schema}")
        connection.execution_options(**{VERBATIM: False})
        config = _config()
        config.attributes.update(connection=connection, names=names)
        command.upgrade(config, "head")

    with refusals(names):
        if database.dialect == "postgresql":
            await _make_lock_table(database)
        await database.run_sync(work)


async def current_revision(database: Database) -> str | None:
    """Return the revision the database has, or None before the first. Raises ConfigError and Unavailable."""
    names = database.names

    def work(connection: sa.Connection) -> str | None:
        connection.execution_options(**{VERBATIM: True})
        require_schema(connection, names)
        if sa.inspect(connection).has_table(names.version, schema=names.schema or None):
            table = sa.table(names.version, schema=names.schema or None)
            found: str | None = connection.scalar(sa.select(sa.column("version_num")).select_from(table))
            return found
        return unprefixed_revision(connection) if has_unprefixed(connection, names) else None

    with refusals(names):
        return await database.run_sync(work)


def head_revision() -> str:
    """Return the revision this version of the package needs: what the name of its newest script begins with."""
    return max(path.stem for path in (_SCRIPTS / "versions").glob("[0-9]*_*.py")).partition("_")[0]


async def pending(database: Database) -> list[str]:
    """Return the revisions not yet applied, oldest first. Raises Unavailable."""
    current, head = await current_revision(database), head_revision()
    if head == current:
        return []
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see above

    scripts = ScriptDirectory.from_config(_config())
    found = [script.revision for script in scripts.walk_revisions("base", head)]
    later = found[: found.index(current)] if current in found else found
    return later[::-1]


async def require_current(database: Database) -> None:
    """Refuse to begin over tables of another version, which would fail at each request instead.

    A database that is away now may come back while we run. Raises ConfigError.
    """
    try:
        await database.check()
        behind = await pending(database)
    except Misconfigured as error:
        raise ConfigError(error.what) from None
    except Unavailable:
        return
    if behind:
        raise ConfigError(f"the database lacks {', '.join(behind)}: run `routeguard migrate`{await _hint(database)}")


async def _hint(database: Database) -> str:
    """Return a word on tables of the default name, which nobody finds who has set another since."""
    default = Names()

    def work(connection: sa.Connection) -> bool:
        inspector = sa.inspect(connection.execution_options(**{VERBATIM: True}))
        return inspector.has_table(default.version) and inspector.has_table(default.table("users"))

    if database.names == default or await current_revision(database) is not None:
        return ""
    there = await database.run_sync(work)
    return f" (there are tables with the prefix {default.prefix}: is database.table_prefix right?)" if there else ""


class SchemaCheck:
    """Opens the database and looks at its tables, as a service: it starts before whatever reads one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self) -> None:
        """Open and look once. Raises ConfigError, and Unavailable for a file that cannot be opened just now."""
        try:
            await self._database.start()
        except Misconfigured as error:
            raise ConfigError(error.what) from None
        await require_current(self._database)


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    # Config interpolates "%", which may occur in a path.
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


async def _make_lock_table(database: Database) -> None:
    """Create the table that is only ever locked. Two that create it at once: the loser finds it made."""
    text = f"CREATE TABLE IF NOT EXISTS {database.names.qualified(database.names.lock)} (id integer PRIMARY KEY)"
    with suppress(ConstraintViolation):
        await database.run_sync(lambda connection: connection.exec_driver_sql(text).close())
