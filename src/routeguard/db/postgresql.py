"""PostgreSQL by psycopg: bounded waits everywhere, so that a server that is gone means 503 within two seconds."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import event
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.db.errors import Outage, fault_of
from routeguard.db.refusals import unreadable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from psycopg.abc import PQGen

    from routeguard.db.backend import Prepared
    from routeguard.db.models import DatabaseSettings

RV = TypeVar("RV")

logger = logging.getLogger("routeguard.db")

_GRACE: Final = 0.2
"""Seconds between the server's own statement timeout and ours, so that a living server answers first."""
_READ_ONLY: Final = "25006"
"""SQLSTATE read_only_sql_transaction."""
_CURRENT: Final = ("primary", "read-write")
"""The values of libpq's `target_session_attrs` with which no standby is taken."""


class WatchedConnection(psycopg.AsyncConnection[Any]):
    """A connection that gives a silent server up.

    A stopped process (SIGSTOP, a frozen VM) keeps acknowledging TCP, so neither keep-alive nor TCP user timeout ends
    the wait. Shutting the socket down makes libpq see the end of file, and every layer above cleans up as usual.
    """

    patience: float = 2.0

    async def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """Wait for the server, no longer than `patience` seconds."""
        handle = asyncio.get_running_loop().call_later(self.patience, _shut_down, self.pgconn.socket)
        try:
            return await super().wait(gen, *args, **kwargs)
        finally:
            handle.cancel()

    @property
    def stale(self) -> bool:
        """Whether the server has hung up while the connection lay idle."""
        if self.closed:
            return True
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN | select.POLLHUP)
        # An idle connection has nothing to say, except good-bye.
        return bool(poll.poll(0))


def _shut_down(number: int) -> None:
    with socket.socket(fileno=os.dup(number)) as copy:
        try:
            copy.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # It has ended by itself.
    logger.warning("the database does not answer; its connection is given up")


class PostgresBackend:
    """Two pools of at most `pool_size` connections: one for transactions, one in autocommit for the hot path."""

    dialect: Literal["postgresql"] = "postgresql"

    def __init__(self, url: str, settings: DatabaseSettings) -> None:
        self._timeout = settings.timeout.total_seconds()
        self._patience = settings.statement_timeout.total_seconds()
        try:
            self._conninfo = make_conninfo(url, **self._arguments(url))
        except psycopg.ProgrammingError as error:
            raise ConfigError(unreadable(error)) from None
        self.outage = Outage(_place(url))
        self.writes = create_async_engine(
            "postgresql+psycopg://", async_creator=self.connect, pool_size=settings.pool_size, max_overflow=0,
            pool_timeout=self._timeout, pool_use_lifo=True, hide_parameters=True,
        )  # fmt: skip
        event.listen(self.writes.sync_engine, "checkout", _refuse_stale)
        event.listen(self.writes.sync_engine, "handle_error", _give_up_read_only)
        self.reads = self.writes.execution_options(isolation_level="AUTOCOMMIT")
        self._hot = _HotPool(self, size=settings.pool_size, timeout=self._timeout)

    async def start(self) -> None:
        """Nothing to open: connections follow as they are needed."""

    async def close(self) -> None:
        """Close every connection."""
        await self._hot.close()
        await self.writes.dispose()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Writers need no line."""
        yield

    async def unhurried(self, connection: AsyncConnection) -> None:
        """Lift both statement timeouts from a connection, which is thrown away afterwards."""
        await connection.execute(sa.text("SET statement_timeout = 0"))
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        driver.patience = 3600.0

    async def connect(self, *, autocommit: bool = False) -> WatchedConnection:
        """Open a connection. Raises psycopg.OperationalError, also when that takes longer than the timeout."""
        try:
            async with asyncio.timeout(self._timeout):
                connection = await WatchedConnection.connect(self._conninfo, autocommit=autocommit, prepare_threshold=3)
        except TimeoutError:
            raise psycopg.OperationalError("the server does not let anybody in") from None
        connection.patience = self._patience + _GRACE
        return connection

    def prepare(self, statement: sa.Select[Any]) -> Prepared:
        """Compile `statement` to text with named parameters."""
        compiled = statement.compile(dialect=psycopg_dialect())  # type: ignore[no-untyped-call]
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        return _Prepared(self._hot, str(compiled).encode(), fixed)

    def _arguments(self, url: str) -> dict[str, Any]:
        statement = int(self._patience * 1000)
        given = conninfo_to_dict(url)
        own = f"-c statement_timeout={statement} -c idle_in_transaction_session_timeout=10000 -c timezone=UTC"
        defaults: dict[str, Any] = {
            "tcp_user_timeout": int(self._timeout * 2000), "keepalives_idle": 2, "keepalives_interval": 1,
            "keepalives_count": 2, "application_name": "routeguard",
        }  # fmt: skip
        arguments = {name: value for name, value in defaults.items() if name not in given}
        # Attack OPS-06: a standby that is behind would still let in who has signed out, so it is never asked.
        if given.get("target_session_attrs") not in _CURRENT:
            arguments["target_session_attrs"] = "primary"
        arguments["options"] = f"{own} {given.get('options', '')}".strip()
        return arguments


class _HotPool:
    """Idle connections in a list, last used first; a semaphore bounds them and the wait for one."""

    def __init__(self, backend: PostgresBackend, *, size: int, timeout: float) -> None:
        self._backend = backend
        self._timeout = timeout
        self._places = asyncio.Semaphore(size)
        self._idle: list[WatchedConnection] = []

    async def fetch(self, text: bytes, params: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the first row of a query. Raises Unavailable."""
        if self._places.locked():
            await self._wait()
        else:
            await self._places.acquire()
        try:
            row = await self._query(text, params)
        except psycopg.ProgrammingError:
            raise
        except (psycopg.Error, OSError) as error:
            raise fault_of(error, self._backend.outage) from None
        else:
            self._backend.outage.back()
            return row
        finally:
            self._places.release()

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable("database: pool exhausted") from None

    async def _query(self, text: bytes, params: Mapping[str, Any]) -> tuple[Any, ...] | None:
        connection = await self._take()
        answered = False
        try:
            cursor = await connection.execute(text, params)
            row: tuple[Any, ...] | None = await cursor.fetchone()
            answered = True
            return row
        finally:
            # After an error or a cancellation nobody knows what the connection would say next.
            if answered:
                self._idle.append(connection)
            else:
                connection.pgconn.finish()

    async def _take(self) -> WatchedConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale:
                return connection
            await connection.close()
        return await self._backend.connect(autocommit=True)


class _Prepared:
    __slots__ = ("_fixed", "_pool", "_text")

    def __init__(self, pool: _HotPool, text: bytes, fixed: Mapping[str, Any]) -> None:
        self._pool = pool
        self._text = text
        self._fixed = fixed

    async def one(self, **params: Any) -> tuple[Any, ...] | None:
        return await self._pool.fetch(self._text, {**self._fixed, **params} if self._fixed else params)


def _place(url: str) -> str:
    """Return host, port and database of a URL, and nothing else of it."""
    given = conninfo_to_dict(url)
    host = given.get("host") or given.get("hostaddr") or "localhost"
    return f"{host}:{given.get('port') or 5432}/{given.get('dbname') or ''}"


def _refuse_stale(connection: Any, _record: Any, _proxy: Any) -> None:
    """Let the pool replace what a restarted server left behind, before a request pays for it."""
    if connection.driver_connection.stale:
        raise DisconnectionError


def _give_up_read_only(context: Any) -> None:
    """Drop the connections to a server that takes no writes any more: a new one may lead to its successor."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True
