"""Our tables beside an application's: under any prefix, in any schema, and taken over from before there was one."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from routeguard.core.clock import SystemClock
from routeguard.core.errors import ConfigError, Misconfigured
from routeguard.foundation.db.branches import built_in, heads
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import current_heads, migrate, pending, require_current
from routeguard.foundation.db.models import DatabaseSettings
from routeguard.foundation.db.names import DEFAULT_PREFIX, TABLES, Names
from routeguard.foundation.db.schema import metadata
from tests.backends import PostgresServer
from tests.passwords.world import GOOD, PATIENT, World

COVERS = ("foundation/db/names", "foundation/db/rewriting", "foundation/db/schema")

pytestmark = pytest.mark.anyio

_FORMER = Path(__file__).parent / "unprefixed"
OWN = ("users", "sessions", "clients", "outbox")
"""Names that an application has as often as not."""


_EVERYTHING = """
SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname !~ '^(pg_|information_schema)'
UNION SELECT conname FROM pg_constraint JOIN pg_namespace n ON n.oid = connamespace
WHERE nspname !~ '^(pg_|information_schema)' AND contype <> 'n'
"""
"""But for constraints NOT NULL, which PostgreSQL names, and cuts off, by itself."""


def settings(prefix: str = DEFAULT_PREFIX, schema: str = "") -> DatabaseSettings:
    return DatabaseSettings(
        timeout=PATIENT.timeout, statement_timeout=PATIENT.statement_timeout, table_prefix=prefix, schema=schema
    )


PLACES = {
    "as it is": ("sqlite", settings()),
    "another prefix": ("sqlite", settings("auth_")),
    "a prefix that begins like ours": ("sqlite", settings("routeguard_auth_")),
    "no prefix": ("sqlite", settings("")),
    "postgresql as it is": ("postgresql", settings()),
    "postgresql, another prefix": ("postgresql", settings("auth_")),
    "postgresql, the longest prefix": ("postgresql", settings("a" * 30)),
    "postgresql, no prefix": ("postgresql", settings("")),
    "a schema": ("postgresql", settings(schema="identity")),
    "a schema, another prefix": ("postgresql", settings("auth_", "identity")),
    "a schema, no prefix": ("postgresql", settings("", "identity")),
}


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """An empty database, with the schema that is to be used."""
    kind, chosen = PLACES[request.param]
    url: str = request.getfixturevalue(f"empty_{kind}_url")
    database = Database(url, clock=SystemClock(), settings=chosen)
    await database.start()
    if chosen.schema:
        await execute(database, f"CREATE SCHEMA {chosen.schema}")
    yield database
    await database.close()


async def execute(database: Database, *texts: str) -> None:
    async with database.transaction() as tx:
        for text in texts:
            await tx.execute(sa.text(text))


def url_of(database: Database, request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"empty_{database.dialect}_url")
    return url


async def everything(database: Database) -> set[str]:
    """Return the names of all that is in the database: tables, indexes, constraints, sequences."""

    def work(connection: sa.Connection) -> set[str]:
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_schema").all()
            found = {name for name, _ in rows}
            return found.union(*(re.findall(r"CONSTRAINT (\w+)", text or "") for _, text in rows))
        rows = connection.exec_driver_sql(_EVERYTHING).all()
        return {name for (name,) in rows}

    return await database.run_sync(work)


def difference(names: Names) -> Any:
    """Return what Alembic finds different between the tables there are and those of the code."""
    wanted = sa.MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.tables.values():
        table.to_metadata(wanted, schema=names.schema or None)

    def compare(connection: sa.Connection) -> list[object]:
        options = {
            "include_object": lambda _o, name, kind, *_: not (kind == "table" and name in {names.version, names.lock}),
            "include_schemas": bool(names.schema),
            "include_name": lambda name, kind, _p: kind != "schema" or name == (names.schema or None),
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), wanted)

    return compare


async def works(database: Database, url: str) -> None:
    """Do a little of everything over HTTP."""
    async with World.open(url, database=database.settings) as world:
        async with world.signed_in("ada@example.com") as client:
            pair = (await client.post("/auth/token", json={})).json()
            again = await client.post("/auth/token/refresh", json={"refresh_token": pair["refresh_token"]})
            assert again.status_code == 200, again.text
            bearer = {"authorization": f"Bearer {again.json()['access_token']}"}
            assert (await world.client().get("/auth/session", headers=bearer)).status_code == 200
            made = await client.post("/auth/api-keys", json={"name": "robot"})
            assert made.status_code == 201
            verified = await world.post("api-keys/verify", {"key": made.json()["key"]})
            assert verified.status_code == 200
            await world.post("password/forgot", {"email": "ada@example.com"})
            await world.settle()
            token = world.mailbox.token("ada@example.com")
            assert (await world.post("password/reset", {"token": token, "password": GOOD + " 2"})).status_code == 204
            assert (await client.get("/auth/session")).status_code == 401
        assert (await world.sign_in("ada@example.com", GOOD + " 2")).status_code == 200


async def test_it_lives_beside_an_applications_tables(place: Database, request: pytest.FixtureRequest) -> None:
    """Issue: our tables were called users, sessions, clients, outbox, in the application's schema."""
    names = place.names
    beside = bool(names.prefix or names.schema)
    if beside:
        # Of the same names, and with an index of the name one of ours had.
        await execute(place, *(f"CREATE TABLE {name} (id integer PRIMARY KEY, role text)" for name in OWN))
        await execute(place, "CREATE INDEX users_by_role ON users (role)")
    before = await everything(place)
    await migrate(place)
    await require_current(place)
    made = await everything(place) - before
    own = re.compile(rf"((pk|uq|fk|ix)_)?{names.prefix or '(routeguard_|)'}({'|'.join(TABLES)}|version|migration_lock)")
    assert {name for name in made if not own.match(name) and not name.startswith("sqlite_")} == set()
    assert max(len(name) for name in made if not name.startswith("sqlite_")) <= 63
    await works(place, url_of(place, request))
    if beside:
        async with place.read() as tx:
            assert await tx.scalar(sa.text("SELECT count(*) FROM users")) == 0


