"""kill -9 while tokens are refreshed: the client, which got no answer, asks again and goes on. None lost, none doubled.

Longer: ``ROUTEGUARD_KILLS=1000 python -m pytest -m long tests/tokens/test_refresh_kills.py``, for each database.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
import sqlalchemy as sa

from routeguard.identity.sessions import store as session_store
from routeguard.identity.tokens.refresh import hash_of
from tests.rounds import rounds as repeated
from tests.tokens.victim import POINTS
from tests.tokens.world import World

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

AT_ONCE: Final = 6
_LATEST: Final = 0.004
"""Seconds until a random kill: a rotation takes about one millisecond."""


class Victim(NamedTuple):
    """A process one may kill, and the wire to it."""

    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, text: str) -> str:
        """Return the answer, `halted`, or nothing when it died."""
        self.writer.write(text.encode() + b"\n")
        try:
            line = await self.reader.readline()
        except ConnectionError:
            return ""
        return line.decode().strip() if line.endswith(b"\n") else ""

    async def kill(self, asked: asyncio.Task[str] | None = None) -> str:
        """End it, wait until it is gone, and return what it still answered to what it was asked."""
        os.kill(self.pid, signal.SIGKILL)
        answer = await asked if asked is not None else ""
        with contextlib.suppress(ConnectionError):
            await self.reader.read()
        self.writer.close()
        return answer


class Breeder:
    """Makes victims."""

    def __init__(self, asked: asyncio.StreamWriter, born: asyncio.Queue[Victim]) -> None:
        self._asked = asked
        self._born = born

    async def victim(self, point: str = "-") -> Victim:
        self._asked.write(point.encode() + b"\n")
        return await self._born.get()


@pytest.fixture
async def breeder(database_url: str, tmp_path: Path) -> AsyncIterator[Breeder]:
    async with _breeding(database_url, str(tmp_path / "socket")) as breeder:
        yield breeder


@asynccontextmanager
async def _breeding(url: str, socket: str) -> AsyncIterator[Breeder]:
    born: asyncio.Queue[Victim] = asyncio.Queue()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        born.put_nowait(Victim(int(await reader.readline()), reader, writer))

    server = await asyncio.start_unix_server(connected, socket)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.tokens.victim",
        socket,
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    try:
        yield Breeder(process.stdin, born)
    finally:
        process.stdin.close()
        await process.wait()
        server.close()


@repeated(1, 4)
async def test_killed_at_each_named_point(world: World, breeder: Breeder, rounds: int) -> None:
    """SES-16, OPS-08: before, within and after the transaction."""
    for point in POINTS[world.database.dialect]:
        for _ in range(rounds):
            text = (await world.family()).refresh_token
            before = await world.family_rows()
            victim = await breeder.victim(point)
            assert await victim.ask(text) == "halted"
            await victim.kill()
            if point != "committed":
                assert await world.family_rows() == before
            await _goes_on(world, text)
            await _end_all(world)


@repeated(1, 4)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_killed_in_the_middle_of_the_statement(world: World, breeder: Breeder, rounds: int) -> None:
    """SES-16, OPS-04: the server still works on it when the client is gone, and nobody knows how that ends.

    SQLite has no server: the process that is killed is the one that writes.
    """
    for _ in range(rounds):
        family = await world.family()
        victim = await breeder.victim()
        sessions = session_store.sessions
        async with world.database.transaction() as tx:
            await tx.execute(sa.select(sessions).where(sessions.c.id == family.session.id).with_for_update())
            asked = asyncio.create_task(victim.ask(family.refresh_token))
            await _until_somebody_waits(world)
            assert await victim.kill(asked) == ""
        await _goes_on(world, family.refresh_token)
        await _end_all(world)


@repeated(18, 84, variable="ROUTEGUARD_KILLS")
async def test_killed_anywhere(world: World, breeder: Breeder, rounds: int) -> None:
    """SES-16, OPS-08: each client goes on with the token it has, over as many deaths as it takes."""
    dice = random.Random(16)

    async def client(kills: int) -> None:
        text = (await world.family()).refresh_token
        for _ in range(kills):
            victim = await breeder.victim()
            # Some answers arrive, and the next is on its way when the end comes.
            for _ in range(dice.randrange(3)):
                text = await victim.ask(text)
            asked = asyncio.create_task(victim.ask(text))
            await asyncio.sleep(dice.random() * _LATEST)
            text = await victim.kill(asked) or await _goes_on(world, text)
            assert text != "None"
        held.append(hash_of(text))

    held: list[bytes] = []
    await asyncio.gather(*(client(rounds // AT_ONCE) for _ in range(AT_ONCE)))
    assert sorted(row.current_hash for row in await world.family_rows()) == sorted(held)
    assert len(await world.rows()) == AT_ONCE
    assert await world.events() == []


async def _goes_on(world: World, text: str) -> str:
    """Ask again as the client would: one successor, live, whatever the dead process had done."""
    found = await world.rotate(text)
    assert found is not None
    assert await world.rotate(text) == found
    token = world.refresh_codec.read(found)
    assert token is not None
    [row] = [row for row in await world.family_rows() if row.id == token.family_id]
    assert row.current_hash == hash_of(found)
    return found


async def _until_somebody_waits(world: World) -> None:
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with world.database.read() as tx:
        while not await tx.scalar(waiting):
            await asyncio.sleep(0.01)


async def _end_all(world: World) -> None:
    async with world.database.transaction() as tx:
        await tx.execute(sa.delete(session_store.sessions))
