"""A PostgreSQL server that dies, freezes and comes back: 503 within two seconds, and service again within two."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest
import sqlalchemy as sa

from routeguard.core.clock import SystemClock
from routeguard.core.errors import Unavailable
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.errors import short_reason
from routeguard.foundation.db.models import DatabaseSettings
from tests.backends import PostgresServer

COVERS = ("foundation/db/hot_pool", "foundation/db/time", "foundation/db/watched")

pytestmark = pytest.mark.anyio

POOL = 4
LIMIT = 60.0
"""Two seconds, and what a busy machine adds. Without limits of our own each of these waits would have no end."""


@pytest.fixture(scope="module")
def server():
    """A server of our own, for we harm it."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
async def opened(server: PostgresServer):
    database = Database(server.url("postgres"), clock=SystemClock(), settings=DatabaseSettings(pool_size=POOL))
    await database.start()
    yield database
    await database.close()


class Load:
    """Everything a process does with a database, at once."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.prepared = database.prepare(sa.select(sa.bindparam("n", type_=sa.Integer)))

    async def hot(self) -> None:
        assert await self.prepared.one(n=7) == (7,)

    async def read(self) -> None:
        async with self.database.read() as tx:
            assert await tx.scalar(sa.select(sa.literal(1))) == 1

    async def write(self) -> None:
        async with self.database.transaction() as tx:
            await tx.execute(sa.text("CREATE TEMPORARY TABLE IF NOT EXISTS t (n integer) ON COMMIT DROP"))

    async def all(self, times: int = 3) -> list[BaseException | None]:
        calls = [work() for _ in range(times) for work in (self.hot, self.read, self.write)]
        return await asyncio.gather(*calls, return_exceptions=True)

    async def until_back(self) -> float:
        """Return how long it took until every kind of work succeeds again."""
        began = time.monotonic()
        while any(outcome is not None for outcome in await self.all()):
            assert time.monotonic() - began < LIMIT
            await asyncio.sleep(0.05)
        return time.monotonic() - began


def connections(server: PostgresServer) -> int:
    found = server.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'routeguard'")
    number = found[0][0]
    assert isinstance(number, int)
    return number


async def test_a_killed_server_is_unavailable_at_once_and_used_again_when_it_returns(server, opened):
    """R6: stop; no hang, no wrong answer, no leak of the pool, five times."""
    load = Load(opened)
    assert await load.all() == [None] * 9
    for _ in range(5):
        server.kill()
        began = time.monotonic()
        outcomes = await load.all()
        assert time.monotonic() - began < LIMIT
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        await asyncio.to_thread(server.start)
        assert await load.until_back() < LIMIT
    assert connections(server) <= 2 * POOL


async def test_an_outage_is_told_once_with_its_place_and_its_end_once(server, caplog):
    """OBS-03: host, port and database; never as whom we ask, nor the password."""
    url = server.url("postgres").replace("postgres@", "postgres:hunter2-word@")
    database = Database(url, clock=SystemClock(), settings=DatabaseSettings(pool_size=POOL))
    load = Load(database)
    assert await load.all() == [None] * 9
    caplog.set_level("INFO", "routeguard.db")
    place = f"127.0.0.1:{server.port}/postgres"
    server.kill()
    for _ in range(2):
        outcomes = await load.all()
    assert {str(outcome) for outcome in outcomes} == {f"database at {place}: Connection refused"}
    assert [text for text in caplog.messages if "is away" in text] == caplog.messages[:1]
    assert caplog.messages[0].startswith(f"the database at {place} is away: ")
    await asyncio.to_thread(server.start)
    await load.until_back()
    await load.all()
    assert caplog.messages[-1] == f"the database at {place} is back"
    assert sum(text.endswith("is back") for text in caplog.messages) == 1
    assert "hunter2-word" not in caplog.text
    await database.close()


async def test_what_a_driver_quotes_is_not_repeated():
    text = 'connection to server at "10.0.0.9", port 5432 failed: FATAL:  password authentication failed for user "ada"'
    assert short_reason(psycopg.OperationalError(text)) == "FATAL: password authentication failed for user"
    assert short_reason(psycopg.OperationalError("")) == "OperationalError"
    assert short_reason(OSError("a\nb")) == "a"


async def test_a_frozen_server_is_given_up_within_two_seconds(server, opened):
    """R6: SIGSTOP; the kernel goes on acknowledging, so only a limit of our own ends the wait."""
    load = Load(opened)
    assert await load.all() == [None] * 9
    for _ in range(2):
        server.freeze()
        try:
            began = time.monotonic()
            outcomes = await load.all()
            assert time.monotonic() - began < LIMIT
            assert {type(outcome) for outcome in outcomes} == {Unavailable}
        finally:
            server.thaw()
        assert await load.until_back() < LIMIT
    assert connections(server) <= 2 * POOL


async def test_a_server_frozen_within_a_transaction_is_given_up_too(server, opened):
    began = time.monotonic()
    with pytest.raises(Unavailable):
        async with opened.transaction() as tx:
            await tx.execute(sa.select(1))
            server.freeze()
            try:
                began = time.monotonic()
                await tx.execute(sa.select(1))
            finally:
                server.thaw()
    assert time.monotonic() - began < LIMIT
    await opened.ping()


async def test_a_caller_who_leaves_a_frozen_server_is_not_held(server, opened):
    """A client that disconnects cancels its request; clearing up must not wait for the dead."""
    await opened.ping()
    server.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await Load(opened).hot()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), opened.transaction() as tx:
                await tx.execute(sa.select(1))
        assert time.monotonic() - began < 2 * LIMIT
    finally:
        server.thaw()
    assert await Load(opened).until_back() < LIMIT


async def test_connections_the_server_ended_while_idle_are_replaced_unnoticed(server, opened):
    load = Load(opened)
    assert await load.all() == [None] * 9
    for _ in range(3):
        # Returns when they have ended.
        server.execute(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE application_name = 'routeguard'"
        )
        await asyncio.sleep(0.1)
        assert await load.all() == [None] * 9


async def test_start_without_a_server_is_no_error(server):
    server.kill()
    try:
        database = Database(server.url("postgres"), clock=SystemClock())
        await database.start()
        with pytest.raises(Unavailable):
            await database.ping()
    finally:
        await asyncio.to_thread(server.start)
    await database.ping()
    await database.close()
