"""What our tables are called in a database that we may share with an application.

In the code every table has the default prefix. Another prefix is put into the text of a statement: once, at start-up,
for those of the hot path, and from a cache for all others. A schema is SQLAlchemy's `schema_translate_map`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from routeguard.core.errors import ConfigError

DEFAULT_PREFIX: Final = "routeguard_"
TABLES: Final = (
    "users",
    "one_time_tokens",
    "password_hashes",
    "sessions",
    "session_invalidations",
    "outbox",
    "signing_keys",
    "refresh_families",
    "api_keys",
    "clients",
)
"""All tables of the package, without the prefix: one in a line, so that changes side by side do not meet."""
VERBATIM: Final = "routeguard_verbatim"
"""The execution option of a connection whose statements name tables as they are."""

_BASES: Final = "|".join(sorted(TABLES, key=len, reverse=True))
_NONE: Final[frozenset[str]] = frozenset()
PREFIX_PATTERN: Final = re.compile(rf"(?:(?!{DEFAULT_PREFIX}(?:{_BASES}))[a-z][a-z0-9_]{{0,29}})?", re.ASCII)
"""Lower case, so that no name needs quotes; with the longest name of a constraint within PostgreSQL's 63 bytes; and not
the name of a table, which would be taken for one."""
SCHEMA_PATTERN: Final = re.compile(r"(?:[a-z_][a-z0-9_]{0,62})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Names:
    """The names of all that is ours: tables with a prefix, in a schema (PostgreSQL) or in the one found by itself."""

    prefix: str = DEFAULT_PREFIX
    schema: str = ""
    others: frozenset[str] = _NONE
    """Tables of features that are not the package's own, without the prefix."""

    def including(self, others: Iterable[str]) -> Names:
        """Return these names with more tables of such features.

        Raises ConfigError where the prefix is the name of one, for which it would be taken.
        """
        found = self.others.union(others)
        for base in sorted(found):
            if self.prefix.startswith(DEFAULT_PREFIX + base):
                raise ConfigError(f"database.table_prefix {self.prefix!r} begins like the table {DEFAULT_PREFIX}{base}")
        return replace(self, others=found)

    def table(self, base: str) -> str:
        """Return the name of a table, such as ``routeguard_users`` for "users"."""
        return self.prefix + base

    @property
    def version(self) -> str:
        """The table that says which migrations were applied. Not `alembic_version`, which is the application's."""
        return (self.prefix or DEFAULT_PREFIX) + "version"

    @property
    def lock(self) -> str:
        """The table that a migration locks."""
        return (self.prefix or DEFAULT_PREFIX) + "migration_lock"

    @property
    def package(self) -> frozenset[str]:
        """The names of the package's own tables."""
        return frozenset({self.version, self.lock, *map(self.table, TABLES)})

    @property
    def all(self) -> frozenset[str]:
        """The names of all tables."""
        return self.package.union(map(self.table, self.others))

    def qualified(self, name: str) -> str:
        """Return a table's name for a statement written by hand."""
        return f"{self.schema}.{name}" if self.schema else name

    def rewrite(self, text: str) -> str:
        """Return a statement with our prefix in the place of the default one."""
        return text if self.prefix == DEFAULT_PREFIX else _rewritten(self.prefix, self.others, text)

    def include_name(self, name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:
        """Tell Alembic whether to look at what it found in the database: at nothing that is ours.

        For ``context.configure(include_name=...)`` in the application's `env.py`.
        """
        table = name if type_ == "table" else parent_names.get("table_name")
        return table is None or not self._is_ours(table, parent_names.get("schema_name"))

    def include_object(
        self,
        object_: Any,
        name: str | None,  # noqa: ARG002 - Alembic's shape
        type_: str,
        reflected: bool,  # noqa: ARG002, FBT001 - Alembic's shape
        compare_to: Any,  # noqa: ARG002 - Alembic's shape
    ) -> bool:
        """Tell Alembic whether to compare something: nothing that is ours, found or declared.

        For ``context.configure(include_object=...)`` in an `env.py` whose metadata declares a table of ours, so that a
        foreign key can refer to it.
        """
        table = object_ if type_ == "table" else getattr(object_, "table", None)
        return table is None or not self._is_ours(table.name, table.schema)

    def _is_ours(self, table: str, schema: str | None) -> bool:
        if table not in self.all:
            return False
        # None is the connection's own schema, which may be ours; without a prefix its `users` is the application's.
        return not self.schema or schema == self.schema or (schema is None and self.prefix != "")


@lru_cache(maxsize=1024)
def _rewritten(prefix: str, others: frozenset[str], text: str) -> str:
    return _named(others).sub(lambda found: (found[1] or "") + prefix, text)


@lru_cache(maxsize=64)
def _named(others: frozenset[str]) -> re.Pattern[str]:
    """Return what finds the default prefix in the name of a table of ours, an index or a constraint."""
    bases = "|".join(sorted((*TABLES, *others), key=len, reverse=True))
    return re.compile(rf"(?<![A-Za-z0-9_])((?:pk|uq|fk|ix|ck)_)?{DEFAULT_PREFIX}(?=(?:{bases})(?![a-z0-9]))")
