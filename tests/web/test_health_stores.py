"""`/readyz` over real stores that answer a look and take no writes: demoted, full, or read-only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from routeguard.foundation.web.health import Readiness, health_routes
from tests.backends import PostgresServer
from tests.ephemeral.server import ValkeyProcess
from tests.passwords.world import GOOD, World

pytestmark = pytest.mark.anyio

ADA = {"email": "ada@example.com", "password": GOOD}


@pytest.fixture
def valkey() -> Iterator[ValkeyProcess]:
    server = ValkeyProcess()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def world(sqlite_url: str, valkey: ValkeyProcess) -> AsyncIterator[World]:
    async with World.open(sqlite_url, ephemeral_url=valkey.url) as world:
        with_health(world)
        yield world


def with_health(world: World) -> None:
    world.app.router.routes += health_routes(world.guard.services.get(Readiness).check)


async def ready(world: World) -> int:
    async with world.client() as client:
        return (await client.get("/readyz")).status_code


async def becomes_ready(world: World) -> None:
    with anyio.fail_after(60):
        while await ready(world) != 200:
            await anyio.sleep(0.02)


async def test_a_demoted_valkey(world: World, valkey: ValkeyProcess) -> None:
    assert await ready(world) == 200
    valkey.call("REPLICAOF", "127.0.0.1", "1")
    assert [await ready(world) for _ in range(3)] == [503] * 3
    valkey.call("REPLICAOF", "NO", "ONE")
    await becomes_ready(world)
    await world.sign_up(ADA["email"])
    assert (await world.sign_in(**ADA)).status_code == 200


@pytest.mark.parametrize("password", [True, False], ids=["another password", "a password"])
async def test_a_valkey_that_wants_a_password_we_have_not(
    sqlite_url: str, password: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """After a restart with other settings. The log says why, and no password."""
    server = ValkeyProcess(*(("--requirepass", "first-canary") if password else ()))
    server.start()
    url = f"redis://:first-canary@127.0.0.1:{server.port}/0" if password else server.url
    other = ValkeyProcess("--requirepass", "second-canary", port=server.port)
    try:
        async with World.open(sqlite_url, ephemeral_url=url) as world:
            with_health(world)
            assert await ready(world) == 200
            server.stop()
            other.start()
            with anyio.fail_after(60):
                while not any(
                    words in caplog.text for words in ("refuses the user or the password", "wants a password")
                ):
                    assert await ready(world) == 503
                    await anyio.sleep(0.02)
            assert "canary" not in caplog.text
            other.stop()
            server.start()
            await becomes_ready(world)
    finally:
        server.stop()
        other.stop()


async def test_a_valkey_without_room(world: World, valkey: ValkeyProcess) -> None:
    valkey.call("CONFIG", "SET", "maxmemory", "1")
    assert [await ready(world) for _ in range(3)] == [503] * 3
    valkey.call("CONFIG", "SET", "maxmemory", "0")
    await becomes_ready(world)


async def test_a_read_only_postgresql(postgres_server: PostgresServer, postgresql_url: str) -> None:
    """What managed databases do when their disk is full: they answer, and take no writes."""
    name = postgresql_url.rpartition("/")[2]
    async with World.open(postgresql_url) as world:
        with_health(world)
        await world.sign_up(ADA["email"])
        assert (await world.sign_in(**ADA)).status_code == 200
        assert await ready(world) == 200
        postgres_server.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        # It holds for new sessions, as after a fail-over; the old ones end.
        postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with anyio.fail_after(60):
            while await ready(world) == 200:
                await anyio.sleep(0.02)
        assert (await world.sign_in(**ADA)).status_code == 503
        assert await ready(world) == 503
        postgres_server.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        # No session is ended here: those that take no writes are given up by themselves.
        await becomes_ready(world)
        with anyio.fail_after(60):
            while (await world.sign_in(**ADA)).status_code != 200:
                await anyio.sleep(0.02)
