"""A migration that makes a table anew, as SQLite alters one, takes nothing along that refers to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from routeguard.core.clock import SystemClock
from routeguard.core.errors import ConfigError
from routeguard.foundation.db.branches import Branch
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import current_heads, migrate
from tests.steady import PATIENT

pytestmark = pytest.mark.anyio

REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "houses_000{number}"
down_revision = {before!r}
branch_labels = {labels!r}
depends_on = None

def upgrade():
    {work}
"""
MAKE = """
    op.create_table("routeguard_houses", sa.Column("id", sa.String(40), primary_key=True), sa.Column("n", sa.String(9)))
    house = sa.ForeignKey("routeguard_houses.id", name="fk_routeguard_doors_house", ondelete="CASCADE")
    key = sa.Column("id", sa.String(40), primary_key=True)
    op.create_table("routeguard_doors", key, sa.Column("house", sa.String(40), house))
"""
ALTER = """
    with op.batch_alter_table("routeguard_houses") as batch:
        batch.alter_column("n", type_=sa.String(20), existing_type=sa.String(9))
"""
LOSE = """
    op.execute("DELETE FROM routeguard_houses")
"""


def add(folder: Path, number: int, work: str) -> Branch:
    before, labels = (f"houses_000{number - 1}", None) if number > 1 else (None, ("houses",))
    text = REVISION.format(number=number, before=before, labels=labels, work=work.strip())
    (folder / f"000{number}_step.py").write_text(text)
    return Branch("houses", folder, frozenset({"houses", "doors"}))


async def doors(database: Database) -> int:
    async with database.read() as tx:
        return int(await tx.scalar(sa.text("SELECT count(*) FROM routeguard_doors")))


@pytest.fixture
async def database(empty_database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(empty_database_url, clock=SystemClock(), settings=PATIENT, tables=["houses", "doors"])
    await database.start()
    await migrate(database, [add(tmp_path, 1, MAKE)])
    async with database.transaction() as tx:
        await tx.execute(sa.text("INSERT INTO routeguard_houses VALUES ('h', 'n')"))
        await tx.execute(sa.text("INSERT INTO routeguard_doors VALUES ('d', 'h')"))
    yield database
    await database.close()


async def test_a_table_is_altered_and_the_rows_that_refer_to_it_stay(database: Database, tmp_path: Path) -> None:
    await migrate(database, [add(tmp_path, 2, ALTER)])
    assert await doors(database) == 1
    # And foreign keys count again afterwards.
    async with database.transaction() as tx:
        await tx.execute(sa.text("DELETE FROM routeguard_houses"))
    assert await doors(database) == 0


async def test_on_sqlite_rows_that_would_refer_to_none_undo_a_migration(database: Database, tmp_path: Path) -> None:
    if database.dialect != "sqlite":
        pytest.skip("PostgreSQL enforces foreign keys in migrations too")
    with pytest.raises(ConfigError, match="routeguard_doors"):
        await migrate(database, [add(tmp_path, 2, LOSE)])
    assert await doors(database) == 1
    assert "houses_0001" in await current_heads(database)
    # The connection whose limits were lifted is not used again.
    async with database.transaction() as tx:
        await tx.execute(sa.text("DELETE FROM routeguard_houses"))
    assert await doors(database) == 0
