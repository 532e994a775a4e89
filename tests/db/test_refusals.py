"""A store that refuses us is not away: said at start-up, by every command and in the log, and never with a password."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from routeguard.app import Routeguard
from routeguard.core.clock import SystemClock
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.secret import Secret
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.refusals import refusal_of
from routeguard.settings import Settings
from tests.backends import PostgresServer
from tests.cli.conftest import Command, command  # noqa: F401 - a fixture
from tests.ephemeral.server import ValkeyProcess
from tests.passwords.world import PATIENT, SECRET, World

COVERS = ("foundation/db/place",)

pytestmark = pytest.mark.anyio

CANARY = "canary-heron-7Yq2"
SAFE = {
    "ROUTEGUARD_SECRET": "wFq3vT9sKc7Zp1Xn5Bd8Rh2Lm6Yj4Ga0Ue",
    "ROUTEGUARD_ISSUER": "https://id.example.com",
    "ROUTEGUARD_MAIL_URL": "smtp://127.0.0.1:2525",
    "ROUTEGUARD_UNSAFE_MEMORY_IN_PRODUCTION": "true",
}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that trusts nobody but its owner; `ada` has a password, `cat` may not log in, `tls` needs TLS."""
    own = PostgresServer()
    own.execute("CREATE ROLE ada LOGIN PASSWORD 'right'")
    own.execute("CREATE ROLE cat")
    own.execute("CREATE DATABASE closed")
    own.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    rules = (
        "host all postgres,cat,ghost 127.0.0.1/32 trust",
        "host all ada 127.0.0.1/32 scram-sha-256",
        "hostssl all tls 127.0.0.1/32 trust",
    )
    (own._data / "pg_hba.conf").write_text("\n".join(rules) + "\n")
    own.execute("SELECT pg_reload_conf()")
    yield own
    own.close()


CASES = {
    "wrong password": (f"ada:{CANARY}", "postgres", "refuses the user or the password"),
    "no password": ("ada", "postgres", "wants a password"),
    "unknown role": ("ghost", "postgres", "knows no such user"),
    "a role that may not log in": ("cat", "postgres", "does not permit"),
    "no entry in pg_hba.conf": (f"eve:{CANARY}", "postgres", "pg_hba.conf"),
    "without TLS": ("tls", "postgres", "sslmode=require"),
    "unknown database": ("ada:right", "nowhere", "does not exist"),
    "a closed database": ("ada:right", "closed", "does not let"),
    "a server without TLS": ("ada:right", "postgres?sslmode=require", "has no TLS"),
    "an option nobody knows": ("ada:right", "postgres?options=-c%20no.such%3D1%20-c%20nosuch%3D1", "parameter"),
    "an sslmode nobody knows": ("ada:right", "postgres?sslmode=verifyfull", "sslmode"),
}


@pytest.mark.parametrize("case", CASES)
async def test_it_is_a_finding_at_start_up(server: PostgresServer, case: str, caplog: pytest.LogCaptureFixture) -> None:
    whom, database, said = CASES[case]
    guard = Routeguard(Settings(secret=SECRET, database_url=f"postgresql://{whom}@127.0.0.1:{server.port}/{database}"))
    with pytest.raises(ConfigError) as caught:
        await guard.start()
    assert said in str(caught.value)
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert CANARY not in str(caught.value) + caplog.text


@pytest.mark.parametrize("arguments", [("migrate",), ("migrate", "--check"), ("user", "list"), ("serve",)])
def test_commands_say_it_and_end_with_2(server: PostgresServer, command: Command, arguments: tuple[str, ...]) -> None:  # noqa: F811
    url = f"postgresql://ada:{CANARY}@127.0.0.1:{server.port}/postgres"
    ended = command(*arguments, ROUTEGUARD_DATABASE_URL=url, **SAFE)
    assert ended.returncode == 2
    assert "This cannot run:" in ended.stderr
    assert "refuses the user or the password" in ended.stderr
    assert "Not available" not in ended.stderr
    assert CANARY not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "url", ["postgresql://ada:can%ary@h/d", "postgresql://ada:canary@[::1/d", "postgresql://ada:canary@h/d?nonsense=1"]
)
def test_a_url_that_cannot_be_read_is_a_finding_without_its_parts(url: str) -> None:
    with pytest.raises(ConfigError, match="database_url cannot be read") as caught:
        Database(url, clock=SystemClock())
    assert "ary" not in str(caught.value)
    assert "nonsense" not in str(caught.value)


