"""PostgreSQL databases with the same tables, lent to one test after the other.

To make one costs the server a quarter of a second of work, to empty one a tenth of that. What a test may have changed
besides rows is compared, and a database that is not as it was made is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from tests.backends import PostgresServer

_MOST_BYTES: Final = 8_000_000
"""Dead rows stay, because nothing vacuums: a database that has grown is not lent again."""

_TABLES: Final = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
"""
_SEQUENCES: Final = """
SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) FROM pg_sequences
"""
_ALONE: Final = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_SIZE: Final = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class WHERE oid >= 16384 AND relkind = 'r'"
# Everything a test can make or alter has an oid, a file or a line in one of these.
_SHAPE: Final = """
SELECT md5(coalesce(string_agg(line, ' ' ORDER BY line), '')) FROM (
    SELECT (oid, relname, relnamespace, relkind, relfilenode, relchecks, relhastriggers, relrowsecurity)::text AS line
        FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT (attrelid, attname, atttypid, atttypmod, attnotnull, atthasdef, attisdropped)::text
        FROM pg_attribute WHERE attrelid >= 16384
    UNION ALL SELECT (oid, conname, convalidated)::text FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT (oid, tgname, tgenabled)::text FROM pg_trigger
    UNION ALL SELECT (oid, proname, prosrc)::text FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT (oid, nspname, nspacl)::text FROM pg_namespace WHERE oid >= 16384
    UNION ALL SELECT (oid, extname)::text FROM pg_extension
    UNION ALL SELECT (setrole, setconfig)::text FROM pg_db_role_setting s
        JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()
) AS everything
"""


@dataclass(frozen=True, slots=True)
class Made:
    """How a database was when it was made."""

    tables: tuple[str, ...]
    """Those without rows; the others hold what migrations wrote."""
    rows: str
    shape: str


class Databases:
    """The databases of one template on one server."""

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server = server
        self._template = template
        self._free: list[str] = []
        self._made: Made | None = None

    def lend(self) -> str:
        """Return the URL of a database in which nobody has written. Its name is new."""
        if not self._free:
            return self._server.create(self._template)
        name, new = self._free.pop(), self._server.new_name()
        # What a test left running, and asks again, finds no such database, and not that of the next test.
        self._server.execute(f'ALTER DATABASE "{name}" RENAME TO "{new}"')
        return self._server.url(new)

    def take_back(self, url: str) -> None:
        """Empty a database for the next test, or drop it when that does not make it what it was."""
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                good = self._emptied(connection)
        except psycopg.Error:
            good = False
        if good:
            self._free.append(url.rpartition("/")[2])
        else:
            self._server.drop(url)

    def _emptied(self, connection: psycopg.Connection[Any]) -> bool:
        if self._made is None:
            with psycopg.connect(self._server.url(self._template), autocommit=True) as template:
                self._made = _look(template)
        connection.execute(_ALONE)
        connection.execute("SET session_replication_role = replica")  # No foreign key, in whatever order.
        with connection.transaction():
            for table in self._made.tables:
                connection.execute(f"DELETE FROM {table}".encode())
            connection.execute(_SEQUENCES)
        size = connection.execute(_SIZE).fetchone()
        return size is not None and size[0] < _MOST_BYTES and _look(connection) == self._made


def _look(connection: psycopg.Connection[Any]) -> Made:
    empty, rows = [], []
    for (table,) in connection.execute(_TABLES).fetchall():
        found = connection.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1".encode()).fetchall()
        if found:
            rows.append(f"{table}: {found}")
        else:
            empty.append(table)
    shape = connection.execute(_SHAPE).fetchone()
    assert shape is not None
    return Made(tuple(empty), "\n".join(rows), shape[0])
