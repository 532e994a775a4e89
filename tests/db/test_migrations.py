"""The migrations make exactly the tables the code declares, once, whoever runs them."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import routeguard
from routeguard.core.clock import SystemClock
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.foundation.db.branches import built_in, heads
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import VERSION_TABLE, current_heads, migrate, pending
from routeguard.foundation.db.revisions import ordered
from routeguard.foundation.db.schema import metadata
from tests.steady import PATIENT

COVERS = ("foundation/db/migrate", "foundation/db/renaming", "foundation/db/revisions")

pytestmark = pytest.mark.anyio

OURS = {VERSION_TABLE, "routeguard_migration_lock"}


def import_every_table() -> None:
    """Import all modules that may declare one, so that none is forgotten."""
    for module in pkgutil.walk_packages(routeguard.__path__, "routeguard."):
        found = Path(module.module_finder.path) / f"{module.name.rpartition('.')[2]}.py"
        if found.is_file() and "db.schema import metadata" in found.read_text() and "migrations" not in module.name:
            importlib.import_module(module.name)


@pytest.fixture
async def empty(empty_database_url):
    database = Database(empty_database_url, clock=SystemClock(), settings=PATIENT)
    await database.start()
    yield database
    await database.close()


def difference(connection: sa.Connection) -> list[object]:
    def ours(_object, name, kind, _reflected, _compared):
        return not (kind == "table" and name in OURS)

    options = {"include_object": ours, "compare_type": True, "compare_server_default": True}
    return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


async def test_migrated_tables_are_those_of_the_code(empty):
    import_every_table()
    assert {"routeguard_users", "routeguard_sessions", "routeguard_outbox"} <= set(metadata.tables)
    await migrate(empty)
    assert await empty.run_sync(difference) == []


async def test_pending_says_what_migrate_will_do_and_then_nothing(empty):
    assert await current_heads(empty) == set()
    before = await pending(empty)
    assert before[0] == "0001"
    await migrate(empty)
    assert await pending(empty) == []
    assert await current_heads(empty) == heads(built_in())
    assert before[-1] in await current_heads(empty)


async def test_migrating_again_changes_nothing(empty):
    await migrate(empty)
    async with empty.transaction() as tx:
        await tx.execute(
            sa.text("INSERT INTO routeguard_outbox (id, kind, payload, due_at, attempts) VALUES ('a', 'k', '', 1, 0)")
        )
    await migrate(empty)
    async with empty.read() as tx:
        assert await tx.scalar(sa.text("SELECT count(*) FROM routeguard_outbox")) == 1


async def test_two_processes_may_migrate_at_once(empty, empty_database_url):
    # Two processes, for in one of them the SQLite writers would stand in one line anyway (attack OPS-13).
    code = (
        "import asyncio, sys\n"
        "from routeguard.core.clock import SystemClock\n"
        "from routeguard.foundation.db.database import Database\n"
        "from routeguard.foundation.db.migrate import migrate\n"
        "from tests.steady import PATIENT\n"
        "async def main():\n"
        "    database = Database(sys.argv[1], clock=SystemClock(), settings=PATIENT)\n"
        "    await database.start()\n"
        "    await migrate(database)\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
    )
    started = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, empty_database_url, stderr=-1)
        for _ in range(3)
    ]
    for process in started:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
    assert await pending(empty) == []


async def test_a_migration_that_fails_half_way_leaves_nothing(empty):
    async with empty.transaction() as tx:
        await tx.execute(sa.text("CREATE TABLE others (id integer)"))
        # A name that only the database knows to be taken, in the middle of the second migration.
        await tx.execute(sa.text("CREATE INDEX routeguard_api_keys_by_id ON others (id)"))
    with pytest.raises((ConfigError, Unavailable)):
        await migrate(empty)
    tables = await empty.run_sync(lambda connection: set(sa.inspect(connection).get_table_names()))
    assert tables - {"routeguard_migration_lock"} == {"others"}


def test_the_head_is_known_without_loading_alembic():
    """Most starts have nothing to apply, and wait for nothing then."""
    applied = ordered(built_in())
    followed = [script.down_revision for script in applied]
    assert heads(built_in()) == {script.revision for script in applied if script.revision not in followed}
    code = "import sys, routeguard.cli.seed, routeguard.cli.serve; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