@pytest.fixture
async def world(server: PostgresServer) -> AsyncIterator[World]:
    from routeguard.foundation.db.migrate import migrate

    server.execute("DROP DATABASE IF EXISTS app WITH (FORCE)")
    server.execute("CREATE DATABASE app OWNER ada")
    url = f"postgresql://ada:right@127.0.0.1:{server.port}/app"
    database = Database(url, clock=SystemClock(), settings=PATIENT)
    await migrate(database)
    await database.close()
    async with World.open(url) as world:
        yield world


async def test_at_run_time_it_is_503_and_said_once(
    server: PostgresServer, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The password was changed there and not here, and is changed back."""
    await world.sign_up("ada@example.com")
    assert (await world.sign_in("ada@example.com")).status_code == 200
    server.execute(f"ALTER ROLE ada PASSWORD '{CANARY}'")
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ada'")
    caplog.set_level(logging.INFO)
    for _ in range(3):
        answer = await world.sign_in("ada@example.com")
        assert answer.status_code == 503
        assert "password" not in answer.text
    told = [record for record in caplog.records if "refuses the user or the password" in record.getMessage()]
    assert [record.levelname for record in told if record.name == "routeguard.db"] == ["ERROR"]
    assert CANARY not in caplog.text
    assert "right" not in "".join(record.getMessage() for record in told)
    server.execute("ALTER ROLE ada PASSWORD 'right'")
    assert (await world.sign_in("ada@example.com")).status_code == 200


async def test_an_outage_stays_an_outage(server: PostgresServer) -> None:
    """The twins: nobody listens, too many connections, starting up. Waiting mends them, so the service starts."""
    database = Database("postgresql://ada:right@127.0.0.1:1/app", clock=SystemClock())
    with pytest.raises(Unavailable) as caught:
        await database.ping()
    assert type(caught.value) is Unavailable
    await database.close()
    for text in (
        'connection failed: connection to server at "::1", port 5432 failed: FATAL:  sorry, too many clients already',
        "connection failed: FATAL:  the database system is starting up",
        "connection failed: FATAL:  the database system is shutting down",
        'connection failed: FATAL:  too many connections for role "ada"',
        "connection failed: FATAL:  terminating connection due to administrator command",
        "failed to resolve host 'db': [Errno -3] Temporary failure in name resolution",
        'connection failed: connection to server at "10.0.0.9", port 5432 failed: session is read-only',
        "consuming input failed: server closed the connection unexpectedly",
    ):
        assert refusal_of(text) is None, text
    assert refusal_of(str(psycopg.OperationalError('FATAL:  password authentication failed for user "ada"')))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("no/such/folder/x.db", None, "cannot be opened"), ("text.db", b"not a database" * 100, "no SQLite database")],
)
async def test_a_sqlite_file_that_is_none(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    guard = Routeguard(Settings(secret=SECRET, database_url=f"sqlite:///{tmp_path / name}"))
    with pytest.raises(ConfigError, match=said):
        await guard.start()


@pytest.mark.parametrize(
    ("options", "user_info", "path", "said"),
    [
        (("--requirepass", "right"), f":{CANARY}@", "/0", "refuses the user or the password"),
        (("--requirepass", "right"), "", "/0", "wants a password"),
        ((), f":{CANARY}@", "/0", "has no password"),
        ((), "", "/99", "no database of the number"),
        (("--user", "reader", "on", ">right", "~*", "+@read", "+@connection"), "reader:right@", "/0", "does not let"),
        ((), "", "/0?cluster=1", "is no cluster"),
        (("--cluster-enabled", "yes", "--cluster-config-file", "/dev/null"), "", "/0", "is one server of a cluster"),
    ],
)
async def test_a_valkey_that_refuses_us_is_a_finding(
    sqlite_url: str,
    tmp_path: Path,
    options: tuple[str, ...],
    user_info: str,
    path: str,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if "/dev/null" in options:
        options = (*options[:-1], str(tmp_path / "nodes.conf"))
    valkey = ValkeyProcess(*options)
    valkey.start()
    try:
        url = f"redis://{user_info}127.0.0.1:{valkey.port}{path}"
        guard = Routeguard(Settings(secret=Secret(bytes(range(32))), database_url=sqlite_url, ephemeral_url=url))
        with pytest.raises(ConfigError, match=said) as caught:
            await guard.start()
        assert CANARY not in str(caught.value) + caplog.text
    finally:
        valkey.stop()
