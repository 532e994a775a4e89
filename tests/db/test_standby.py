"""A PostgreSQL with a standby that is behind: nobody is asked but the primary."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from routeguard.core.clock import SystemClock
from routeguard.core.errors import Unavailable
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.models import DatabaseSettings
from tests.backends import PostgresServer, free_port
from tests.steady import PATIENT

pytestmark = pytest.mark.anyio


class Standby(PostgresServer):
    """A hot standby of a server, which takes part in nothing since: it answers as of the copy."""

    def __init__(self, primary: PostgresServer) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="routeguard-standby-"))
        self._data = self.folder / "data"
        self._user = primary._user
        self._programs = primary._programs
        self._number = 0
        primary.stop()
        subprocess.run(["cp", "-a", str(primary._data), str(self._data)], check=True)
        (self._data / "standby.signal").touch()
        if self._user is not None:
            for path in (self.folder, self._data / "standby.signal"):
                os.chown(path, self._user, self._user)
        self.start()
        primary.start()


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgresServer, Standby]]:
    primary = PostgresServer()
    primary.execute("CREATE TABLE said (word text)")
    primary.execute("INSERT INTO said VALUES ('session')")
    standby = Standby(primary)
    yield primary, standby
    standby.close()
    primary.close()


@asynccontextmanager
async def opened(url: str, settings: DatabaseSettings = PATIENT) -> AsyncIterator[Database]:
    database = Database(url, clock=SystemClock(), settings=settings)
    await database.start()
    try:
        yield database
    finally:
        await database.close()


WORDS = sa.select(sa.func.count().label("n")).select_from(sa.table("said"))


@pytest.mark.parametrize("more", ["", "?target_session_attrs=any", "?target_session_attrs=prefer-standby"])
async def test_the_primary_is_asked_whoever_stands_first(servers: tuple[PostgresServer, Standby], more: str) -> None:
    """OPS-06: a sign-out was committed and the standby has not heard; no way of reading sees it alive."""
    primary, standby = servers
    primary.execute("DELETE FROM said")
    # The twin: it would be asked, and it would say the wrong thing.
    assert standby.execute("SELECT count(*), pg_is_in_recovery() FROM said GROUP BY 2") == [(1, True)]
    hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
    async with opened(f"postgresql://postgres@{hosts}/postgres{more}") as database:
        hot = database.prepare(WORDS)
        for _ in range(10):
            assert await hot.one() == (0,)
            async with database.read() as tx:
                assert await tx.scalar(WORDS) == 0
            async with database.transaction() as tx:
                assert await tx.scalar(WORDS) == 0


async def test_a_standby_alone_is_no_database(servers: tuple[PostgresServer, Standby]) -> None:
    """OPS-06: 503 until it has taken over, rather than an answer of some time ago."""
    _, standby = servers
    async with opened(standby.url("postgres")) as database:
        with pytest.raises(Unavailable):
            await database.prepare(WORDS).one()
        with pytest.raises(Unavailable):
            await database.ping()
