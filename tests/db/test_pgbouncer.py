"""The identity service behind Debian's PgBouncer, in both of its modes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import anyio
import psycopg
import pytest
import sqlalchemy as sa

from routeguard.core.clock import SystemClock
from routeguard.core.errors import ConfigError, Misconfigured, Unavailable
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate, require_current
from routeguard.foundation.db.models import DatabaseSettings
from tests.backends import PostgresServer
from tests.passwords.world import GOOD, PATIENT, World
from tests.pgbouncer import PgBouncer
from tests.steady import until

COVERS = ("foundation/db/pooler",)

pytestmark = pytest.mark.anyio

TIMES = 200
AT_ONCE = 16
IGNORING = "ignore_startup_parameters = options"
FEW = "default_pool_size = 5"
"""Fewer than there are callers at once, so that transactions change servers all the time."""
LIMITS = sa.select(
    sa.func.current_setting("statement_timeout"), sa.func.current_setting("idle_in_transaction_session_timeout")
)
HELD = ("1800ms", "10s")


@pytest.fixture(params=["session", "transaction"])
def mode(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(params=[(), (IGNORING,)], ids=["as it is", "options ignored"])
def bouncer(request: pytest.FixtureRequest, postgres_server: PostgresServer, mode: str) -> Iterator[PgBouncer]:
    # By session every connection of ours is one of the server's.
    size = FEW if mode == "transaction" else "default_pool_size = 60"
    found = PgBouncer(postgres_server, mode, size, *request.param)
    yield found
    found.close()


@pytest.fixture
async def opened(bouncer: PgBouncer, postgresql_url: str) -> AsyncIterator[Database]:
    database = Database(bouncer.url(postgresql_url), clock=SystemClock())
    await database.start()
    yield database
    await database.close()


async def test_limits_hold_in_every_way_of_asking(opened: Database) -> None:
    await require_current(opened)
    hot = opened.prepare(LIMITS)
    for _ in range(6):
        assert await hot.one() == HELD
        async with opened.read() as tx:
            assert [tuple(row) for row in await tx.all(LIMITS)] == [HELD]
            assert [tuple(row) for row in await tx.all(LIMITS)] == [HELD]
        async with opened.transaction() as tx:
            assert [tuple(row) for row in await tx.all(LIMITS)] == [HELD]


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(
    opened: Database, postgres_server: PostgresServer
) -> None:
    """Whoever gives up first: nothing goes on working in the server."""
    with pytest.raises(Unavailable):
        async with opened.read() as tx:
            await tx.execute(sa.text("SELECT pg_sleep(601)"))
    with pytest.raises(Unavailable):
        async with opened.transaction() as tx:
            await tx.execute(sa.text("SELECT pg_sleep(602)"))
    with pytest.raises(Unavailable):
        await opened.prepare(sa.select(sa.func.pg_sleep(603))).one()
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'"
    await until(lambda: postgres_server.execute(asleep) == [(0,)])
    await opened.ping()


async def test_nothing_is_left_on_a_connection_for_the_next(
    opened: Database, bouncer: PgBouncer, postgresql_url: str, mode: str
) -> None:
    """The limits are ours alone: another application behind the same pooler must not get them."""
    hot = opened.prepare(LIMITS)
    await asyncio.gather(*(hot.one() for _ in range(20)))
    if mode == "session":
        await opened.close()
    limits_and_names = b"SELECT current_setting('statement_timeout'), count(*) FROM pg_prepared_statements"
    connect = psycopg.AsyncConnection.connect(bouncer.url(postgresql_url), autocommit=True, prepare_threshold=None)
    async with await connect as stranger:
        for _ in range(10):
            cursor = await stranger.execute(limits_and_names)
            assert await cursor.fetchone() == ("0", 0)


async def test_migrations_run_through_it(bouncer: PgBouncer, empty_postgresql_url: str) -> None:
    database = Database(bouncer.url(empty_postgresql_url), clock=SystemClock())
    try:
        with pytest.raises(ConfigError, match="routeguard migrate"):
            await require_current(database)
        await migrate(database)
        await require_current(database)
    finally:
        await database.close()


async def test_200_sign_ins_and_refreshes_at_16_at_once(bouncer: PgBouncer, postgresql_url: str) -> None:
    async with World.open(bouncer.url(postgresql_url), database=PATIENT) as world:
        emails = [f"user{number}@example.com" for number in range(AT_ONCE)]
        for email in emails:
            await world.sign_up(email)
        statuses: list[int] = []

        async def one(email: str) -> None:
            async with world.client(**{"user-agent": email}) as client:
                answer = await client.post("/auth/sign-in", json={"email": email, "password": GOOD})
                statuses.append(answer.status_code)
                pair = (await client.post("/auth/token", json={})).json()
                for _ in range(2):
                    again = await client.post("/auth/token/refresh", json={"refresh_token": pair["refresh_token"]})
                    statuses.append(again.status_code)
                    pair = again.json()
                statuses.append((await client.get("/auth/sessions")).status_code)

        async def many(email: str) -> None:
            for _ in range(TIMES // AT_ONCE + 1):
                await one(email)

        await asyncio.gather(*(many(email) for email in emails))
        assert set(statuses) == {200}
        assert len(statuses) > 4 * TIMES


async def test_an_outage_behind_it_ends_by_itself(mode: str) -> None:
    server = PostgresServer()
    bouncer = PgBouncer(server, mode, "server_login_retry = 0")
    try:
        url = server.create()
        direct = Database(url, clock=SystemClock(), settings=PATIENT)
        await migrate(direct)
        await direct.close()
        async with World.open(bouncer.url(url), database=DatabaseSettings(timeout=timedelta(seconds=2))) as world:
            await world.sign_up("ada@example.com")
            assert (await world.sign_in("ada@example.com")).status_code == 200
            # The test server commits lazily, so what it promised is written first.
            server.execute("CHECKPOINT")
            await asyncio.to_thread(server.kill)
            assert {(await world.sign_in("ada@example.com")).status_code for _ in range(3)} == {503}
            await asyncio.to_thread(server.start)
            with anyio.fail_after(60):
                while (await world.sign_in("ada@example.com")).status_code != 200:
                    await anyio.sleep(0.05)
    finally:
        bouncer.close()
        server.close()


async def test_session_mode_by_setting(postgres_server: PostgresServer, postgresql_url: str) -> None:
    """Statements are prepared there, and the limits are set once."""
    bouncer = PgBouncer(postgres_server, "session")
    database = Database(
        bouncer.url(postgresql_url), clock=SystemClock(), settings=DatabaseSettings(pooler="session", pool_size=2)
    )
    try:
        await require_current(database)
        hot = database.prepare(LIMITS)
        for _ in range(6):
            assert await hot.one() == HELD
        prepared = database.prepare(sa.select(sa.func.count()).select_from(sa.table("pg_prepared_statements")))
        assert (await prepared.one() or (0,))[0] >= 1
        async with database.read() as tx:
            assert [tuple(row) for row in await tx.all(LIMITS)] == [HELD]
    finally:
        await database.close()
        bouncer.close()


async def test_session_said_of_a_pooler_by_transaction_is_a_finding(
    postgres_server: PostgresServer, postgresql_url: str
) -> None:
    bouncer = PgBouncer(postgres_server, "transaction")
    database = Database(bouncer.url(postgresql_url), clock=SystemClock(), settings=DatabaseSettings(pooler="session"))
    try:
        with pytest.raises(ConfigError, match="by transaction"):
            await require_current(database)
    finally:
        await database.close()
        bouncer.close()


async def test_a_pooler_by_statement_is_a_finding(postgres_server: PostgresServer, postgresql_url: str) -> None:
    bouncer = PgBouncer(postgres_server, "statement")
    database = Database(bouncer.url(postgresql_url), clock=SystemClock())
    try:
        with pytest.raises(ConfigError, match="by statement"):
            await require_current(database)
    finally:
        await database.close()
        bouncer.close()


async def test_options_of_ones_own_cannot_pass_it(postgres_server: PostgresServer, postgresql_url: str) -> None:
    """Never left out without a word: they may name the schema."""
    bouncer = PgBouncer(postgres_server, "transaction")
    url = bouncer.url(postgresql_url) + "?options=-c%20search_path%3Dmine"
    database = Database(url, clock=SystemClock())
    try:
        with pytest.raises(Misconfigured, match="takes no options"):
            await database.ping()
    finally:
        await database.close()
        bouncer.close()


async def test_a_direct_connection_is_not_taken_for_a_pooler(
    postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "routeguard.db")
    database = Database(postgresql_url, clock=SystemClock())
    try:
        await require_current(database)
        hot = database.prepare(LIMITS)
        for _ in range(6):
            assert await hot.one() == HELD
        prepared = database.prepare(sa.select(sa.func.count()).select_from(sa.table("pg_prepared_statements")))
        assert (await prepared.one() or (0,))[0] >= 1
        assert "pooler" not in caplog.text
    finally:
        await database.close()


async def test_limits_of_ones_own_are_kept(postgresql_url: str) -> None:
    database = Database(postgresql_url + "?options=-c%20statement_timeout%3D900", clock=SystemClock())
    try:
        await require_current(database)
        async with database.read() as tx:
            assert await tx.scalar(sa.text("SHOW statement_timeout")) == "900ms"
    finally:
        await database.close()
