"""One database behind two verbs: `transaction()` changes, `read()` looks. Driver faults leave as `Unavailable`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from routeguard.core.errors import ConfigError, Misconfigured, Unavailable
from routeguard.core.tasks import uncancelled
from routeguard.foundation.db.errors import Contended, Outage, faults
from routeguard.foundation.db.models import DatabaseSettings
from routeguard.foundation.db.sqlite import SqliteBackend
from routeguard.foundation.db.urls import is_temporary, url_finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable

    from sqlalchemy.engine import CursorResult, Row
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from routeguard.core.clock import Clock
    from routeguard.core.events import Event
    from routeguard.foundation.db.backend import Backend, Prepared
    from routeguard.foundation.db.names import Names

T = TypeVar("T")

_TRIES: Final = 5


class Transaction:
    """A unit of work. Statements take effect together at the end of the `async with`, or not at all."""

    __slots__ = ("_connection", "_outage", "callbacks", "doubts", "events")

    def __init__(self, connection: AsyncConnection, outage: Outage) -> None:
        self._connection = connection
        self._outage = outage
        self.events: list[Event] = []
        self.callbacks: list[Callable[[], None]] = []
        self.doubts: list[Callable[[], None]] = []

    async def execute(self, statement: sa.Executable, params: Any = None) -> CursorResult[Any]:
        """Run a statement. Raises UniqueViolation, ConstraintViolation, or Unavailable when the database cannot."""
        with faults(self._outage):
            result: CursorResult[Any] = await self._connection.execute(statement, params)
        self._outage.back()
        return result

    async def one(self, statement: sa.Executable, params: Any = None) -> Row[Any] | None:
        """Return the first row, or None."""
        return (await self.execute(statement, params)).first()

    async def all(self, statement: sa.Executable, params: Any = None) -> list[Row[Any]]:
        """Return every row."""
        return list((await self.execute(statement, params)).all())

    async def scalar(self, statement: sa.Executable, params: Any = None) -> Any:
        """Return the first column of the first row, or None."""
        return (await self.execute(statement, params)).scalar()

    def record(self, event: Event) -> None:
        """Store an event in this very transaction; it is delivered after the commit, or never."""
        self.events.append(event)

    def after_commit(self, callback: Callable[[], None], *, in_doubt: bool = False) -> None:
        """Call `callback` right after the commit, before anything else of this process runs.

        With `in_doubt` also when the connection ends during the commit, and its outcome is unknown.
        """
        self.callbacks.append(callback)
        if in_doubt:
            self.doubts.append(callback)


class Database:
    """A SQLite file or a PostgreSQL server.

    `sqlite:///FILE`, `sqlite://` (a private file in the temporary folder, gone with this object) or
    `postgresql://...`. A server that comes back is used again without a restart. `tables` are those of features that
    are not the package's own, without the prefix. Raises ConfigError for other URLs.
    """

    def __init__(
        self, url: str, *, clock: Clock, settings: DatabaseSettings | None = None, tables: Iterable[str] = ()
    ) -> None:
        self.clock = clock
        self.settings = settings or DatabaseSettings()
        self.recorder: Callable[[Transaction, list[Event]], Awaitable[None]] | None = None
        """How recorded events become rows; set by the outbox. Without one there are no listeners, and no rows."""
        self.names: Final = self.settings.names.including(tables)
        self._backend = _backend(url, self.settings, self.names)
        self.dialect: Final = self._backend.dialect
        self.temporary: Final = is_temporary(url)
        """Whether it is this object's own, and begins empty."""

    @property
    def url(self) -> str:
        """The URL of this very database, also where it is a private file. Holds the password."""
        return self._backend.url

    async def start(self) -> None:
        """Open what is opened once. A server that is away now is no error: requests are 503 until it is back.

        Raises Misconfigured for a file that cannot be opened.
        """
        await self._backend.start()

    async def close(self) -> None:
        """Close every connection."""
        await self._backend.close()

    async def ping(self) -> None:
        """Ask the database for a sign of life. Raises Unavailable, also for a PostgreSQL that takes no writes now."""
        if not self._backend.known:
            await self._backend.learn()
        async with self._connection(self._backend.reads) as connection:
            tx = Transaction(connection, self._backend.outage)
            if self.dialect == "sqlite":
                await tx.execute(sa.select(1))
            elif await tx.scalar(sa.text("SHOW transaction_read_only")) == "on":
                # Demoted, or set read-only by its operator. Another connection may lead to one that is not.
                await connection.invalidate()
                raise self._backend.outage.away(OSError("it takes no writes"))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Do some work and commit it at the end; an exception rolls it back.

        Raises Unavailable when the database cannot, UniqueViolation when a key is taken. On SQLite, writers of this
        process take turns, so that they wait in line and not for each other's locks.
        """
        async with self._backend.write_lock(), self._connection(self._backend.writes) as connection:
            tx = Transaction(connection, self._backend.outage)
            with faults(self._backend.outage):
                await connection.begin()
            yield tx
            if tx.events and self.recorder is not None:
                await self.recorder(tx, tx.events)
            await _shielded(lambda: self._commit(connection, tx))

    async def _commit(self, connection: AsyncConnection, tx: Transaction) -> None:
        """Commit, and call what waits for that."""
        try:
            with faults(self._backend.outage):
                await connection.commit()
        except (Unavailable, asyncio.CancelledError):
            for callback in tx.doubts:
                callback()
            raise
        for callback in tx.callbacks:
            callback()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """Look at committed rows, each statement by itself. Raises Unavailable."""
        if not self._backend.known:
            await self._backend.learn()
        async with self._connection(self._backend.reads) as connection:
            yield Transaction(connection, self._backend.outage)

    async def check(self) -> None:
        """Look whether the limits on statements hold. Raises Misconfigured when they do not, Unavailable."""
        await self._backend.check()
        async with self.transaction() as tx:
            if self.dialect == "postgresql" and await tx.scalar(sa.text("SHOW statement_timeout")) == "0":
                raise Misconfigured(f"the database at {self._backend.outage.place} keeps no statement_timeout")

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in a transaction, again when the database asks for it (attack OPS-16).

        A serialization failure or deadlock (SQLSTATE 40001, 40P01) rolled everything back, so trying again is safe.
        Raises Unavailable after five tries.
        """
        for attempt in range(_TRIES):
            try:
                async with self.transaction() as tx:
                    return await work(tx)
            except Contended:
                if attempt == _TRIES - 1:
                    raise
            await asyncio.sleep(0.01 * 2**attempt)
        raise AssertionError

    def prepare(self, statement: sa.Select[Any]) -> Prepared:
        """Return `statement` ready for the hot path: the driver used directly, one query, no BEGIN.

        Values go to and come from the driver as they are: on SQLite a Boolean comes as 0 or 1.
        """
        return self._backend.prepare(statement)

    async def run_sync(self, work: Callable[[sa.Connection], T]) -> T:
        """Run synchronous work (migrations) in one transaction without time limits."""
        async with self._backend.write_lock(), self._connection(self._backend.writes) as connection:
            try:
                with faults(self._backend.outage, migrating=True):
                    await self._backend.lift_foreign_keys(connection)
                    await connection.begin()
                    await self._backend.lift_statement_timeouts(connection)
                    result = await connection.run_sync(work)
                    await connection.commit()
            finally:
                # Its limits are lifted, so the connection is not used again.
                await _shielded(connection.invalidate)
            return result

    @asynccontextmanager
    async def _connection(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        with faults(self._backend.outage):
            connection = await engine.connect()
        try:
            yield connection
        finally:
            await _shielded(lambda: _release(connection))


async def _shielded(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` to its end, also when its caller is cancelled.

    A client that leaves must not leave a commit half known (attack OPS-04), nor keep a connection from the pool.
    """
    with anyio.CancelScope(shield=True):
        await uncancelled(work)


async def _release(connection: AsyncConnection) -> None:
    """Give a connection back; one that cannot even roll back is thrown away, so that the pool never leaks."""
    try:
        if connection.in_transaction():
            await connection.rollback()
    except (SQLAlchemyError, OSError):
        await connection.invalidate()
    await connection.close()


def _backend(url: str, settings: DatabaseSettings, names: Names) -> Backend:
    if finding := url_finding(url):
        raise ConfigError(finding)
    if url.startswith("sqlite:"):
        if settings.schema:
            raise ConfigError("database.schema is for PostgreSQL: SQLite has no schemas")
        return SqliteBackend(url, settings, names)
    from routeguard.foundation.db.postgresql import PostgresBackend  # noqa: PLC0415 - an extra

    return PostgresBackend(url, settings, names)
