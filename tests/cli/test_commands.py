"""Each command as a process: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.cli.conftest import Command
from tests.servers import run, running

COVERS = ("cli/accounts", "cli/main", "cli/migrate", "cli/serve", "cli/user")

SECRET = "wFq3vT9sKc7Zp1Xn5Bd8Rh2Lm6Yj4Ga0Ue"
PASSWORD = "plum tractor wobble seventeen"
SAFE = {
    "ROUTEGUARD_SECRET": SECRET,
    "ROUTEGUARD_ISSUER": "https://id.example.com",
    "ROUTEGUARD_MAIL_URL": "smtp://user:pass-of-mail@127.0.0.1:2525",
}


def test_dev_serves_a_newcomer_over_http(tmp_path: Path) -> None:
    with (
        running(tmp_path, "dev", "--port", "0") as server,
        httpx.Client(base_url=server.url, headers={"origin": server.url}) as client,
    ):
        assert set(server.passwords) == {f"{name}@example.com" for name in ("admin", "moderator", "alice", "bob")}
        person = {"email": "new@example.com", "password": PASSWORD, "name": "New"}
        assert client.post("/auth/sign-up", json=person).status_code == 201
        assert client.get("/api/me").status_code == 401
        del person["name"]
        assert client.post("/auth/sign-in", json=person).status_code == 200
        assert client.get("/api/me").json()["email"] == "new@example.com"
        assert client.get("/api/admin/report").status_code == 403
        assert "server" not in client.get("/").headers
        moderator = {"email": "moderator@example.com", "password": server.passwords["moderator@example.com"]}
        assert client.post("/auth/sign-in", json=moderator).status_code == 200
        assert client.get("/api/admin/report").json()["users"] == 5

    secret = tmp_path / ".routeguard" / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    files = list(tmp_path.glob("routeguard-dev.db*"))
    assert files
    for kept_file in files:
        assert stat.S_IMODE(kept_file.stat().st_mode) == 0o600, kept_file
    # Passwords were printed; nowhere else are they.
    kept = b"".join(path.read_bytes() for path in files)
    assert all(password.encode() not in kept for password in server.passwords.values())


def test_dev_keeps_what_it_made(tmp_path: Path) -> None:
    with running(tmp_path, "dev", "--port", "0") as first:
        passwords = first.passwords
    with running(tmp_path, "dev", "--port", "0") as second:
        assert second.passwords == {}
        alice = {"email": "alice@example.com", "password": passwords["alice@example.com"]}
        assert httpx.post(second.url + "/auth/sign-in", json=alice).status_code == 200


def test_dev_says_that_a_port_is_taken(tmp_path: Path) -> None:
    with running(tmp_path, "dev", "--port", "0") as server:
        other = run(tmp_path, "dev", "--port", server.url.rpartition(":")[2])
    assert other.returncode == 2
    assert "cannot be listened on" in other.stderr
    assert "--port" in other.stderr
    assert "Traceback" not in other.stderr


def test_serve_lists_every_unsafe_setting_and_does_not_start(tmp_path: Path) -> None:
    ended = run(tmp_path, "serve", "--port", "0", ROUTEGUARD_DATABASE_URL="sqlite://")
    assert ended.returncode == 2
    for word in ("secret is missing", "issuer must be https", "database_url keeps", "mail.url prints"):
        assert word in ended.stderr
    for way in ("secrets.token_urlsafe(48)", "ROUTEGUARD_ENVIRONMENT=development"):
        assert way in ended.stderr
    assert "Traceback" not in ended.stderr


def test_serve_does_not_start_in_test_mode(command: Command) -> None:
    # Attack OPS-11: in test mode, code decides who is calling, without a credential.
    ended = command("serve", "--port", "0", ROUTEGUARD_ENVIRONMENT="test")
    assert ended.returncode == 2
    assert "environment is 'test' (environment ROUTEGUARD_ENVIRONMENT), and serve is no test" in ended.stderr
    shown = command("config", "show", "--format", "json", ROUTEGUARD_ENVIRONMENT="test")
    assert {"setting": "environment", "value": "test", "source": "environment ROUTEGUARD_ENVIRONMENT"} in (
        json.loads(shown.stdout)["settings"]
    )


def test_serve_lists_what_is_wrong_with_values_names_files_and_arguments_too(command: Command) -> None:
    wrong = {"ROUTEGUARD_ISUER": "x", "ROUTEGUARD_BODY_LIMIT": "much", "ROUTEGUARD_SESSIONS_IDLE": "-1d"}
    ended = command("serve", "--drain", "2h", "--tls-certificate", "none.pem", "--tls-key", "none.pem", **wrong)
    assert ended.returncode == 2
    for word in (*wrong, "secret is missing", "mail.url prints", "--drain", "none.pem"):
        assert word in ended.stderr


def test_config_show_judges_the_kept_secret(command: Command, tmp_path: Path) -> None:
    assert command("config", "show").returncode == 0
    assert not (tmp_path / ".routeguard").exists()
    (tmp_path / ".routeguard").mkdir()
    (tmp_path / ".routeguard" / "secret").write_text("short")
    ended = command("config", "show")
    assert ended.returncode == 1
    assert ".routeguard/secret" in ended.stderr


def test_serve_asks_for_the_schema_first_and_then_runs(tmp_path: Path) -> None:
    refused = run(tmp_path, "serve", "--port", "0", **SAFE)
    assert refused.returncode == 2
    assert "routeguard migrate" in refused.stderr
    assert run(tmp_path, "migrate", "--check", **SAFE).returncode == 1
    assert run(tmp_path, "migrate", **SAFE).returncode == 0
    assert run(tmp_path, "migrate", "--check", **SAFE).returncode == 0
    with running(tmp_path, "serve", "--port", "0", **SAFE) as server:
        assert httpx.get(server.url + "/auth/session").status_code == 401
        assert httpx.get(server.url + "/auth/sign-in").status_code == 200
        assert httpx.get(server.url + "/api/me").status_code == 404
        assert httpx.get(server.url + "/readyz").status_code == 200
        # Nobody sees a token of a mailed link in the log.
        httpx.get(server.url + "/auth/password/reset?token=token-of-a-mail")
        assert "token-of-a-mail" not in server.output()


@pytest.mark.usefixtures("sqlite_url")
def test_users_are_made_listed_disabled_and_enabled(command: Command) -> None:
    made = command("user", "create", "root@example.com", "--name", "Root", "--role", "admin")
    assert made.returncode == 0
    shown = dict(line.split(": ", 1) for line in made.stdout.splitlines())
    user_id, password = shown["id"].strip(), shown["password"].split()[0]
    assert user_id.startswith("usr_")
    assert shown["role"].strip() == "admin"
    other = command("user", "create", "eve@example.com", "--password-stdin", stdin=PASSWORD + "\n")
    assert other.returncode == 0
    assert PASSWORD not in other.stdout
    assert command("user", "create", "ROOT@example.com").returncode == 2
    for email in ("=?utf-8?q?e=40attacker.com?=@victim.com", "e%attacker.com@victim.com", "ada@localhost"):
        refused = command("user", "create", email)
        assert refused.returncode == 2
        assert "not an e-mail address" in refused.stderr

    disabled = command("user", "disable", "eve@example.com")
    assert disabled.returncode == 0
    assert disabled.stdout.startswith("eve@example.com (usr_")
    assert "is disabled" in disabled.stdout
    assert command("user", "disable", user_id).returncode == 2  # the last admin
    listed = json.loads(command("user", "list", "--format", "json").stdout)
    assert {one["email"]: one["disabled"] for one in listed} == {"root@example.com": False, "eve@example.com": True}
    assert command("user", "enable", "eve@example.com").returncode == 0
    assert command("user", "disable", "nobody@example.com").returncode == 2
    assert "root@example.com" in command("user", "list").stdout
    assert password


def test_roles_and_passwords_are_changed_by_hand(command: Command) -> None:
    forgotten = command("user", "list")
    assert forgotten.returncode == 2
    assert re.search("the database lacks 0001.*: run `routeguard migrate`", forgotten.stderr)
    assert command("migrate").returncode == 0
    assert "no users yet" in command("user", "list").stdout
    assert command("user", "create", "eve@example.com").returncode == 0
    changed = command("user", "role", "eve@example.com", "moderator")
    assert changed.returncode == 0
    assert "has the role moderator; before, user" in changed.stdout
    wrong = command("user", "role", "eve@example.com", "king")
    assert wrong.returncode == 2
    assert "user, moderator, admin" in wrong.stderr
    assert command("user", "password", "eve@example.com", stdin="short\n").returncode == 2
    other = command("user", "password", "eve@example.com", stdin=PASSWORD + "\n")
    assert other.returncode == 0
    assert "sessions ended: 0" in other.stdout
    assert PASSWORD not in other.stdout + other.stderr
    assert command("user", "password", "nobody@example.com", stdin=PASSWORD + "\n").returncode == 2


@pytest.mark.usefixtures("sqlite_url")
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("user", "create", "nonsense"), "e-mail"),
        (("user", "create", "a@example.com", "--role", "king"), "role"),
        (("user", "create", "a@example.com", "--password-stdin"), "characters"),
    ],
)
def test_a_bad_user_is_refused_in_words(command: Command, arguments: tuple[str, ...], word: str) -> None:
    ended = command(*arguments, stdin="short\n")
    assert ended.returncode == 2
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_config_show_says_where_values_come_from_and_hides_secrets(command: Command, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.routeguard.sessions]\nidle = '2d'\n")
    values = SAFE | {"ROUTEGUARD_DATABASE_URL": "postgresql://app:pass-of-db@db/app?password=pass-of-query"}
    values["ROUTEGUARD_EPHEMERAL_URL"] = "valkey://cache:6379"
    shown = ""
    for style in ("table", "json"):
        ended = command("config", "show", "--format", style, **values)
        assert ended.returncode == 0, ended.stderr
        shown = ended.stdout
        for secret in (SECRET, "pass-of-mail", "pass-of-db", "pass-of-query"):
            assert secret not in ended.stdout + ended.stderr
    rows = {row["setting"]: row for row in json.loads(shown)["settings"]}
    assert rows["sessions.idle"] == {"setting": "sessions.idle", "value": "2d", "source": "pyproject.toml"}
    assert rows["issuer"]["source"] == "environment ROUTEGUARD_ISSUER"
    assert rows["database_url"]["value"] == "postgresql://(hidden)@db/app?password=(hidden)"
    assert rows["body_limit"]["source"] == "default"
    assert rows["secret"]["value"] == "(hidden)"


@pytest.mark.parametrize("arguments", [("nonsense",), ("dev", "--port", "x"), ("user", "create"), ("dev", "--nope")])
def test_what_cannot_be_understood_ends_with_2(command: Command, arguments: tuple[str, ...]) -> None:
    assert command(*arguments).returncode == 2


def test_a_misspelt_variable_ends_with_2_and_is_named(command: Command) -> None:
    ended = command("migrate", ROUTEGUARD_ISUER="https://x.example")
    assert ended.returncode == 2
    assert "ROUTEGUARD_ISUER" in ended.stderr


def test_config_shows_what_it_can_with_all_that_is_wrong(command: Command) -> None:
    wrong = {"ROUTEGUARD_ISUER": "x", "ROUTEGUARD_BODY_LIMIT": "much", "ROUTEGUARD_ISSUER": "https://id.example.com"}
    ended = command("config", "show", **wrong)
    assert ended.returncode == 1
    for word in ("ROUTEGUARD_ISUER", "ROUTEGUARD_BODY_LIMIT", "secret is missing", "mail.url prints"):
        assert word in ended.stderr
    assert "https://id.example.com" in ended.stdout
    nowhere = {"ROUTEGUARD_DATABASE_URL": "mysql://db/x", "ROUTEGUARD_EPHEMERAL_URL": "http://x"}
    nowhere["ROUTEGUARD_MAIL_URL"] = "x"
    ended = command("config", "show", **nowhere, ROUTEGUARD_TLS_CERTIFICATE="none.pem", ROUTEGUARD_TLS_KEY="none.pem")
    assert ended.returncode == 1
    for word in ("database_url must begin", "ephemeral_url", "mail.url must be", "none.pem"):
        assert word in ended.stderr
    assert "mysql://db/x" in ended.stdout
    plain = command("config", "show")
    assert plain.returncode == 0
    for word in ("development", "generated", "1 MB", "Production would refuse:", "secret is missing"):
        assert word in plain.stdout


def test_a_database_that_is_away_is_said_in_words(command: Command) -> None:
    ended = command("migrate", ROUTEGUARD_DATABASE_URL="postgresql://u:hidden-word@127.0.0.1:1/none")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "hidden-word" not in ended.stderr


def test_key_rotate(command: Command) -> None:
    assert command("migrate").returncode == 0
    made = command("key", "rotate")
    assert made.returncode == 0
    waiting, signing = (line.split("  ") for line in made.stdout.splitlines())
    assert waiting[1] == signing[1] == "EdDSA"
    assert waiting[2].startswith("signs in ")
    assert signing[2] == "signs"
    # One that waits is enough.
    assert [line.split("  ")[0] for line in command("key", "rotate").stdout.splitlines()] == [waiting[0], signing[0]]
    (only,) = command("key", "rotate", "--now").stdout.splitlines()
    assert only.endswith("signs")
    assert only.split("  ")[0] not in {waiting[0], signing[0]}


@pytest.mark.parametrize("name", ["dev", "serve"])
@pytest.mark.parametrize("port", ["99999", "65536", "-1"])
def test_a_port_out_of_range_is_refused(command: Command, name: str, port: str) -> None:
    """Resolvers take 99999 for 34463, and the service would listen where nobody looks."""
    ended = command(name, f"--port={port}", **SAFE if name == "serve" else {})
    assert ended.returncode == 2
    assert f"the port must be a number from 1 to 65535, or 0 for a free one, and not {port}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ROUTEGUARD_ENVIRONMENT", "prod", "environment must be 'production', 'development' or 'test'"),
        ("ROUTEGUARD_ISSUER", "localhost:8000", "issuer 'localhost:8000' must be an origin"),
        ("ROUTEGUARD_TRUSTED_ORIGINS", "a.example", "trusted origin 'a.example'"),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("dev", "--port", "0"),
        ("serve", "--port", "0"),
        ("migrate",),
        ("migrate", "--check"),
        ("user", "list"),
        ("client", "list"),
        ("key", "rotate"),
        ("config", "show"),
    ],
)
def test_a_value_nothing_can_use_stops_every_command(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], name: str, value: str, words: str
) -> None:
    ended = command(*arguments, **{name: value})
    assert ended.returncode == (1 if arguments[0] == "config" else 2)
    said = [line for line in ended.stderr.splitlines() if line.startswith("  - ")]
    assert words in said[0]
    # The default of `serve` is production, whatever else is wrong; the others judge nothing that follows.
    assert len(said) == 1 or (arguments[0] == "serve" and name != "ROUTEGUARD_ENVIRONMENT")
    assert list(tmp_path.iterdir()) == []


def test_migrate_asks_for_nothing_that_only_serving_needs(command: Command) -> None:
    unsafe = {"ROUTEGUARD_ENVIRONMENT": "production"}
    assert command("migrate", **unsafe).returncode == 0
    for arguments in (("user", "list"), ("key", "rotate"), ("client", "list"), ("serve", "--port", "0")):
        assert "secret is missing" in command(*arguments, **unsafe).stderr
