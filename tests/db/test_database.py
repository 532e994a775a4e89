"""What `Database` promises, on both products."""

from __future__ import annotations

import asyncio
import sys
import traceback
from datetime import timedelta

import anyio
import psycopg
import pytest
import sqlalchemy as sa

from routeguard.core.clock import SystemClock
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.errors import ConstraintViolation, UniqueViolation
from routeguard.foundation.db.models import DatabaseSettings
from routeguard.foundation.db.outbox import outbox
from routeguard.identity.users.store import users

COVERS = (
    "foundation/db/backend",
    "foundation/db/errors",
    "foundation/db/models",
    "foundation/db/sqlite",
    "foundation/db/urls",
)

pytestmark = pytest.mark.anyio


def user(number: int, *, email: str = "") -> sa.Insert:
    email = email or f"{number}@example.com"
    return sa.insert(users).values(
        id=f"usr_{number}", email=email, email_key=email, name="", email_verified=True, role="user", created_at=1.0
    )


# Put together here, so that a traceback that quotes these lines does not hold it.
SECRET_ADDRESS = "mal" + "lory@example.com"

BY_ID = sa.select(users.c.id, users.c.email).where(users.c.id == sa.bindparam("user_id", type_=sa.String))


async def count(database: Database) -> int:
    async with database.read() as tx:
        return int(await tx.scalar(sa.select(sa.func.count()).select_from(users)))


async def test_a_transaction_commits_at_its_end(database: Database):
    async with database.transaction() as tx:
        await tx.execute(user(1))
        assert await count(database) == 0
    assert await count(database) == 1


async def test_an_exception_rolls_back_and_calls_nobody(database: Database):
    called = []
    with pytest.raises(LookupError):
        async with database.transaction() as tx:
            await tx.execute(user(1))
            tx.after_commit(lambda: called.append("committed"))
            raise LookupError
    assert await count(database) == 0
    assert called == []
    async with database.transaction() as tx:
        await tx.execute(user(1))
        tx.after_commit(lambda: called.append("committed"))
    assert called == ["committed"]


async def test_a_cancelled_transaction_rolls_back_and_gives_its_place_back(database: Database):
    for _ in range(15):
        with anyio.move_on_after(0.01):
            async with database.transaction() as tx:
                await tx.execute(user(1))
                await anyio.sleep_forever()
    assert await count(database) == 0
    async with database.transaction() as tx:
        await tx.execute(user(1))
    assert await count(database) == 1


async def test_a_taken_key_is_named_without_its_value(database: Database):
    async with database.transaction() as tx:
        await tx.execute(user(1, email=SECRET_ADDRESS))
    with pytest.raises(UniqueViolation) as caught:
        async with database.transaction() as tx:
            await tx.execute(user(2, email=SECRET_ADDRESS))
    assert "email_key" in caught.value.constraint
    # Attack OBS-03: neither the error nor its printed cause quotes the row.
    assert SECRET_ADDRESS not in "".join(traceback.format_exception(caught.value))


async def test_another_constraint_is_no_unique_violation(database: Database):
    with pytest.raises(ConstraintViolation) as caught:
        async with database.transaction() as tx:
            await tx.execute(sa.insert(users).values(id="usr_1", email="a", email_key="a", name="", created_at=1.0))
    assert not isinstance(caught.value, UniqueViolation)


async def test_foreign_keys_hold(database: Database):
    from routeguard.identity.users.one_time import one_time_tokens

    async with database.transaction() as tx:
        await tx.execute(user(1))
        row = {"purpose": "p", "token_hash": b"h" * 32, "expires_at": 1.0, "data": "{}"}
        await tx.execute(sa.insert(one_time_tokens).values(user_id="usr_1", **row))
    with pytest.raises(ConstraintViolation):
        async with database.transaction() as tx:
            await tx.execute(sa.insert(one_time_tokens).values(user_id="usr_2", **row))
    async with database.transaction() as tx:
        await tx.execute(sa.delete(users))
        assert await tx.all(sa.select(one_time_tokens)) == []


async def test_a_wrong_statement_is_our_fault_and_shows_no_value(database: Database):
    wrong = sa.text("SELECT nowhere FROM routeguard_users WHERE email = :email")
    with pytest.raises((sa.exc.ProgrammingError, Unavailable)) as caught:
        async with database.read() as tx:
            await tx.execute(wrong, {"email": SECRET_ADDRESS})
    assert SECRET_ADDRESS not in "".join(traceback.format_exception(caught.value))


