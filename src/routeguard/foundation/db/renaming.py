"""Takes over tables from before they had a prefix: `users` becomes `routeguard_users`, with all that belongs to it."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from routeguard.foundation.db.names import DEFAULT_PREFIX, TABLES, Names

_VERSION: Final = f"{DEFAULT_PREFIX}version"
_LOCK: Final = f"{DEFAULT_PREFIX}migration_lock"
_FIRST: Final = frozenset(
    {
        "users",
        "one_time_tokens",
        "password_hashes",
        "sessions",
        "session_invalidations",
        "outbox",
    }
)
"""What the first migration made; all of them together belong to no other application."""
_NAME: Final = re.compile(rf"((?:pk|uq|fk|ix)_)?({'|'.join(sorted(TABLES, key=len, reverse=True))})(?![a-z0-9])")
_REFERRED: Final = "_user_id_users"
"""How names of foreign keys ended, which told the referred table too."""


def has_unprefixed(connection: sa.Connection, names: Names) -> bool:
    """Return whether our tables are there without a prefix and not yet under their names of now."""
    inspector = sa.inspect(connection)
    if inspector.has_table(names.table("users"), schema=names.schema or None):
        return False
    return {_VERSION, *_FIRST} <= set(inspector.get_table_names())


def unprefixed_revision(connection: sa.Connection) -> str | None:
    """Return the revision of tables without a prefix."""
    found: str | None = connection.exec_driver_sql(f"SELECT version_num FROM {_VERSION}").scalar()  # noqa: S608 - a constant
    return found


def add_prefix(connection: sa.Connection, names: Names) -> None:
    """Rename tables, indexes, constraints and sequences, and move them into our schema, if they are there."""
    if not (has_unprefixed(connection, names) or _has_former_constraints(connection, names)):
        return
    present = set(sa.inspect(connection).get_table_names())
    bases = [base for base in TABLES if base in present]
    if connection.dialect.name == "sqlite":
        for base in bases:
            _rename_sqlite(connection, base, names)
        _rename(connection, _VERSION, names.version)
        return
    former: str = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
    for base in bases:
        _rename_postgresql(connection, base, names)
        _move(connection, names.table(base), former, names.schema)
    _rename(connection, _VERSION, names.version)
    _move(connection, names.version, former, names.schema)
    if (former, _LOCK) != (names.schema or former, names.lock):
        # A migration that runs holds the one of now.
        _run(connection, f"DROP TABLE IF EXISTS {former}.{_LOCK}")


def _has_former_constraints(connection: sa.Connection, names: Names) -> bool:
    """Return whether tables that keep their names, for the prefix is empty, have foreign keys of the former names."""
    if names.prefix or names.schema or not sa.inspect(connection).has_table(_VERSION):
        return False
    return unprefixed_revision(connection) in {"0001", "0002", "0003"}


def renamed(name: str, prefix: str) -> str:
    """Return the name of now of an index, a constraint or a sequence that was named without a prefix."""
    if name.startswith("fk_") and name.endswith(_REFERRED):
        name = name.removesuffix("_users")
    return _NAME.sub(lambda found: (found[1] or "") + prefix + found[2], name, count=1)


def _run(connection: sa.Connection, text: str) -> None:
    connection.exec_driver_sql(text)


def _rename(connection: sa.Connection, old: str, new: str) -> None:
    if old != new:
        _run(connection, f"ALTER TABLE {old} RENAME TO {new}")


def _move(connection: sa.Connection, table: str, former: str, schema: str) -> None:
    if schema and schema != former:
        _run(connection, f"ALTER TABLE {former}.{table} SET SCHEMA {schema}")


def _rename_postgresql(connection: sa.Connection, base: str, names: Names) -> None:
    new, prefix = names.table(base), names.prefix
    _rename(connection, base, new)
    # An index that keeps a constraint is renamed with it.
    constraints = f"SELECT conname FROM pg_constraint WHERE conrelid = '{new}'::regclass"  # noqa: S608 - constants
    for (name,) in connection.exec_driver_sql(constraints).all():
        if renamed(name, prefix) != name:
            _run(connection, f"ALTER TABLE {new} RENAME CONSTRAINT {name} TO {renamed(name, prefix)}")
    others = (
        "SELECT DISTINCT relname, relkind::text FROM pg_class JOIN pg_depend"  # noqa: S608 - constants
        " ON objid = pg_class.oid AND classid = 'pg_class'::regclass"
        f" WHERE refobjid = '{new}'::regclass AND relkind IN ('i', 'S')"
    )
    for name, kind in connection.exec_driver_sql(others).all():
        if renamed(name, prefix) != name:
            word = "INDEX" if kind == "i" else "SEQUENCE"
            _run(connection, f"ALTER {word} {name} RENAME TO {renamed(name, prefix)}")


def _rename_sqlite(connection: sa.Connection, base: str, names: Names) -> None:
    new, prefix = names.table(base), names.prefix
    _rename(connection, base, new)
    indexes = sa.text("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = :t AND sql IS NOT NULL")
    for name, text in connection.execute(indexes, {"t": new}).all():
        if renamed(name, prefix) == name:
            continue
        # SQLite cannot rename an index.
        _run(connection, f"DROP INDEX {name}")
        _run(connection, text.replace(f"INDEX {name} ", f"INDEX {renamed(name, prefix)} ", 1))
    _name_constraints(connection, new, prefix)


def _name_constraints(connection: sa.Connection, table: str, prefix: str) -> None:
    """Change the names of a table's constraints in its text, the way SQLite documents ("ALTER TABLE", section 7).

    They are of no consequence for what is stored. Where that is forbidden (SQLITE_DBCONFIG_DEFENSIVE), they stay.
    """
    text = connection.execute(sa.text("SELECT sql FROM sqlite_schema WHERE name = :t"), {"t": table}).scalar_one()
    changed = re.sub(r"CONSTRAINT (\w+)", lambda found: f"CONSTRAINT {renamed(found[1], prefix)}", text)
    with suppress(DatabaseError), connection.begin_nested():
        version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
        _run(connection, "PRAGMA writable_schema=ON")
        try:
            update = sa.text("UPDATE sqlite_schema SET sql = :s WHERE type = 'table' AND name = :t")
            connection.execute(update, {"s": changed, "t": table})
            _run(connection, f"PRAGMA schema_version={version + 1}")
        finally:
            _run(connection, "PRAGMA writable_schema=OFF")
