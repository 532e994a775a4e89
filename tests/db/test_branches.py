"""A feature from outside the package brings tables of its own, and the database says whose they are."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from routeguard import Routeguard
from routeguard.builtin.features import defaults
from routeguard.core.clock import SystemClock
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.feature import Feature
from routeguard.foundation.db.branches import COMMON, Branch, branches_of, built_in, heads
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import current_heads, migrate, pending, require_current
from routeguard.foundation.db.names import TABLES, Names
from routeguard.foundation.db.schema import metadata
from routeguard.identity.users.store import users
from routeguard.settings import Settings
from tests.db.test_table_names import PLACES, everything, execute
from tests.servers import environment, run
from tests.steady import PATIENT

pytestmark = pytest.mark.anyio

FIRST = """
import sqlalchemy as sa
from alembic import op

revision = "{name}_0001"
down_revision = None
branch_labels = ("{name}",)
depends_on = {depends_on!r}

def upgrade():
    op.create_table(
        "routeguard_{name}",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["routeguard_users.id"], name="fk_routeguard_{name}_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_routeguard_{name}"),
    )

def downgrade():
    op.drop_table("routeguard_{name}")
"""
SECOND = """
import sqlalchemy as sa
from alembic import op

revision = "{name}_0002"
down_revision = "{name}_0001"
branch_labels = None
depends_on = None

def upgrade():
    op.add_column("routeguard_{name}", sa.Column("label", sa.Text()))
    op.create_index("ix_routeguard_{name}_user_id", "routeguard_{name}", ["user_id"])

def downgrade():
    op.drop_column("routeguard_{name}", "label")
"""
MODULE = """
from pathlib import Path

import sqlalchemy as sa

from routeguard import Routeguard
from routeguard.builtin.features import defaults
from routeguard.core.feature import Feature
from routeguard.foundation.db.schema import metadata
from routeguard.settings import Settings

