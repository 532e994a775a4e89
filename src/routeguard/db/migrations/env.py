"""How Alembic runs our migrations: on the connection, and inside the transaction, that `db.migrate` opened."""

from __future__ import annotations

from alembic import context

from routeguard.db.migrate import VERSION_TABLE
from routeguard.db.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=connection.dialect.name == "sqlite",
    # True of SQLite too, for we say BEGIN ourselves: a migration that fails half way leaves nothing behind.
    transactional_ddl=True,
)
context.run_migrations()
