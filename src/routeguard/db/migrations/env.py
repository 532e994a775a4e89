"""How Alembic runs our migrations: on the connection, and inside the transaction, that `db.migrate` opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context

from routeguard.db.schema import metadata

if TYPE_CHECKING:
    from routeguard.db.names import Names

connection = context.config.attributes["connection"]
names: Names = context.config.attributes["names"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=names.version,
    version_table_schema=names.schema or None,
    render_as_batch=connection.dialect.name == "sqlite",
    # True of SQLite too, for we say BEGIN ourselves: a migration that fails half way leaves nothing behind.
    transactional_ddl=True,
)
context.run_migrations()