devices = sa.Table("routeguard_devices", metadata, sa.Column("id", sa.String(40), primary_key=True))
feature = Feature(name="devices", tables=(devices,), migrations=Path(__file__).parent / "devices")
guard = Routeguard(Settings.load(), features=[*defaults(), feature])
"""


def write(folder: Path, name: str, *texts: str, depends_on: str | None = "0001") -> Path:
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts or (FIRST, SECOND), 1):
        file = folder / f"{number:04}_step.py"
        file.write_text(text.format(name=name, depends_on=depends_on))
    return folder


def declare(name: str) -> sa.Table:
    return sa.Table(
        f"routeguard_{name}",
        metadata,
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("user_id", sa.ForeignKey("routeguard_users.id")),
        sa.Column("label", sa.Text),
    )


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Feature]:
    table = declare("devices")
    yield Feature(name="devices", tables=(table,), migrations=write(tmp_path / "devices", "devices"))
    metadata.remove(table)


def opened(database: Database, features: list[Feature]) -> Database:
    tables = [base for branch in branches_of(features) for base in branch.tables]
    return Database(database.url, clock=SystemClock(), settings=database.settings, tables=tables)


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """An empty database, with the schema that is to be used, and other names of tables in it."""
    kind, chosen = PLACES[request.param]
    database = Database(request.getfixturevalue(f"empty_{kind}_url"), clock=SystemClock(), settings=chosen)
    await database.start()
    if chosen.schema:
        await execute(database, f"CREATE SCHEMA {chosen.schema}")
    yield database
    await database.close()


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[Database]:
    database = Database(empty_database_url, clock=SystemClock(), settings=PATIENT)
    await database.start()
    yield database
    await database.close()


async def test_a_feature_is_added_to_a_deployment_that_has_users(place: Database, devices: Feature) -> None:
    """Also with another prefix and in a schema: its tables, indexes and constraints follow both."""
    await migrate(place)
    ada = {"id": "usr_1", "email": "a@b.c", "email_key": "a@b.c", "name": "", "email_verified": True, "role": "user"}
    async with place.transaction() as tx:
        await tx.execute(sa.insert(users).values(**ada, created_at=1.0))
    common, before = await current_heads(place), await everything(place)
    branches, table = branches_of([*defaults(), devices]), devices.tables[0]
    database = opened(place, [devices])
    with pytest.raises(ConfigError, match=r"lacks devices_0001, devices_0002: run `routeguard migrate --app"):
        await require_current(database, branches)
    assert await pending(database, branches) == ["devices_0001", "devices_0002"]
    await migrate(database, branches)
    await require_current(database, branches)
    # The row of the common branch stays, whoever depends on it.
    assert await current_heads(database) == {*common, "devices_0002"}
    prefix = place.names.prefix
    made = {name for name in await everything(place) - before if not name.startswith("sqlite_")}
    wanted = {f"{prefix}devices", f"pk_{prefix}devices", f"fk_{prefix}devices_user_id", f"ix_{prefix}devices_user_id"}
    assert made == wanted
    async with database.transaction() as tx:
        await tx.execute(sa.insert(table).values(id="dev_1", user_id="usr_1", label="x"))
    async with database.transaction() as tx:
        await tx.execute(sa.delete(users))
        assert await tx.all(sa.select(table)) == []
    await database.close()


async def test_a_feature_that_is_gone_is_named(place: Database, devices: Feature) -> None:
    branches = branches_of([devices])
    database = opened(place, [devices])
    await migrate(database, branches)
    for work in (migrate, require_current, pending):
        with pytest.raises(ConfigError, match=r"tables of the feature 'devices' \(devices_0002\), which is not in"):
            await work(place)
    told = replace(place.settings, other_features=("devices",))
    without = Database(place.url, clock=SystemClock(), settings=told)
    await require_current(without)
    await migrate(without)
    assert await current_heads(without) == await current_heads(database) == {*heads(built_in()), "devices_0002"}
    await without.close()
    await database.close()


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("9999", "9999, which a newer version of Routeguard made"),
        ("devices_0003", "devices_0003, which a newer version of the feature 'devices' made"),
    ],
)
async def test_what_a_newer_version_migrated_is_a_finding(
    empty: Database, devices: Feature, revision: str, words: str
) -> None:
    branches = branches_of([devices])
    await migrate(empty, branches)
    old = "devices_0002" if "_" in revision else next(iter(heads([COMMON])))
    await execute(empty, f"UPDATE routeguard_version SET version_num = '{revision}' WHERE version_num = '{old}'")
    for work in (migrate, require_current):
        with pytest.raises(ConfigError, match=words):
            await work(empty, branches)


async def test_start_up_names_what_a_feature_lacks(empty: Database, devices: Feature) -> None:
    settings = Settings(database_url=empty.url, issuer="http://localhost:8000", secret=None)
    await migrate(empty)
    guard = Routeguard(settings, features=[*defaults(), devices])
    with pytest.raises(ConfigError, match="the database lacks devices_0001, devices_0002"):
        await guard.start()
    await guard.close()
    await migrate(empty, branches_of(guard.features))
    guard = Routeguard(settings, features=[*defaults(), devices])
    await guard.start()
    await guard.close()
    without = Routeguard(settings)
    with pytest.raises(ConfigError, match="tables of the feature 'devices'"):
        await without.start()
    await without.close()


@pytest.mark.parametrize("order", [("alpha", "beta"), ("beta", "alpha")])
async def test_a_feature_may_need_the_tables_of_another(
    empty: Database, tmp_path: Path, order: tuple[str, ...]
) -> None:
    """In whatever order they are listed, and also where it comes later."""
    write(tmp_path / "beta", "beta", depends_on="0001")
    uses = FIRST.replace("def upgrade():", 'def upgrade():\n    op.execute("SELECT label FROM routeguard_beta")')
    write(tmp_path / "alpha", "alpha", uses, SECOND, depends_on="beta_0002")
    named = {name: Branch(name, tmp_path / name) for name in order}
    with pytest.raises(ConfigError, match=r"depends on beta_0002, which is not there: is the feature 'beta' in"):
        await migrate(empty, [named["alpha"]])
    assert await current_heads(empty) == set()
    await migrate(empty, [named[name] for name in order])
    assert await current_heads(empty) == {*heads(built_in()), "alpha_0002", "beta_0002"}
    (tmp_path / "beta" / "0003_more.py").write_text(
        'revision, down_revision, branch_labels, depends_on = "beta_0003", "beta_0002", None, "alpha_0001"\n'
        "def upgrade(): pass\n"
    )
    await migrate(empty, list(named.values()))
    assert await current_heads(empty) == {*heads(built_in()), "alpha_0002", "beta_0003"}


async def test_a_feature_that_fails_half_way_leaves_nothing(empty: Database, devices: Feature) -> None:
    await execute(
        empty, "CREATE TABLE others (id integer)", "CREATE INDEX ix_routeguard_devices_user_id ON others (id)"
    )
    with pytest.raises((ConfigError, Unavailable)):
        await migrate(empty, branches_of([devices]))
    tables = await empty.run_sync(lambda connection: set(sa.inspect(connection).get_table_names()))
    assert tables - {"routeguard_migration_lock"} == {"others"}


async def test_a_table_of_somebody_else_is_not_taken_for_the_features(empty: Database, devices: Feature) -> None:
    await migrate(empty)
    await execute(empty, "CREATE TABLE routeguard_devices (id integer)")
    with pytest.raises(ConfigError, match="has routeguard_devices already, and not from us"):
        await migrate(empty, branches_of([devices]))


async def test_processes_may_migrate_features_at_once(empty: Database, tmp_path: Path) -> None:
    """As `test_two_processes_may_migrate_at_once`, by the command and with a branch to add (attack OPS-13)."""
    write(tmp_path / "devices", "devices")
    (tmp_path / "outside.py").write_text(MODULE)
    command = [str(Path(sys.executable).parent / "routeguard"), "migrate", "--app", "outside:guard"]
    values = environment(ROUTEGUARD_DATABASE_URL=empty.url, ROUTEGUARD_DATABASE_STATEMENT_TIMEOUT="30s")
    started = [
        await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=values, stdout=-1, stderr=-1) for _ in range(3)
    ]
    for process in started:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
    assert await current_heads(empty) == {*heads(built_in()), "devices_0002"}


def test_the_command_names_features(tmp_path: Path) -> None:
    write(tmp_path / "devices", "devices")
    (tmp_path / "outside.py").write_text(MODULE)
    app = ("--app", "outside:guard")
    ended = run(tmp_path, "migrate", "--check", *app)
    assert (ended.returncode, ended.stdout.endswith(", devices_0001, devices_0002\n")) == (1, True), ended.stderr
    assert run(tmp_path, "migrate").returncode == 0
    ended = run(tmp_path, "migrate", "--check", *app)
    assert (ended.returncode, ended.stdout) == (1, "Pending: devices_0001, devices_0002\n")
    assert run(tmp_path, "migrate", *app).stdout == "Applied: devices_0001, devices_0002\n"
    up_to_date = ", ".join(sorted([*heads(built_in()), "devices_0002"]))
    assert run(tmp_path, "migrate", "--check", *app).stdout == f"The database is up to date ({up_to_date}).\n"
    ended = run(tmp_path, "migrate")
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert "the feature 'devices' (devices_0002), which is not in features" in ended.stderr
    assert run(tmp_path, "migrate", ROUTEGUARD_DATABASE_OTHER_FEATURES="devices").returncode == 0


@pytest.mark.parametrize("app", ["outside", ":guard", "nowhere:guard", "outside:nothing", "outside:devices"])
def test_an_application_that_is_not_there_is_a_finding(tmp_path: Path, app: str) -> None:
    write(tmp_path / "devices", "devices")
    (tmp_path / "outside.py").write_text(MODULE)
    ended = run(tmp_path, "migrate", "--app", app)
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert f"--app {app}" in ended.stderr.replace("'", "")


def test_the_common_branch_is_closed() -> None:
    """Side by side, two changes would both write its next number: each goes into the branch of its feature."""
    assert COMMON.revisions() == ["0001", "0002", "0003", "0004"]


def test_every_built_in_branch_is_of_a_feature() -> None:
    declared = {feature.name: feature.migrations for feature in defaults() if feature.migrations is not None}
    assert {branch.name: branch.folder for branch in built_in() if branch != COMMON} == declared
    assert branches_of(defaults()) == []


def test_the_hooks_hide_the_tables_of_a_feature(devices: Feature) -> None:
    others = branches_of([devices])[0].tables
    for names in (Names(), Names("auth_"), Names(""), Names("", "identity")):
        ours, parents = names.including(others), {"schema_name": names.schema or None}
        assert names.include_name(names.table("devices"), "table", parents)
        assert not ours.include_name(names.table("devices"), "table", parents)
        assert not ours.include_name(names.table("users"), "table", parents)
        assert ours.include_name("devices_of_theirs", "table", parents)
    assert Names("x_").including(others).rewrite("routeguard_devices, routeguard_own") == "x_devices, routeguard_own"
    with pytest.raises(ConfigError, match="begins like the table routeguard_devices"):
        Names("routeguard_devices_").including(others)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"migrations": None}, "has tables and no migrations="),
        ({"name": "devices-2"}, "its name must be at most 27 of a to z"),
        ({"name": "d" * 28}, "its name must be at most 27 of a to z"),
        ({"migrations": Path("/nowhere")}, "no file is called 0001_"),
        ({"tables": (sa.Table("routeguard_x", sa.MetaData()),)}, "must be in routeguard.records.metadata"),
        ({"tables": (sa.Table("devices", sa.MetaData()),)}, "must be called routeguard_"),
        ({"tables": (sa.Table("routeguard_users", sa.MetaData()),)}, "must be called routeguard_"),
        ({"tables": (sa.Table("routeguard_version", sa.MetaData()),)}, "must be called routeguard_"),
    ],
)
def test_a_feature_whose_tables_cannot_be_made_is_a_finding(
    devices: Feature, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Routeguard(Settings(issuer="http://localhost:8000"), features=[*defaults(), replace(devices, **change)])


def test_two_features_cannot_have_one_branch_or_table(devices: Feature) -> None:
    with pytest.raises(ConfigError, match="two features with migrations are called 'devices'"):
        branches_of([devices, devices])
    assert devices.migrations is not None
    other = replace(devices, name="other", migrations=write(devices.migrations.parent / "other", "other"))
    with pytest.raises(ConfigError, match="the table routeguard_devices is of several features: devices, other"):
        branches_of([devices, other])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"devices_0002"', '"devices_two"', "revision 'devices_0002' with down_revision 'devices_0001' is expected"),
        ('down_revision = "devices_0001"', "down_revision = None", "with down_revision 'devices_0001' is expected"),
        ('("devices",)', "None", r"devices_0001 must have branch_labels = \('devices',\)"),
        ('("devices",)', '("other",)', r"devices_0001 must have branch_labels = \('devices',\)"),
        ("depends_on = '0001'", 'depends_on = "devices_0002"', "cannot be put in an order"),
    ],
)
async def test_revisions_that_make_no_line_are_a_finding(
    empty: Database, devices: Feature, old: str, new: str, words: str
) -> None:
    assert devices.migrations is not None
    for file in devices.migrations.iterdir():
        file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=words):
        await migrate(empty, branches_of([devices]))
    assert await current_heads(empty) == set()


def test_a_number_that_is_left_out_is_a_finding(devices: Feature) -> None:
    assert devices.migrations is not None
    (devices.migrations / "0002_step.py").rename(devices.migrations / "0003_step.py")
    with pytest.raises(ConfigError, match="not numbered one by one"):
        branches_of([devices])
    assert "devices" not in TABLES