@pytest.mark.parametrize("wanted", list(TABLES))
def test_every_table_of_the_code_is_known(wanted: str) -> None:
    assert f"{DEFAULT_PREFIX}{wanted}" in metadata.tables
    assert len(metadata.tables) == len(TABLES)


# -- from before there was a prefix --------------------------------------------------------------------------------


def former(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, _FORMER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ROWS = """
INSERT INTO users (id, email, email_key, name, email_verified, role, created_at)
VALUES ('usr_1', 'ada@example.com', 'ada@example.com', 'Ada', TRUE, 'user', 1.0);
INSERT INTO password_hashes (user_id, hash, changed_at) VALUES ('usr_1', '{hash}', 1.0);
INSERT INTO session_invalidations (subject, at) VALUES ('usr_1', 1.0), ('usr_2', 1.0), ('usr_3', 1.0);
DELETE FROM session_invalidations;
INSERT INTO one_time_tokens (user_id, purpose, token_hash, expires_at, data)
VALUES ('usr_1', 'x', '12345678901234567890123456789012', 1.0, '')
"""


async def make_former(database: Database, revision: str) -> None:
    """Make the database that a version without prefixes left behind."""
    from argon2 import PasswordHasher

    encoded = PasswordHasher(1, 64, 1).hash(GOOD)

    def work(connection: sa.Connection) -> None:
        # Statements of then name the tables of then.
        connection.execution_options(routeguard_verbatim=True, schema_translate_map={})
        with Operations.context(MigrationContext.configure(connection)):
            former("first_tables").upgrade()
            if revision >= "0002":
                former("tokens_and_keys").upgrade()
            if revision >= "0003":
                former("lasting_sessions").upgrade()
        connection.exec_driver_sql("CREATE TABLE routeguard_migration_lock (id integer PRIMARY KEY)")
        connection.exec_driver_sql(
            "CREATE TABLE routeguard_version (version_num VARCHAR(32) NOT NULL,"
            " CONSTRAINT routeguard_version_pkc PRIMARY KEY (version_num))"
        )
        connection.exec_driver_sql(f"INSERT INTO routeguard_version VALUES ('{revision}')")
        for text in ROWS.split(";"):
            connection.exec_driver_sql(text.replace("{hash}", encoded))

    await database.run_sync(work)


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
async def test_tables_without_a_prefix_are_taken_over(
    place: Database, request: pytest.FixtureRequest, revision: str
) -> None:
    names = place.names
    await make_former(place, revision)
    assert await current_heads(place) == {revision}
    assert {(await pending(place))[-1]} <= heads(built_in())
    with pytest.raises(ConfigError, match="routeguard migrate"):
        await require_current(place)
    await migrate(place)
    await require_current(place)
    present = await everything(place)
    if names.prefix:
        assert present.isdisjoint({*TABLES, "users_by_role", "ix_outbox_due", "session_invalidations_id_seq"})
    if names.prefix == DEFAULT_PREFIX:
        assert await place.run_sync(difference(names)) == []
        left = {name for name in present if not re.match(r"((pk|uq|fk|ix)_)?routeguard_|sqlite_", name)}
        assert left == set()
    # The numbers of invalidations go on: whoever polls asks for those after the last one seen (attack SES-17).
    async with place.transaction() as tx:
        table = metadata.tables["routeguard_session_invalidations"]
        number = await tx.scalar(sa.insert(table).values(subject="usr_1", at=1.0).returning(table.c.id))
        assert number == 4
    async with World.open(url_of(place, request), database=place.settings) as world:
        assert (await world.sign_in("ada@example.com")).status_code == 200
        async with place.read() as tx:
            assert await tx.scalar(sa.select(sa.func.count()).select_from(metadata.tables["routeguard_sessions"])) == 1


async def test_an_upgraded_database_is_like_a_new_one(empty_database_url: str) -> None:
    """Names and all, so that what a later migration finds does not depend on where it began."""
    database = Database(empty_database_url, clock=SystemClock(), settings=settings())
    await database.start()
    await make_former(database, "0003")
    await migrate(database)
    upgraded = await everything(database)
    tables = [f"DROP TABLE {table.name}" for table in reversed(metadata.sorted_tables)]
    await execute(database, *tables, "DROP TABLE routeguard_version", "DROP TABLE routeguard_migration_lock")
    await migrate(database)
    new = await everything(database)
    await database.close()
    # SQLite needs no table to lock; the one of this test came with the former database.
    assert {name for name in upgraded ^ new if "migration_lock" not in name} == set()


async def test_another_prefix_over_tables_of_the_default_one_is_noticed(empty_database_url: str) -> None:
    """An empty place is not what whoever changes the setting expects."""
    database = Database(empty_database_url, clock=SystemClock(), settings=settings())
    await database.start()
    await migrate(database)
    await database.close()
    other = Database(empty_database_url, clock=SystemClock(), settings=settings("auth_"))
    with pytest.raises(ConfigError, match=r"tables with the prefix routeguard_: is database\.table_prefix right"):
        await require_current(other)
    await other.close()


async def test_a_former_version_does_not_start_over_them(empty_database_url: str) -> None:
    """Its migrations end at 0003, and it takes what it does not know for missing."""
    database = Database(empty_database_url, clock=SystemClock(), settings=settings())
    await database.start()
    await migrate(database)
    assert (await current_heads(database)).isdisjoint({"0001", "0002", "0003"})
    await database.close()


# -- where there is no place ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TABLE", "VIEW"])
async def test_tables_of_others_are_a_finding(empty_database_url: str, kind: str) -> None:
    database = Database(empty_database_url, clock=SystemClock(), settings=settings(""))
    await database.start()
    await execute(
        database, "CREATE TABLE users (id integer)" if kind == "TABLE" else "CREATE VIEW users AS SELECT 1 AS id"
    )
    with pytest.raises(ConfigError, match=r"has users already.*table_prefix"):
        await migrate(database)
    await database.close()


async def test_an_index_of_others_is_a_finding(empty_postgresql_url: str) -> None:
    database = Database(empty_postgresql_url, clock=SystemClock(), settings=settings())
    await execute(database, "CREATE TABLE mine (id integer)", "CREATE INDEX routeguard_users_by_role ON mine (id)")
    with pytest.raises(ConfigError, match="exists already and is not ours"):
        await migrate(database)
    await database.close()


async def test_a_missing_schema_is_a_finding(empty_postgresql_url: str) -> None:
    database = Database(empty_postgresql_url, clock=SystemClock(), settings=settings(schema="nowhere"))
    for work in (migrate, require_current):
        with pytest.raises(ConfigError, match=r"'nowhere'.*CREATE SCHEMA nowhere"):
            await work(database)
    await database.close()


async def test_a_search_path_that_leads_nowhere_is_a_finding(empty_postgresql_url: str) -> None:
    url = empty_postgresql_url + "?options=-c%20search_path%3Dnowhere"
    database = Database(url, clock=SystemClock(), settings=settings())
    for work in (migrate, require_current):
        with pytest.raises(ConfigError, match="search_path"):
            await work(database)
    await database.close()


async def test_a_missing_right_is_a_finding(postgres_server: PostgresServer, empty_postgresql_url: str) -> None:
    postgres_server.execute("DROP ROLE IF EXISTS guest")
    postgres_server.execute("CREATE ROLE guest LOGIN")
    url = empty_postgresql_url.replace("postgres@", "guest@")
    database = Database(url, clock=SystemClock(), settings=settings())
    with pytest.raises(ConfigError, match="may not create or change"):
        await migrate(database)
    await database.close()
    owner = Database(empty_postgresql_url, clock=SystemClock(), settings=settings())
    await migrate(owner)
    await owner.close()
    # Made by their owner, and used by somebody who was given nothing.
    database = Database(url, clock=SystemClock(), settings=settings())
    with pytest.raises(Misconfigured, match="does not let the user"):
        async with database.read() as tx:
            await tx.execute(sa.select(metadata.tables["routeguard_users"]))
    await database.close()


async def test_tables_that_are_not_there_are_503(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever runs beside a migration that renames: never 500, and the log says what to do."""
    users = metadata.tables["routeguard_users"]
    hot = database.prepare(sa.select(users.c.id))
    await execute(database, "ALTER TABLE routeguard_users RENAME TO moved")
    for _ in range(2):
        with pytest.raises(Exception) as caught:
            await hot.one()
        assert isinstance(caught.value, Misconfigured) or "SQLITE_ERROR" in str(caught.value)
        with pytest.raises(Exception) as caught:
            async with database.read() as tx:
                await tx.execute(sa.select(users.c.id))
        assert isinstance(caught.value, Misconfigured) or "SQLITE_ERROR" in str(caught.value)
    if database.dialect == "postgresql":
        assert caplog.text.count("run `routeguard migrate`") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"table_prefix": "Auth_"},
        {"table_prefix": "1_"},
        {"table_prefix": "a" * 31},
        {"table_prefix": "routeguard_users_"},
        {"table_prefix": 'x"; '},
        {"schema": "Public"},
        {"schema": "a.b"},
        {"schema": "a" * 64},
    ],
)
def test_names_that_would_need_quotes_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"database.{next(iter(wrong))}"):
        DatabaseSettings(**wrong)  # type: ignore[arg-type]


def test_sqlite_has_no_schemas() -> None:
    with pytest.raises(ConfigError, match="schema"):
        Database("sqlite://", clock=SystemClock(), settings=settings(schema="identity"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT routeguard_users.id FROM routeguard_users", "SELECT x_users.id FROM x_users"),
        ('INSERT INTO "routeguard_sessions" VALUES (1)', 'INSERT INTO "x_sessions" VALUES (1)'),
        ("CONSTRAINT pk_routeguard_session_invalidations", "CONSTRAINT pk_x_session_invalidations"),
        ("CREATE INDEX ix_routeguard_outbox_due ON", "CREATE INDEX ix_x_outbox_due ON"),
        ("CREATE INDEX routeguard_api_keys_by_id ON", "CREATE INDEX x_api_keys_by_id ON"),
        # Of others, however they are called.
        ("SELECT * FROM my_routeguard_users", "SELECT * FROM my_routeguard_users"),
        ("SELECT * FROM routeguard_usersx", "SELECT * FROM routeguard_usersx"),
        ("SELECT * FROM routeguard_version", "SELECT * FROM routeguard_version"),
        ("SELECT routeguard_own FROM t", "SELECT routeguard_own FROM t"),
    ],
)
def test_only_names_of_ours_are_changed(text: str, expected: str) -> None:
    assert Names("x_").rewrite(text) == expected
    assert Names().rewrite(text) == text
