"""PostgreSQL by psycopg: bounded waits everywhere, so that a server that is gone means 503 within two seconds."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import event
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from routeguard.core.errors import ConfigError, Misconfigured
from routeguard.foundation.db.errors import Outage, fault_of
from routeguard.foundation.db.hot_pool import HotPool, PreparedText
from routeguard.foundation.db.pooler import Limits, changes_servers, refuses_options, settle
from routeguard.foundation.db.refusals import unreadable
from routeguard.foundation.db.rewriting import follow
from routeguard.foundation.db.watched import WatchedConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from routeguard.foundation.db.backend import Prepared
    from routeguard.foundation.db.models import DatabaseSettings
    from routeguard.foundation.db.names import Names

logger = logging.getLogger("routeguard.db")

_PREPARE: Final = 3
"""After how many runs psycopg prepares a statement."""
_GRACE: Final = 0.2
"""Seconds between the server's own statement timeout and ours, so that a living server answers first."""
_READ_ONLY: Final = "25006"
"""SQLSTATE read_only_sql_transaction."""
_CURRENT: Final = ("primary", "read-write")
"""The values of libpq's `target_session_attrs` with which no standby is taken."""


class PostgresBackend:
    """Two pools of at most `pool_size` connections: one for transactions, one in autocommit for the hot path."""

    dialect: Literal["postgresql"] = "postgresql"

    def __init__(self, url: str, settings: DatabaseSettings, names: Names) -> None:
        self._timeout = settings.timeout.total_seconds()
        self._patience = settings.statement_timeout.total_seconds()
        self.url = url
        self._names = names
        self._limits = Limits(int(self._patience * 1000))
        self._pooler = settings.pooler
        self.pooled = settings.pooler == "transaction"
        """Whether a pooler stands before the server that may give each transaction another process of it."""
        self.known = self._pooler != "auto"
        self.local_limits = self._limits.text(local=True).encode()
        try:
            self._conninfo = make_conninfo(url, **self._arguments(url, ""))
            self._conninfo_with_limits = make_conninfo(url, **self._arguments(url, self._limits.options()))
        except psycopg.ProgrammingError as error:
            raise ConfigError(unreadable(error)) from None
        self.outage = Outage(_place(url))
        self.writes = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self.connect,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=self._timeout,
            pool_use_lifo=True,
            hide_parameters=True,
            execution_options={"schema_translate_map": {None: self._names.schema}} if self._names.schema else {},
        )
        follow(self.writes.sync_engine, self._names)
        event.listen(self.writes.sync_engine, "checkout", _refuse_stale)
        event.listen(self.writes.sync_engine, "handle_error", _give_up_read_only)
        event.listen(self.writes.sync_engine, "begin", self._limit_transaction)
        self._autocommit = self.writes.execution_options(isolation_level="AUTOCOMMIT")
        self._hot = HotPool(self, size=settings.pool_size, timeout=self._timeout)

    @property
    def reads(self) -> AsyncEngine:
        """Connections in autocommit; behind a pooler in transactions, for only these have limits there."""
        return self.writes if self.pooled else self._autocommit

    async def start(self) -> None:
        """Nothing to open: connections follow as they are needed."""
        self._hot.start()

    async def close(self) -> None:
        """Close every connection."""
        await self._hot.close()
        await self.writes.dispose()

    @asynccontextmanager
    async def write_lock(self) -> AsyncIterator[None]:
        """Writers need no line."""
        yield

    async def lift_foreign_keys(self, connection: AsyncConnection) -> None:
        """Nothing to lift: tables are altered in place."""

    async def lift_statement_timeouts(self, connection: AsyncConnection) -> None:
        """Lift both statement timeouts from a transaction, whose connection is thrown away afterwards."""
        await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        driver.patience = 3600.0

    async def learn(self) -> None:
        """Connect once, which shows whether there is a pooler. Raises Unavailable."""
        try:
            connection = await self.connect()
        except (psycopg.Error, OSError) as error:
            raise fault_of(error, self.outage) from None
        await connection.close()

    async def check(self) -> None:
        """Look whether `database.pooler` is right. Raises Misconfigured, and Unavailable."""
        if self._pooler != "session":
            return
        try:
            async with await self.connect(autocommit=True) as one, await self.connect(autocommit=True) as other:
                moves = await changes_servers(one, other)
        except (psycopg.Error, OSError) as error:
            raise fault_of(error, self.outage) from None
        if moves:
            raise Misconfigured(
                f"the database at {self.outage.place} is reached through a pooler by transaction, not by session: "
                "set database.pooler to transaction, or leave it out"
            )

    async def connect(self, *, autocommit: bool = False) -> WatchedConnection:
        """Open a connection on which the limits hold. Raises psycopg.OperationalError, also when it takes too long."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._connect(autocommit=autocommit)
        except TimeoutError:
            raise psycopg.OperationalError("the server does not let anybody in") from None

    async def _connect(self, *, autocommit: bool) -> WatchedConnection:
        connection = await self._open()
        connection.patience = self._patience + _GRACE
        settled = False
        try:
            if not self.pooled and await settle(connection, self._limits, self._pooler):
                self._say_pooled()
            settled = True
        finally:
            if not settled:
                connection.pgconn.finish()
        self.known = True
        if self.pooled:
            connection.prepare_threshold = None
        await connection.set_autocommit(autocommit)
        return connection

    async def _open(self) -> WatchedConnection:
        """Connect with the limits as a start-up parameter where that may be taken, which saves setting them."""
        if not self.pooled and self._pooler != "session":
            try:
                return await self._dial(self._conninfo_with_limits)
            except psycopg.OperationalError as error:
                if self._pooler != "auto" or not refuses_options(error):
                    raise
                self._say_pooled()
        return await self._dial(self._conninfo)

    async def _dial(self, conninfo: str) -> WatchedConnection:
        # In autocommit, so that looking at it begins no transaction.
        return await WatchedConnection.connect(conninfo, autocommit=True, prepare_threshold=_PREPARE)

    def _say_pooled(self) -> None:
        if not self.pooled:
            self.pooled = True
            logger.info(
                "a connection pooler stands before the database at %s: statements are not prepared, and limits are set "
                "in each transaction; where it works by session, set database.pooler to session",
                self.outage.place,
            )

    def _limit_transaction(self, connection: sa.Connection) -> None:
        if self.pooled:
            connection.exec_driver_sql(self.local_limits.decode())

    def prepare(self, statement: sa.Select[Any]) -> Prepared:
        """Compile `statement` to text with named parameters."""
        schema: dict[str, Any] = {}
        if self._names.schema:
            schema = {"schema_translate_map": {None: self._names.schema}, "render_schema_translate": True}
        compiled = statement.compile(dialect=psycopg_dialect(), **schema)  # type: ignore[no-untyped-call]
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        return PreparedText(self._hot, self._names.rewrite(str(compiled)).encode(), fixed)

    def _arguments(self, url: str, own: str) -> dict[str, Any]:
        given = conninfo_to_dict(url)
        defaults: dict[str, Any] = {
            "tcp_user_timeout": int(self._timeout * 2000),
            "keepalives_idle": 2,
            "keepalives_interval": 1,
            "keepalives_count": 2,
            "application_name": "routeguard",
        }
        arguments = {name: value for name, value in defaults.items() if name not in given}
        # Attack OPS-06: a standby that is behind would still let in who has signed out, so it is never asked.
        if given.get("target_session_attrs") not in _CURRENT:
            arguments["target_session_attrs"] = "primary"
        options = f"{own} {given.get('options', '')}".strip()
        if options:
            arguments["options"] = options
        return arguments


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
