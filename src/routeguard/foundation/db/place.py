"""Whether there is a place for our tables: a schema that exists, a right to create in it, names that are free."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from routeguard.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from routeguard.foundation.db.names import Names

# SQLSTATE, PostgreSQL appendix A.
_FINDINGS: Final = {
    "42501": "the user of database_url may not create or change our tables{place}: run `routeguard migrate` as their "
    "owner, or GRANT CREATE, USAGE ON SCHEMA",
    "42P07": "a table or an index of one of our names{names} exists already and is not ours: set database.table_prefix "
    "or database.schema",
    "3F000": "the schema{place} does not exist: CREATE SCHEMA, or change database.schema",
}


def require_schema(connection: sa.Connection, names: Names) -> None:
    """Refuse a schema that does not exist. Raises ConfigError."""
    if connection.dialect.name != "postgresql":
        return
    if names.schema:
        if not sa.inspect(connection).has_schema(names.schema):
            raise ConfigError(
                f"the schema {names.schema!r} of database.schema does not exist: CREATE SCHEMA {names.schema}"
            )
    elif connection.exec_driver_sql("SELECT current_schema()").scalar() is None:
        raise ConfigError("no schema of the search_path exists: CREATE SCHEMA one of them, or set database.schema")


def require_room(connection: sa.Connection, names: Names) -> None:
    """Refuse to make our tables where others have their names. Raises ConfigError."""
    inspector, schema = sa.inspect(connection), names.schema or None
    if inspector.has_table(names.version, schema=schema):
        return
    present = {*inspector.get_table_names(schema=schema), *inspector.get_view_names(schema=schema)}
    _refuse(connection, present & names.package - {names.lock})


def require_free(connection: sa.Connection, names: Names, tables: Iterable[frozenset[str]]) -> None:
    """Refuse to make the tables of features, named without the prefix, where others have their names.

    Raises ConfigError.
    """
    inspector, schema = sa.inspect(connection), names.schema or None
    if wanted := {names.table(base) for bases in tables for base in bases}:
        present = {*inspector.get_table_names(schema=schema), *inspector.get_view_names(schema=schema)}
        _refuse(connection, present & wanted)


def _refuse(connection: sa.Connection, names: Iterable[str]) -> None:
    if taken := sorted(names):
        raise ConfigError(
            f"the database has {', '.join(taken)} already, and not from us: set database.table_prefix"
            f"{' or database.schema' if connection.dialect.name == 'postgresql' else ''}"
        )


@contextmanager
def refusals(names: Names) -> Iterator[None]:
    """Say in a sentence what a database will not let us do. Raises ConfigError."""
    try:
        yield
    except ProgrammingError as error:
        cause: Any = error.orig
        state: str = getattr(cause, "sqlstate", None) or ""
        if state not in _FINDINGS:
            raise
        place = f" in the schema {names.schema}" if names.schema else ""
        prefixed = f" ({names.prefix}...)" if names.prefix else ""
        raise ConfigError(_FINDINGS[state].format(place=place, names=prefixed)) from None
