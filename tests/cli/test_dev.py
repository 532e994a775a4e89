"""`routeguard dev`: where it writes its demonstration users, and where it refuses to."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import httpx2 as httpx
import pytest

from routeguard.cli.dev import OWN_DATABASE, configured_settings, development_settings
from routeguard.cli.seed import prepare
from routeguard.cli.server import listen
from routeguard.core.clock import SystemClock
from routeguard.example.origin import claim, require_own
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.migrate import migrate
from routeguard.settings import Settings
from tests.backends import PostgresServer, free_port
from tests.cli.conftest import Command
from tests.servers import running

COVERS = ("cli/seed", "cli/server")

PASSWORD = "plum tractor wobble seventeen"
PORT = ("dev", "--port", "0")
OWN = "routeguard-dev.db"
DEMONSTRATION = {f"{name}@example.com" for name in ("admin", "moderator", "alice", "bob")}


def emails(path: Path) -> set[str]:
    """Return the addresses in a SQLite database of ours, whatever its table of users is called."""
    with sqlite3.connect(path) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        (users,) = [name for name in names if name.removeprefix("routeguard_") == "users"]
        return {row[0] for row in connection.execute(f"SELECT email FROM {users}")}


def prepared(database_url: str = OWN_DATABASE) -> list[str]:
    """Do what `dev` does before it serves; return the addresses of the users it made."""
    settings = development_settings(configured_settings(), "127.0.0.1", 8000, database_url=database_url)
    return [one.email for one in asyncio.run(prepare(settings))]


def owned(command: Command, url: str) -> dict[str, str]:
    """Fill a database of an application with its one user."""
    values = {"ROUTEGUARD_DATABASE_URL": url}
    assert command("migrate", **values).returncode == 0
    made = command("user", "create", "owner@example.com", "--password-stdin", stdin=PASSWORD + "\n", **values)
    assert made.returncode == 0, made.stderr
    return values


@pytest.mark.parametrize("given", ["environment", "pyproject"])
def test_dev_leaves_the_configured_database_alone(command: Command, tmp_path: Path, given: str) -> None:
    values = owned(command, "sqlite:///app.db")
    if given == "pyproject":
        (tmp_path / "pyproject.toml").write_text('[tool.routeguard]\ndatabase_url = "sqlite:///app.db"\n')
        values = {}
    with running(tmp_path, *PORT, **values) as server:
        assert "Not used by dev: database_url" in server.output()
        owner = {"email": "owner@example.com", "password": PASSWORD}
        assert httpx.post(server.url + "/auth/sign-in", json=owner).status_code == 401
    assert emails(tmp_path / "app.db") == {"owner@example.com"}
    assert emails(tmp_path / OWN) == DEMONSTRATION


def test_dev_leaves_the_default_database_of_an_application_alone(command: Command, tmp_path: Path) -> None:
    assert set(prepared()) == DEMONSTRATION
    assert not (tmp_path / "routeguard.db").exists()
    # And what the application makes beside it is no obstacle.
    owned(command, "sqlite:///routeguard.db")
    assert prepared() == []
    assert emails(tmp_path / "routeguard.db") == {"owner@example.com"}


@pytest.mark.usefixtures("command")
def test_dev_runs_again_over_users_who_signed_up(tmp_path: Path) -> None:
    person = {"email": "new@example.com", "password": PASSWORD, "name": "New"}
    with running(tmp_path, *PORT) as server:
        assert httpx.post(server.url + "/auth/sign-up", json=person).status_code == 201
    assert prepared() == []
    assert emails(tmp_path / OWN) == {"new@example.com", *DEMONSTRATION}


@pytest.mark.usefixtures("command")
def test_dev_takes_another_database_when_told(tmp_path: Path) -> None:
    assert set(prepared("sqlite:///other.db")) == DEMONSTRATION
    assert prepared("sqlite:///other.db") == []
    assert not (tmp_path / OWN).exists()


@pytest.mark.parametrize("name", ["app.db", OWN])
def test_dev_refuses_a_database_of_other_users(command: Command, tmp_path: Path, name: str) -> None:
    owned(command, f"sqlite:///{name}")
    ended = command(*PORT, "--database-url", f"sqlite:///{name}")
    assert ended.returncode == 2
    assert "users that the example did not make" in ended.stderr
    assert emails(tmp_path / name) == {"owner@example.com"}


def test_dev_refuses_an_application_s_database_and_writes_nothing(command: Command, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("CREATE TABLE orders (id integer)")
    ended = command(*PORT, "--database-url", "sqlite:///app.db")
    assert ended.returncode == 2
    assert "tables that are not the example's" in ended.stderr
    with sqlite3.connect(tmp_path / "app.db") as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["orders"]


def test_dev_on_postgresql_only_when_told_and_only_where_nobody_is(
    command: Command, postgres_server: PostgresServer
) -> None:
    empty, taken = postgres_server.create(), postgres_server.create()
    assert set(prepared(empty)) == DEMONSTRATION
    assert prepared(empty) == []
    values = owned(command, taken)
    assert command(*PORT, "--database-url", taken).returncode == 2
    listed = command("user", "list", "--format", "json", **values)
    assert [one["email"] for one in json.loads(listed.stdout)] == ["owner@example.com"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ROUTEGUARD_ISSUER": "https://id.example.com"}, ["ROUTEGUARD_ISSUER", "https://id.example.com"]),
        ({"ROUTEGUARD_ISSUER": "https://127.0.0.1:8000"}, ["not http on this machine"]),
        ({"ROUTEGUARD_ISSUER": "http://id.example.com"}, ["not http on this machine"]),
        ({"ROUTEGUARD_ENVIRONMENT": "production"}, ["environment is 'production'"]),
        ({"ROUTEGUARD_ENVIRONMENT": "test"}, ["environment is 'test'"]),
        (
            {"ROUTEGUARD_ENVIRONMENT": "production", "ROUTEGUARD_ISSUER": "https://id.example.com"},
            ["environment is 'production'", "https://id.example.com"],
        ),
    ],
)
def test_dev_refuses_production_settings(
    command: Command, tmp_path: Path, values: dict[str, str], words: list[str]
) -> None:
    ended = command(*PORT, **values)
    assert ended.returncode == 2
    for word in [*words, "routeguard serve"]:
        assert word in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_dev_refuses_an_address_at_which_nobody_stays_signed_in(command: Command, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # An address of another interface, which this machine need not have.
        patch.setattr("routeguard.cli.dev.listen", lambda _host, port: listen("127.0.0.1", port))
        ended = command(*PORT, "--host", "192.168.1.5")
    assert ended.returncode == 2
    assert "browsers would drop the session cookie" in ended.stderr
    assert not (tmp_path / OWN).exists()


def test_the_environment_overrides_production_settings_of_a_project(command: Command, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.routeguard]\nissuer = "https://id.example.com"\n')
    assert command(*PORT).returncode == 2
    port = free_port()
    local = {"ROUTEGUARD_ISSUER": f"http://127.0.0.1:{port}"}
    with running(tmp_path, "dev", "--port", str(port), **local) as server:
        assert set(server.passwords) == DEMONSTRATION


def test_dev_neither_mails_nor_signs_with_what_is_configured(tmp_path: Path) -> None:
    values = {
        "ROUTEGUARD_MAIL_URL": "smtp://127.0.0.1:1",
        "ROUTEGUARD_EPHEMERAL_URL": "valkey://127.0.0.1:1",
        "ROUTEGUARD_SECRET": "wFq3vT9sKc7Zp1Xn5Bd8Rh2Lm6Yj4Ga0Ue",
        "ROUTEGUARD_DATABASE_URL": "postgresql://u:hidden-word@127.0.0.1:1/none",
    }
    with running(tmp_path, *PORT, **values) as server:
        assert httpx.get(server.url + "/readyz").status_code == 200
        for name in ("mail.url", "ephemeral_url", "secret", "database_url"):
            assert name in server.output()
        assert "hidden-word" not in server.output()
        assert "wFq3vT9s" not in server.output()
        assert (tmp_path / ".routeguard" / "secret").exists()


def test_dev_says_what_works_at_which_address(tmp_path: Path) -> None:
    with running(tmp_path, *PORT, "--host", "0.0.0.0") as server:
        said, port = server.output(), server.url.rpartition(":")[2]
        assert "every machine that reaches this one" in said
        here = [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]
        assert f"signing in works at {' and '.join(here)}. At any other address pages open" in said
        account = {"email": "alice@example.com", "password": server.passwords["alice@example.com"]}
        for origin in here:
            sent = httpx.post(server.url + "/auth/sign-in", json=account, headers={"origin": origin})
            assert sent.status_code == 200
        # The same server by another of its addresses.
        other = f"http://127.0.0.2:{port}"
        assert httpx.get(other + "/auth/sign-in").status_code == 200
        assert httpx.post(other + "/auth/sign-in", json=account, headers={"origin": other}).status_code == 403
        assert httpx.post(other + "/auth/sign-in", json=account).status_code == 200


def test_dev_does_not_go_by_an_issuer_of_another_port(tmp_path: Path) -> None:
    """A variable that is still set for another application would be where forms have to come from."""
    stale = f"http://127.0.0.1:{free_port()}"
    with running(tmp_path, *PORT, ROUTEGUARD_ISSUER=stale) as server:
        assert server.url != stale
        assert f"Not used by dev: issuer {stale} (environment ROUTEGUARD_ISSUER)" in server.output()
        account = {"email": "alice@example.com", "password": server.passwords["alice@example.com"]}
        sent = httpx.post(server.url + "/auth/sign-in", json=account, headers={"origin": server.url})
        assert sent.status_code == 200


@pytest.mark.parametrize(
    ("issuer", "host", "used"),
    [
        ("http://localhost:8000", "127.0.0.1", True),
        ("http://app.localhost:8000", "127.0.0.1", True),
        ("http://app.localhost:8000", "0.0.0.0", True),
        ("http://app.localhost:8000", "::", True),
        ("http://127.0.0.1:8000", "localhost", True),
        ("http://127.0.0.2:8000", "0.0.0.0", True),
        ("http://[::1]:8000", "::1", True),
        ("http://[::1]:8000", "::", True),
        ("http://[::1]:8000", "0.0.0.0", False),
        ("http://127.0.0.2:8000", "127.0.0.1", False),
        ("http://localhost:9000", "127.0.0.1", False),
        ("http://localhost", "127.0.0.1", False),
        ("http://localhost:8000", "192.168.1.5", False),
    ],
)
@pytest.mark.usefixtures("command")
def test_dev_goes_by_a_configured_issuer_that_leads_to_it(issuer: str, host: str, used: bool) -> None:
    configured = Settings.load(environ={"ROUTEGUARD_ISSUER": issuer})
    assert (development_settings(configured, host, 8000).issuer == issuer) is used


@pytest.mark.anyio
async def test_two_that_start_at_once_share_the_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'dev.db'}"
    ones = [Database(url, clock=SystemClock()) for _ in range(4)]
    for one in ones:
        await one.start()
    await asyncio.gather(*map(require_own, ones))
    await asyncio.gather(*map(migrate, ones))
    await asyncio.gather(*map(claim, ones))
    await asyncio.gather(*map(require_own, ones))
    for one in ones:
        await one.close()
