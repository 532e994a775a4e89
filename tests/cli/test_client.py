"""`routeguard client`: services are registered, given another secret, and revoked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from routeguard.foundation.signatures.keys import is_secret
from tests.cli.conftest import Command


@pytest.fixture
def ready(command: Command) -> Command:
    """The command line over a database with tables."""
    assert command("migrate").returncode == 0
    return command


def created(command: Command, name: str = "shop") -> tuple[str, str]:
    result = command("client", "create", name)
    assert result.returncode == 0, result.stderr
    match = re.fullmatch(r"id: {5}(cli_\S{22})\nsecret: (rgs_\S+)   \(shown this once\)\n", result.stdout)
    assert match is not None, result.stdout
    return match[1], match[2]


def test_a_client_is_made_listed_rotated_and_revoked(ready: Command, tmp_path: Path) -> None:
    client_id, secret = created(ready)
    assert is_secret(secret)
    (row,) = json.loads(ready("client", "list", "--format", "json").stdout)
    assert (row["id"], row["name"], row["old_secret_until"]) == (client_id, "shop", "")
    result = ready("client", "rotate", client_id)
    new = re.search(r"rgs_\S+", result.stdout)
    assert result.returncode == 0
    assert new is not None
    assert new[0] != secret
    assert "another 1d" in result.stdout
    assert json.loads(ready("client", "list", "--format", "json").stdout)[0]["old_secret_until"] != ""
    table = ready("client", "list").stdout
    assert client_id in table
    result = ready("client", "revoke", client_id)
    assert (result.returncode, result.stdout) == (0, f"{client_id} is revoked.\n")
    assert "no clients yet" in ready("client", "list").stdout
    # Shown once: nowhere in the database, whole or in its list.
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("routeguard.db*"))
    assert client_id.encode() in kept
    for one in (secret, new[0]):
        assert one.encode() not in kept
        assert one[4:].encode() not in kept


def test_a_rotation_without_overlap_ends_the_old_secret(ready: Command) -> None:
    client_id, _ = created(ready)
    assert "works no more" in ready("client", "rotate", client_id, "--overlap", "0").stdout
    assert json.loads(ready("client", "list", "--format", "json").stdout)[0]["old_secret_until"] == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("rotate", "cli_unknown"),
        ("revoke", "cli_unknown"),
        ("create", ""),
        ("create", "x" * 101),
        ("create", "a\nb"),
        ("rotate", "cli_unknown", "--overlap", "31d"),
        ("rotate", "cli_unknown", "--overlap", "soon"),
        ("create",),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_exits_2(ready: Command, arguments: tuple[str, ...]) -> None:
    result = ready("client", *arguments)
    assert result.returncode == 2
    assert "rgs_" not in result.stdout


def test_a_client_that_was_revoked_stays_revoked(ready: Command) -> None:
    client_id, _ = created(ready)
    assert ready("client", "revoke", client_id).returncode == 0
    assert ready("client", "revoke", client_id).returncode == 2
    assert ready("client", "rotate", client_id).returncode == 2


def test_a_name_that_is_taken_is_said(ready: Command) -> None:
    client_id, _ = created(ready)
    created(ready, "shop-2")
    said = ready("client", "create", "shop")
    assert said.returncode == 0
    assert f"Called the same already: {client_id}." in said.stdout