async def test_the_hot_path_finds_what_was_committed_and_nothing_else(database: Database):
    prepared = database.prepare(BY_ID)
    assert await prepared.one(user_id="usr_1") is None
    async with database.transaction() as tx:
        await tx.execute(user(1))
        assert await prepared.one(user_id="usr_1") is None
    assert await prepared.one(user_id="usr_1") == ("usr_1", "1@example.com")
    async with database.transaction() as tx:
        await tx.execute(sa.delete(users))
    assert await prepared.one(user_id="usr_1") is None


async def test_the_hot_path_keeps_values_written_into_the_statement(database: Database):
    prepared = database.prepare(sa.select(users.c.id).where(users.c.role == "admin").limit(1))
    async with database.transaction() as tx:
        await tx.execute(user(1))
    assert await prepared.one() is None
    async with database.transaction() as tx:
        await tx.execute(sa.update(users).values(role="admin"))
    assert await prepared.one() == ("usr_1",)


async def test_many_rows_do_not_leave_the_hot_path_behind_the_writers(database: Database):
    prepared = database.prepare(sa.select(users.c.name).order_by(users.c.id))
    async with database.transaction() as tx:
        for number in range(20):
            await tx.execute(user(number))
    assert await prepared.one() == ("",)
    async with database.transaction() as tx:
        await tx.execute(sa.update(users).values(name="new"))
    assert await prepared.one() == ("new",)


async def test_sixty_four_writers_at_once_all_succeed(database: Database):
    async def write(number: int) -> None:
        async with database.transaction() as tx:
            await tx.execute(user(number))
            await tx.execute(sa.update(users).where(users.c.id == f"usr_{number}").values(name="x"))

    await asyncio.gather(*(write(number) for number in range(64)))
    assert await count(database) == 64


async def test_writers_of_several_processes_all_succeed(database: Database, database_url: str):
    code = (
        "import asyncio, sys\n"
        "from routeguard.core.clock import SystemClock\n"
        "from routeguard.foundation.db.database import Database\n"
        "from tests.db.test_database import user\n"
        "from tests.steady import PATIENT\n"
        "async def main(url, first):\n"
        "    database = Database(url, clock=SystemClock(), settings=PATIENT)\n"
        "    await database.start()\n"
        "    turns = asyncio.Semaphore(8)\n"
        "    async def write(number):\n"
        "        async with turns, database.transaction() as tx:\n"
        "            await tx.execute(user(number))\n"
        "    await asyncio.gather(*(write(int(first) + number) for number in range(50)))\n"
        "    await database.close()\n"
        "asyncio.run(main(*sys.argv[1:]))\n"
    )
    started = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, database_url, str(first), stderr=-1)
        for first in (100, 200, 300)
    ]
    for process in started:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
    assert await count(database) == 150


async def test_run_tries_again_when_the_database_gives_way_to_another(postgresql_url: str):
    """OPS-16: two transactions that lock two rows in opposite order; one is rolled back, and then both succeed."""
    database = Database(postgresql_url, clock=SystemClock())
    async with database.transaction() as tx:
        await tx.execute(user(1))
        await tx.execute(user(2))
    tries = []
    locked = {"usr_1": asyncio.Event(), "usr_2": asyncio.Event()}

    async def work(tx, first: str, second: str) -> None:
        tries.append(first)
        await tx.execute(sa.text("SET LOCAL deadlock_timeout = '50ms'"))
        await tx.execute(sa.update(users).where(users.c.id == first).values(name=users.c.name + "x"))
        locked[first].set()
        await locked[second].wait()
        await tx.execute(sa.update(users).where(users.c.id == second).values(name=users.c.name + "x"))

    await asyncio.gather(
        database.run(lambda tx: work(tx, "usr_1", "usr_2")), database.run(lambda tx: work(tx, "usr_2", "usr_1"))
    )
    assert len(tries) > 2
    async with database.read() as tx:
        assert {row.name for row in await tx.all(sa.select(users.c.name))} == {"xx"}
    await database.close()


