"""An application with tables, an ORM and an Alembic of its own, in one database with ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import routeguard
from routeguard.core.clock import SystemClock
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.foundation.db.models import DatabaseSettings
from routeguard.foundation.db.names import TABLES, Names
from routeguard.identity.users.store import users
from tests.servers import environment

COVERS = ("settings/tables",)

pytestmark = pytest.mark.anyio

MODELS = """
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

# Declared so that foreign keys can refer to it; Routeguard makes it.
routeguard_users = sa.Table(
    "{users}", Base.metadata, sa.Column("id", sa.String(40), primary_key=True), schema={schema!r}
)

class Profile(Base):
    __tablename__ = "profiles"
    user_id: Mapped[str] = mapped_column(
        sa.ForeignKey(routeguard_users.c.id, ondelete="CASCADE"), primary_key=True
    )
    motto: Mapped[str]

class Customer(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)

class Session(Base):
    __tablename__ = "sessions"
    id: Mapped[int] = mapped_column(primary_key=True)

class Outbox(Base):
    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(primary_key=True)
"""
ENV = """
from alembic import context
from sqlalchemy import create_engine

from models import Base
from routeguard import include_name, include_object

with create_engine({url!r}).connect() as connection:
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=connection.dialect.name == "sqlite",
        include_schemas={schemas}{hooks}
    )
    with context.begin_transaction():
        context.run_migrations()
"""
HOOKS = ", include_name=include_name, include_object=include_object"
PLACES: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "sqlite, another prefix": {"table_prefix": "auth_"},
    "postgresql": {},
    "postgresql, another prefix": {"table_prefix": "auth_"},
    "postgresql, a schema": {"schema": "identity"},
    "postgresql, a schema, no prefix": {"schema": "identity", "table_prefix": ""},
}


class Application:
    """A folder with models and Alembic, as an application has it."""

    def __init__(self, folder: Path, url: str, names: Names, *, hooks: str = HOOKS) -> None:
        self.folder = folder
        (folder / "migrations" / "versions").mkdir(parents=True, exist_ok=True)
        driver = url.replace("postgresql://", "postgresql+psycopg://")
        models = MODELS.format(users=names.table("users"), schema=names.schema or None)
        (folder / "models.py").write_text(models)
        (folder / "migrations" / "env.py").write_text(ENV.format(url=driver, schemas=bool(names.schema), hooks=hooks))
        template = "revision = ${repr(up_revision)}\ndown_revision = ${repr(down_revision)}\n"
        template += "import sqlalchemy as sa\nfrom alembic import op\n"
        template += "def upgrade():\n    ${upgrades}\ndef downgrade():\n    ${downgrades}\n"
        (folder / "migrations" / "script.py.mako").write_text(template)
        (folder / "alembic.ini").write_text("[alembic]\nscript_location = migrations\nprepend_sys_path = .\n")
        self.values = {"ROUTEGUARD_DATABASE_TABLE_PREFIX": names.prefix, "ROUTEGUARD_DATABASE_SCHEMA": names.schema}

    def alembic(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=self.folder,
            env=environment(**self.values),
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def revisions(self) -> str:
        return "".join(path.read_text() for path in (self.folder / "migrations" / "versions").glob("*.py"))


@pytest.fixture(params=PLACES)
async def made(request: pytest.FixtureRequest) -> tuple[str, Names]:
    """A database with our tables in it."""
    settings = DatabaseSettings(**PLACES[request.param])
    url: str = request.getfixturevalue(f"empty_{request.param.partition(',')[0]}_url")
    database = Database(url, clock=SystemClock(), settings=settings)
    await database.start()
    if settings.schema:
        async with database.transaction() as tx:
            await tx.execute(sa.text(f"CREATE SCHEMA {settings.schema}"))
    await migrate(database)
    await database.close()
    return url, settings.names


async def test_alembic_of_the_application_leaves_ours_alone(made: tuple[str, Names], tmp_path: Path) -> None:
    url, names = made
    app = Application(tmp_path, url, names)
    ended = app.alembic("revision", "--autogenerate", "-m", "first")
    assert ended.returncode == 0, ended.stderr
    first = app.revisions()
    assert "create_table('users'" in first
    assert "create_table('profiles'" in first
    assert "drop_" not in first.partition("def downgrade")[0]
    # Ours is referred to, and neither made nor changed.
    assert f"create_table('{names.table('users')}'" not in first or names.table("users") == "users"
    assert app.alembic("upgrade", "head").returncode == 0
    checked = app.alembic("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "No new upgrade operations" in checked.stdout
    # A second revision has nothing to do.
    assert app.alembic("revision", "--autogenerate", "-m", "second").returncode == 0
    assert app.revisions().count("op.") == first.count("op.")
    # And ours go on to work over it.
    database = Database(
        url, clock=SystemClock(), settings=DatabaseSettings(table_prefix=names.prefix, schema=names.schema)
    )
    await migrate(database)

    async with database.transaction() as tx:
        await tx.execute(
            sa.insert(users).values(
                id="usr_1", email="a@b.c", email_key="a@b.c", name="", email_verified=True, role="user", created_at=1.0
            )
        )
        await tx.execute(sa.text("INSERT INTO profiles (user_id, motto) VALUES ('usr_1', 'x')"))
    async with database.transaction() as tx:
        await tx.execute(sa.delete(users))
        assert await tx.scalar(sa.text("SELECT count(*) FROM profiles")) == 0
    await database.close()


async def test_without_the_hooks_it_would_drop_them(made: tuple[str, Names], tmp_path: Path) -> None:
    """The twin: what the hooks are for."""
    url, names = made
    app = Application(tmp_path, url, names, hooks="")
    ended = app.alembic("revision", "--autogenerate", "-m", "first")
    assert ended.returncode == 0, ended.stderr
    assert f"drop_table('{names.table('session_invalidations')}'" in app.revisions()


def test_the_hooks_know_every_name() -> None:
    for names in (Names(), Names("auth_"), Names(""), Names("", "identity")):
        parents: dict[str, str | None] = {"schema_name": names.schema or None}
        for table in (*map(names.table, TABLES), names.version, names.lock):
            assert not names.include_name(table, "table", parents)
            assert not names.include_name("x", "index", {**parents, "table_name": table})
            declared = sa.Table(table, sa.MetaData(), sa.Column("id", sa.Integer), schema=names.schema or None)
            assert not names.include_object(declared, table, "table", False, None)
            assert not names.include_object(declared.c.id, "id", "column", True, None)
        other: dict[str, str | None] = {"schema_name": "elsewhere" if names.schema else None}
        assert names.include_name("orders", "table", other)
        assert names.include_name("ix", "index", {**other, "table_name": "orders"})
        assert names.include_name(None, "schema", {})
        assert names.include_object(sa.Table("orders", sa.MetaData()), "orders", "table", False, None)
    # In another schema the same name is somebody else's.
    assert Names("", "identity").include_name("users", "table", {"schema_name": "public"})


def test_the_hooks_are_public() -> None:
    assert routeguard.include_name("orders", "table", {})
    assert not routeguard.include_name("routeguard_users", "table", {})
    table = sa.Table("routeguard_users", sa.MetaData())
    assert not routeguard.include_object(table, "routeguard_users", "table", True, None)
