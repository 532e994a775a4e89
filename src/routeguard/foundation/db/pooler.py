"""Limits the server keeps on a connection, also where a pooler such as PgBouncer stands before it.

A pooler by transaction gives each transaction another connection to the server. What is set for a session there holds
for strangers, and a statement prepared on one is unknown to the next. So behind a pooler nothing is prepared, and the
limits are set in each transaction. PgBouncer refuses the start-up parameter `options`, or drops it where it was told to
(`ignore_startup_parameters`); a connection is therefore asked what holds before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import psycopg

_IDLE: Final = 10_000
_LOOK: Final = (
    b"SELECT pg_backend_pid(), current_setting('statement_timeout'),"
    b" current_setting('idle_in_transaction_session_timeout')"
)
_REFUSED: Final = "unsupported startup parameter"
"""What PgBouncer says of `options`; from 1.20 on of single parameters in it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a statement may take, and a transaction may do nothing, in milliseconds."""

    statement: int
    idle: int = _IDLE

    def options(self) -> str:
        """Return them as the start-up parameter `options`."""
        return f"-c statement_timeout={self.statement} -c idle_in_transaction_session_timeout={self.idle}"

    def text(self, *, local: bool) -> str:
        """Return the statement that sets them: for the session, or with `local` for one transaction."""
        flag = "true" if local else "false"
        return (
            f"SELECT set_config('statement_timeout', '{self.statement}', {flag}),"
            f" set_config('idle_in_transaction_session_timeout', '{self.idle}', {flag})"
        )


def refuses_options(error: BaseException) -> bool:
    """Return whether a pooler took no limits at the start of a connection."""
    return _REFUSED in str(error)


async def settle(connection: psycopg.AsyncConnection[Any], limits: Limits, pooler: str) -> bool:
    """Make the limits hold on a new connection in autocommit.

    Returns whether they cannot, for a pooler stands before the server: the process at the other end is not the one
    that the connection began with. Raises psycopg.OperationalError when the server does not keep them.
    """
    pid, *held = await _look(connection)
    if pooler == "auto" and pid != connection.pgconn.backend_pid:
        return True
    if "0" in held:
        await connection.execute(limits.text(local=False).encode())
        _, *held = await _look(connection)
        if "0" in held:
            raise psycopg.OperationalError("limits do not hold on this connection")
    return False


async def _look(connection: psycopg.AsyncConnection[Any]) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = await (await connection.execute(_LOOK)).fetchone()
    assert row is not None
    return row


async def changes_servers(one: psycopg.AsyncConnection[Any], other: psycopg.AsyncConnection[Any]) -> bool:
    """Return whether an idle connection loses its server process to another one that begins a transaction."""
    before, *_ = await _look(one)
    async with other.transaction():
        await _look(other)
        after, *_ = await _look(one)
    return bool(before != after)
