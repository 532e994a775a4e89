"""What may be set about the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from routeguard.core.errors import ConfigError
from routeguard.foundation.db.names import DEFAULT_PREFIX, PREFIX_PATTERN, SCHEMA_PATTERN, Names

POOLERS: Final = ("auto", "session", "transaction")
"""The values of `database.pooler`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """How the database is used. Its address is the top-level `database_url`.

    `pool_size` connections are held at most by one process; a request waits for one no longer than `timeout`, then
    it is 503 (attack OPS-03). A statement may take `statement_timeout`. `pooler` says whether a pooler
    before PostgreSQL gives its connections out by "session" or by "transaction"; "auto" finds out whether there is one,
    and takes any for one by transaction. Our tables are called `table_prefix` and a word, in the PostgreSQL schema
    `schema`, or where the server's `search_path` puts them. `other_features` are those whose tables are in the database
    too, for another process that runs them: without their names there, their migrations are a finding.
    """

    pool_size: int = 10
    timeout: timedelta = timedelta(seconds=1)
    statement_timeout: timedelta = timedelta(milliseconds=1800)
    pooler: str = "auto"
    table_prefix: str = DEFAULT_PREFIX
    schema: str = ""
    other_features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        findings = [
            f"database.{name} must be positive"
            for name in ("timeout", "statement_timeout")
            if getattr(self, name) <= timedelta(0)
        ]
        if self.pool_size < 1:
            findings.append("database.pool_size must be at least 1")
        if self.pooler not in POOLERS:
            findings.append(f"database.pooler must be one of {', '.join(POOLERS)}")
        if not PREFIX_PATTERN.fullmatch(self.table_prefix):
            findings.append("database.table_prefix has at most 30 letters (a to z), digits and _, a letter first")
        if not SCHEMA_PATTERN.fullmatch(self.schema):
            findings.append("database.schema has at most 63 letters (a to z), digits and _, no digit first")
        if findings:
            raise ConfigError(findings)

    @property
    def names(self) -> Names:
        """What our tables are called."""
        return Names(self.table_prefix, self.schema)