async def test_an_exhausted_pool_is_said_within_a_second(postgresql_url: str):
    """OPS-03: 503 within a second, not a hang; and nothing is lost for later."""
    settings = DatabaseSettings(pool_size=2, statement_timeout=timedelta(seconds=30))
    database = Database(postgresql_url, clock=SystemClock(), settings=settings)
    async with database.read(), database.read():
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match="exhausted"):
            await database.ping()
        assert asyncio.get_running_loop().time() - began < 10
    await database.ping()
    # Held for as long as it takes by a lock of somebody else's.
    holder = await psycopg.AsyncConnection.connect(postgresql_url, autocommit=True)
    await holder.execute("SELECT pg_advisory_lock(7)")
    prepared = database.prepare(sa.select(sa.func.pg_advisory_xact_lock(7), sa.bindparam("n", type_=sa.Integer)))
    slow = [asyncio.create_task(prepared.one(n=number)) for number in range(2)]
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while (await (await holder.execute(waiting)).fetchone()) != (2,):
        await asyncio.sleep(0.01)
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="exhausted"):
        await prepared.one(n=3)
    assert asyncio.get_running_loop().time() - began < 10
    await holder.close()
    await asyncio.gather(*slow)
    await database.close()


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(postgresql_url: str):
    settings = DatabaseSettings(timeout=timedelta(seconds=20), statement_timeout=timedelta(seconds=0.25))
    database = Database(postgresql_url, clock=SystemClock(), settings=settings)
    with pytest.raises(Unavailable, match="57014"):
        async with database.transaction() as tx:
            await tx.execute(sa.select(sa.func.pg_sleep(30)))
    await database.close()


async def test_a_cancelled_hot_read_leaves_no_stranger_s_answer_behind(postgresql_url: str):
    """The next request on that connection must not read the row of the one that went away."""
    database = Database(
        postgresql_url, clock=SystemClock(), settings=DatabaseSettings(pool_size=1, timeout=timedelta(seconds=20))
    )
    slow = database.prepare(sa.select(sa.literal("other"), sa.func.pg_sleep(0.3)))
    own = database.prepare(sa.select(sa.bindparam("name", type_=sa.String)))
    for _ in range(5):
        with anyio.move_on_after(0.05):
            await slow.one()
        assert await own.one(name="me") == ("me",)
    await database.close()


async def test_memory_is_shared_by_all_connections_and_gone_with_the_object():
    database = Database("sqlite://", clock=SystemClock())
    await database.start()
    path = database._backend.path  # type: ignore[attr-defined]
    await database.run_sync(users.create)
    async with database.transaction() as tx:
        await tx.execute(user(1))
    assert await database.prepare(BY_ID).one(user_id="usr_1") is not None
    await database.close()
    assert not await anyio.Path(path).exists()


@pytest.mark.parametrize("url", ["mysql://x", "sqlite+aiosqlite:///x", "", "postgresql+psycopg://x", "x.db"])
async def test_another_url_is_refused_before_anything_is_opened(url: str):
    with pytest.raises(ConfigError):
        Database(url, clock=SystemClock())


async def test_a_new_sqlite_file_is_its_owner_s_alone(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'new.db'}", clock=SystemClock())
    await database.start()
    await database.ping()
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
    await database.close()


async def test_sqlite_is_open_in_the_mode_that_keeps_what_was_committed(sqlite_url: str):
    database = Database(sqlite_url, clock=SystemClock())
    await database.start()
    async with database.transaction() as tx:
        modes = [await tx.scalar(sa.text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys", "synchronous")]
    assert modes == ["wal", 1, 1]
    await database.close()


async def test_a_full_disk_is_unavailable_and_harms_nothing(sqlite_url: str):
    """OPS-09: SQLITE_FULL, by the limit SQLite offers, and readers go on."""
    database = Database(sqlite_url, clock=SystemClock())
    await database.start()
    async with database.transaction() as tx:
        await tx.execute(user(1))
        pages = await tx.scalar(sa.text("PRAGMA page_count"))
        await tx.execute(sa.text(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(Unavailable, match="SQLITE_FULL"):
        async with database.transaction() as tx:
            row = {"id": "obx_1", "kind": "k", "payload": b"x" * 1_000_000, "due_at": 1.0, "attempts": 0}
            await tx.execute(sa.insert(outbox).values(row))
    assert await count(database) == 1
    async with database.transaction() as tx:
        await tx.execute(sa.text("PRAGMA max_page_count=1000000"))
        await tx.execute(user(2))
        assert await tx.scalar(sa.text("PRAGMA integrity_check")) == "ok"
    assert await count(database) == 2
    await database.close()


async def test_a_file_that_cannot_be_written_is_unavailable(sqlite_url: str):
    """OPS-09: a file system remounted read-only, as the query_only switch shows it to SQLite."""
    database = Database(sqlite_url, clock=SystemClock())
    await database.start()
    async with database.transaction() as tx:
        await tx.execute(sa.text("PRAGMA query_only=ON"))
    with pytest.raises(Unavailable, match="READONLY"):
        async with database.transaction() as tx:
            await tx.execute(user(1))
    await database.close()


async def test_a_file_in_no_folder_is_unavailable(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}", clock=SystemClock())
    with pytest.raises(Unavailable):
        await database.start()
    await database.close()
