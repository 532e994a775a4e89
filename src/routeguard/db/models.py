"""What may be set about the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from routeguard.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """How the database is used. Its address is the top-level `database_url`.

    `pool_size` connections are held at most by one process; a request waits for one no longer than `timeout`, then
    it is 503 (attack OPS-03). A statement may take `statement_timeout`.
    """

    pool_size: int = 10
    timeout: timedelta = timedelta(seconds=1)
    statement_timeout: timedelta = timedelta(milliseconds=1800)

    def __post_init__(self) -> None:
        findings = [
            f"database.{name} must be positive"
            for name in ("timeout", "statement_timeout")
            if getattr(self, name) <= timedelta(0)
        ]
        if self.pool_size < 1:
            findings.append("database.pool_size must be at least 1")
        if findings:
            raise ConfigError(findings)
