"""Event loops that end in the middle of a statement or of a transaction: nothing waits for them, and no lock stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from anyio import NoEventLoopError
from sqlalchemy import event

from routeguard.core.clock import SystemClock
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.foundation.db.sqlite_thread import ThreadConnection
from tests.steady import PATIENCE, PATIENT, until


class Held:
    """A database whose statement `SELECT held()` goes on until `leave` is set."""

    def __init__(self, url: str) -> None:
        self.path = url.removeprefix("sqlite:///")
        self.entered, self.leave = threading.Event(), threading.Event()
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.execute("CREATE TABLE notes (text)")
        self.database = Database(url, clock=SystemClock(), settings=PATIENT)
        backend: Any = self.database._backend
        event.listen(backend.writes.sync_engine, "connect", self._make_known)

    def _make_known(self, connection: Any, _record: Any) -> None:
        connection.create_function("held", 0, self._held)

    def _held(self) -> int:
        self.entered.set()
        self.leave.wait(PATIENCE)
        return 1

    async def work(self) -> None:
        """Write, and be in a statement for as long as that takes."""
        async with self.database.transaction() as tx:
            await tx.execute(sa.text("INSERT INTO notes VALUES ('never')"))
            await tx.execute(sa.text("SELECT held()"))

    async def linger(self) -> None:
        """Write, and wait for something else before the commit."""
        async with self.database.transaction() as tx:
            await tx.execute(sa.text("INSERT INTO notes VALUES ('never')"))
            self.entered.set()
            await asyncio.Event().wait()

    def written(self) -> list[str]:
        """Take the lock of writers, as another process would, and return what was committed."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=20, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            return [text for (text,) in connection.execute("SELECT text FROM notes")]

    async def next(self) -> None:
        """Use the database in another event loop."""
        await self.database.close()
        await self.database.start()
        for _ in range(2):
            async with self.database.transaction() as tx:
                await tx.execute(sa.text("INSERT INTO notes VALUES ('next')"))
        async with self.database.read() as tx:
            assert len(await tx.all(sa.text("SELECT text FROM notes"))) == 2
        await self.database.close()


@pytest.fixture
def held(empty_sqlite_url: str) -> Held:
    return Held(empty_sqlite_url)


def ends(target: Any) -> None:
    """Run `target` in a thread, which has to end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            target()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not failures, failures


@pytest.mark.parametrize("work", ["work", "linger"], ids=["in a statement", "between statements"])
def test_a_loop_closed_within_a_transaction_holds_no_lock(held: Held, work: str) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(held.database.start())
    # Kept, as a framework may: nothing is released by the garbage collector.
    task = loop.create_task(getattr(held, work)())
    loop.run_until_complete(until(held.entered.is_set))
    loop.close()
    held.leave.set()
    assert held.written() == []
    ends(lambda: asyncio.run(held.next()))
    assert held.written() == ["next", "next"]
    assert not task.done()
    # What it held goes without an event loop, and says so.
    with pytest.raises(NoEventLoopError):
        task.get_coro().close()
    assert held.written() == ["next", "next"]
    del task
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def test_a_loop_that_ends_while_a_cancelled_statement_is_cancelled_again(held: Held) -> None:
    """As when a service is closed and its loop ends: the first cancellation closes the connection, the second that."""

    async def main() -> None:
        await held.database.start()
        task = asyncio.create_task(held.work())
        await until(held.entered.is_set)
        before = asyncio.all_tasks()
        task.cancel()
        # SQLAlchemy rolls back first, and closes the connection when that is cancelled as well.
        await asyncio.sleep(0)
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        for closing in asyncio.all_tasks() - before:
            closing.cancel()
        asyncio.get_running_loop().call_later(0.1, held.leave.set)

    ends(lambda: asyncio.run(main()))
    held.leave.set()
    assert held.written() == []
    ends(lambda: asyncio.run(held.next()))


def test_a_connection_that_is_forgotten_ends_its_thread(held: Held) -> None:
    before = set(threading.enumerate())

    async def main() -> None:
        connection = await ThreadConnection(lambda: sqlite3.connect(held.path, check_same_thread=False))
        assert set(threading.enumerate()) - before
        del connection
        await until(lambda: not set(threading.enumerate()) - before)

    asyncio.run(main())


def test_a_connection_is_closed_any_number_of_times(held: Held) -> None:
    async def main() -> None:
        connection = await ThreadConnection(lambda: sqlite3.connect(held.path, check_same_thread=False))
        connection.stop()
        await asyncio.gather(connection.close(), connection.close())
        await connection.close()
        with pytest.raises(ValueError, match="closed"):
            await connection.commit()

    ends(lambda: asyncio.run(main()))


def test_a_closed_database_is_whole_in_its_file(tmp_path: Path) -> None:
    # Who copies the file then has everything: no connection that is still ending keeps the log beside it.
    async def work(url: str) -> None:
        database = Database(url, clock=SystemClock(), settings=PATIENT)
        await database.start()
        await migrate(database)
        await database.close()

    for number in range(8):
        path = tmp_path / f"{number}.db"
        asyncio.run(work(f"sqlite:///{path}"))
        assert [one.name for one in tmp_path.glob(f"{number}.db*")] == [path.name]
