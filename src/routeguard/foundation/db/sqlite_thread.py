"""A SQLite connection in a thread of its own, for SQLAlchemy's adapter of aiosqlite, whatever its event loop does.

A loop may be closed, or its tasks cancelled, in the middle of a statement. The thread of aiosqlite's own connection
dies of an answer that it cannot give, with its transaction open, and closing such a connection waits forever. So does
closing one twice, which SQLAlchemy does when the first close is cancelled. Here an answer to a closed loop ends the
transaction and the thread, and closing the connection waits for the end of the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from typing_extensions import Self

_LOOK: Final = 0.5
"""Seconds without a call after which the thread of an open transaction looks whether its event loop is closed."""


class ThreadConnection:
    """A connection whose every call runs in one thread. Await it to open the file.

    `loop` is the event loop it was made in. The thread is a daemon: no process waits for a statement at its end, and
    what was not committed is rolled back by the next who opens the file.
    """

    def __init__(self, open_file: Callable[[], sqlite3.Connection]) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self.worker: Final = Worker(self.loop, open_file)
        """What runs in the thread, and lives for as long as that does."""

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def _open(self) -> Self:
        threading.Thread(target=self.worker.run, name="routeguard-sqlite", daemon=True).start()
        opened = False
        try:
            await self.call(self.worker.open)
            opened = True
        finally:
            if not opened:
                self.stop()
        return self

    @property
    def _connection(self) -> sqlite3.Connection | None:
        """The driver's connection, None when it is closed. SQLAlchemy rolls nothing back then."""
        return self.worker.connection

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run `function` in the thread. Raises what it raises, and ValueError when the connection is closed."""
        future = asyncio.get_running_loop().create_future()
        if not self.worker.put(future, function):
            raise ValueError("Connection closed")  # The words by which SQLAlchemy knows it.
        return await future

    def cursor(self) -> ThreadCursor:
        """Return a new cursor."""
        return ThreadCursor(self, self.worker.cursor)

    async def commit(self) -> None:
        """Commit the transaction."""
        await self.call(lambda: self.worker.opened().commit())

    async def rollback(self) -> None:
        """Roll the transaction back."""
        await self.call(lambda: self.worker.opened().rollback())

    async def create_function(self, *args: Any, **options: Any) -> None:
        """Make a function known to SQL."""
        await self.call(lambda: self.worker.opened().create_function(*args, **options))

    async def close(self) -> None:
        """Close it after what was called before, and wait for that."""
        await self.worker.close()

    def stop(self) -> None:
        """Close it after what was called before, and do not wait for that. Needs no event loop."""
        self.worker.stop()

    def __del__(self) -> None:
        self.stop()


class ThreadCursor:
    """A cursor of a `ThreadConnection`."""

    def __init__(self, connection: ThreadConnection, open_cursor: Callable[[], sqlite3.Cursor]) -> None:
        self._connection = connection
        self._open = open_cursor
        self._cursor: sqlite3.Cursor | None = None

    async def __aenter__(self) -> Self:
        self._cursor = await self._connection.call(self._open)
        return self

    def _opened(self) -> sqlite3.Cursor:
        assert self._cursor is not None
        return self._cursor

    async def execute(self, operation: str, parameters: Any = ()) -> None:
        """Run a statement."""
        await self._connection.call(partial(self._opened().execute, operation, parameters))

    async def executemany(self, operation: str, parameters: Any) -> None:
        """Run a statement once for each of `parameters`."""
        await self._connection.call(partial(self._opened().executemany, operation, parameters))

    async def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        rows: list[Any] = await self._connection.call(self._opened().fetchall)
        return rows

    async def close(self) -> None:
        """Drop the rows that are left."""
        await self._connection.call(self._opened().close)

    @property
    def description(self) -> Any:
        """The columns of the result (PEP 249)."""
        return self._opened().description

    @property
    def rowcount(self) -> int:
        """How many rows were changed (PEP 249)."""
        return self._opened().rowcount

    @property
    def lastrowid(self) -> int | None:
        """The id of the row that was inserted last (PEP 249)."""
        return self._opened().lastrowid


class Worker:
    """What runs in the thread. Holds no `ThreadConnection`, so that one that is forgotten ends its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, open_file: Callable[[], sqlite3.Connection]) -> None:
        self.connection: sqlite3.Connection | None = None
        self._loop = loop
        self._open_file = open_file
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        # After `stopped` nothing is put, for it would not be answered.
        self._lock = threading.Lock()
        self.stopped = False
        self._ended = False
        self._waiting: list[asyncio.Future[None]] = []

    # -- in any thread -------------------------------------------------------------------------------------------------

    def put(self, future: asyncio.Future[Any], function: Callable[[], Any]) -> bool:
        """Call `function` for `future`; False when the thread takes no more."""
        with self._lock:
            if not self.stopped:
                self._calls.put((future, function))
            return not self.stopped

    @property
    def left(self) -> bool:
        """Whether the connection is left open, or was closed without a wait for its end."""
        return self.stopped or self._loop.is_closed()

    async def close(self) -> None:
        """Close the connection after what was called before, and wait for that."""
        future = asyncio.get_running_loop().create_future()
        if self.stop(future):
            await future

    def stop(self, future: asyncio.Future[None] | None = None) -> bool:
        """Take no more calls, and tell `future` the end; False when it has ended already."""
        with self._lock:
            if future is not None and not self._ended:
                self._waiting.append(future)
            if not self.stopped:
                self.stopped = True
                self._calls.put(None)
            return not self._ended

    # -- in its own thread ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file."""
        self.connection = self._open_file()

    def opened(self) -> sqlite3.Connection:
        """Return the driver's connection."""
        assert self.connection is not None
        return self.connection

    def cursor(self) -> sqlite3.Cursor:
        """Return a new cursor."""
        return self.opened().cursor()

    def run(self) -> None:
        """Answer calls until the last, or until an event loop is closed that would have to end a transaction."""
        try:
            while self._next():
                pass
        finally:
            self.stop()
            self._close()
            with self._lock:
                self._ended = True
            for future in self._waiting:
                _tell(future, None, None)

    def _next(self) -> bool:
        busy = self.connection is not None and self.connection.in_transaction
        try:
            call = self._calls.get(timeout=_LOOK if busy else None)
        except queue.Empty:
            return not self._loop.is_closed()
        return call is not None and _answer(*call)

    def _close(self) -> None:
        # After a closed loop: the calls that were made meanwhile.
        while not self._calls.empty():
            if (call := self._calls.get()) is not None:
                _tell(call[0], None, ValueError("Connection closed"))
        connection, self.connection = self.connection, None
        if connection is not None:
            # SQLite keeps a closed connection, and its locks, for as long as a task holds a cursor of it.
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _answer(future: asyncio.Future[Any], function: Callable[[], Any]) -> bool:
    """Call `function` and give what comes of it to `future`; False when the event loop of that one is closed."""
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
        return _tell(future, None, error)
    return _tell(future, result, None)


def _tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> bool:
    try:
        future.get_loop().call_soon_threadsafe(_settle, future, result, error)
    except RuntimeError:
        if not future.get_loop().is_closed():
            raise
        return False
    return True


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # Cancelled.
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
