"""SQLite: one file, many readers, writers in line."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import weakref
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from routeguard.core.errors import Unavailable
from routeguard.foundation.db.errors import Outage, fault_of
from routeguard.foundation.db.private_file import PrivateFile
from routeguard.foundation.db.rewriting import follow
from routeguard.foundation.db.sqlite_thread import ThreadConnection, Worker
from routeguard.foundation.db.urls import is_temporary, sqlite_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from routeguard.foundation.db.backend import Prepared
    from routeguard.foundation.db.models import DatabaseSettings
    from routeguard.foundation.db.names import Names

_BLOCKING_MILLISECONDS: Final = 50
"""How long the hot path may hold up the event loop, should another process recover the file (attack OPS-20)."""

_LINE_SECONDS: Final = 5.0
"""How long a writer waits for those before it, in this process and in others: a thousand short transactions."""


class SqliteBackend:
    """A file in WAL mode. `sqlite://` is a private file in the temporary folder, removed by `close`.

    Not `:memory:`: its shared cache locks whole tables against readers and knows no WAL.
    """

    dialect: Literal["sqlite"] = "sqlite"
    known = True

    def __init__(self, url: str, settings: DatabaseSettings, names: Names) -> None:
        path = sqlite_path(url)
        self._private = PrivateFile() if is_temporary(url) else PrivateFile.at(path)
        self.path = path = path if self._private is None else self._private.path
        self.url = f"sqlite:///{path}"
        self.outage = Outage(path)
        self._names = names
        self._patience = max(settings.statement_timeout.total_seconds(), _LINE_SECONDS)
        self._line = asyncio.Lock()
        self._reader: sqlite3.Connection | None = None
        # Each lives for as long as its thread, and its connection need not: pools forget those that are ending.
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        address = sa.URL.create("sqlite+aiosqlite", database=path)
        options: dict[str, Any] = {
            "poolclass": sa.AsyncAdaptedQueuePool,
            "pool_timeout": settings.timeout.total_seconds(),
            "max_overflow": 0,
            "hide_parameters": True,
            "connect_args": {"async_creator_fn": self._in_thread},
        }
        self.writes = create_async_engine(address, pool_size=1, **options)
        self.reads = create_async_engine(address, pool_size=settings.pool_size, **options)
        for engine in (self.writes, self.reads):
            # SQLAlchemy's own begins a task to close it, which an event loop that ends would have to wait for.
            dialect: Any = engine.dialect
            dialect.do_terminate = _terminate
            event.listen(engine.sync_engine, "do_connect", self._make_private)
            event.listen(engine.sync_engine, "connect", self._configure)
            follow(engine.sync_engine, self._names)
        event.listen(self.writes.sync_engine, "begin", _begin_immediate)

    async def start(self) -> None:
        """Create the file. Raises Unavailable when that cannot be done."""
        self._line = asyncio.Lock()
        if self._private is not None:
            self._private.enter(self)
        with _faults(self.outage):
            self._make_private()
            # Others may be starting and stopping, and lock the whole file for that.
            self._open(milliseconds=int(self._patience * 1000))

    async def close(self) -> None:
        """Close every connection."""
        try:
            await self.writes.dispose()
            await self.reads.dispose()
            # Those of tasks whose event loop was closed under them, and those that are ending.
            for worker in tuple(self._workers):
                if worker.left:
                    await worker.close()
        finally:
            # Last and alone: of two that close at once, neither writes the log into the file.
            if self._reader is not None:
                self._reader.close()
                self._reader = None
        if self._private is not None:
            self._private.leave(self)

    async def learn(self) -> None:
        """Nothing stands before a file."""

    async def check(self) -> None:
        """Nothing that could be set wrong."""

    @asynccontextmanager
    async def write_lock(self) -> AsyncIterator[None]:
        """Wait in line: first come, first served, where SQLite's own lock lets the luckiest poller in."""
        line = self._line  # A start makes a new one, and what ends late must not let two into that.
        try:
            async with asyncio.timeout(self._patience):
                await line.acquire()
        except TimeoutError:
            raise Unavailable("database: too many writers wait") from None
        try:
            yield
        finally:
            line.release()

    async def lift_foreign_keys(self, connection: AsyncConnection) -> None:
        """Enforce no foreign keys, as SQLite asks of those who alter tables ("ALTER TABLE", section 7).

        A table is altered by copying it and dropping the former one, which deletes every row that refers to it
        (ON DELETE CASCADE). The pragma counts only outside of a transaction.
        """
        raw = await connection.get_raw_connection()
        thread: Any = raw.driver_connection
        await thread.call(lambda: thread.worker.opened().execute("PRAGMA foreign_keys=OFF").close())

    async def lift_statement_timeouts(self, connection: AsyncConnection) -> None:
        """Nothing to lift: only the wait for another process is limited."""

    def prepare(self, statement: sa.Select[Any]) -> Prepared:
        """Compile `statement` to text with named parameters."""
        compiled = statement.compile(dialect=sqlite_dialect(paramstyle="named"))
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        return _Prepared(self, self._names.rewrite(str(compiled)), fixed)

    def fetch(self, text: str, params: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the first row of a query, read in the event loop's own thread.

        4 microseconds, where a hop to another thread costs 200: rows come from the page cache, and readers of a WAL
        wait for no writer. The cursor is dropped at once, for an open one would hold the WAL back.
        """
        with _faults(self.outage):
            reader = self._reader or self._open()
            row: tuple[Any, ...] | None = reader.execute(text, params).fetchone()
        self.outage.back()
        return row

    def _open(self, *, milliseconds: int = _BLOCKING_MILLISECONDS) -> sqlite3.Connection:
        reader = sqlite3.connect(
            self.path,
            timeout=milliseconds / 1000,
            isolation_level=None,
            cached_statements=64,
            check_same_thread=False,
        )
        reader.execute("PRAGMA journal_mode=WAL").fetchone()
        reader.execute(f"PRAGMA busy_timeout={_BLOCKING_MILLISECONDS}").fetchone()
        reader.execute("PRAGMA query_only=ON")
        self._reader = reader
        return reader

    def _make_private(self, *_connecting: Any) -> None:
        """Make the file for its owner only: it holds password hashes and addresses.

        Before every connection, for SQLite would make it readable by all, and a migration connects before any start.
        A file that exists is not opened: closing it would give up every lock this process has on it (fcntl(2)), and
        the next process to leave would take away the log under us, with what is written there from then on.
        """
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            try:
                if self._private is not None:
                    self._private.restore(handle)
            finally:
                os.close(handle)
        except FileExistsError:
            return
        except OSError as error:
            raise sqlite3.OperationalError(f"cannot open: {error.strerror}") from None

    def _in_thread(self, path: str, **options: Any) -> ThreadConnection:
        # We say BEGIN ourselves.
        connection = ThreadConnection(partial(sqlite3.connect, path, **options, isolation_level=None))
        self._workers.add(connection.worker)
        return connection

    def _configure(self, connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        patience = int(self._patience * 1000)
        # busy_timeout first: switching to WAL itself needs the lock.
        for pragma in (f"busy_timeout={patience}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


class _Prepared:
    __slots__ = ("_backend", "_fixed", "_text")

    def __init__(self, backend: SqliteBackend, text: str, fixed: Mapping[str, Any]) -> None:
        self._backend = backend
        self._text = text
        self._fixed = fixed

    async def one(self, **params: Any) -> tuple[Any, ...] | None:
        return self._backend.fetch(self._text, {**self._fixed, **params} if self._fixed else params)


@contextmanager
def _faults(outage: Outage) -> Iterator[None]:
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except (sqlite3.Error, OSError) as error:
        raise fault_of(error, outage) from None


def _terminate(connection: Any) -> None:
    connection.driver_connection.stop()


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would be refused by another writer's commit in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
