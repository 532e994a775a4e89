"""What happened to accounts, sessions, tokens and keys is in the security log, and nothing secret with it."""

from __future__ import annotations

import json
import logging
import logging.config
import re
from collections.abc import Iterator
from typing import Any

import pytest

from routeguard.cli.server import logging_config
from routeguard.foundation.db.database import Database
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.service import Users
from tests.attacks.world import Browser, World

pytestmark = pytest.mark.anyio

PASSWORD = "a long enough passphrase, with \n a line"


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, event: str) -> list[dict[str, str]]:
        return [record.routeguard for record in self.records if record.routeguard["event"] == event]

    def one(self, event: str) -> dict[str, str]:
        [found] = self.of(event)
        return found


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines, logger = Lines(), logging.getLogger("routeguard.security")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(before)
    for record in lines.records:
        text = record.getMessage()
        assert "\n" not in text
        # No address, password, token or key: whoever reads the log can do nothing with it.
        assert not re.search(r"@|passphrase|eyJ|rg_[a-z]+_", text)


async def test_sign_up_is_told_and_names_nobody(guest: Browser, lines: Lines) -> None:
    body = {"email": "zoe@example.com", "password": PASSWORD, "name": "Zoe"}
    for _ in range(2):
        assert (await guest.post("/auth/sign-up", body)).status == 201
    made, repeated = lines.one("signed-up"), lines.one("sign-up-repeated")
    assert made["user"].startswith("usr_")
    assert made["path"] == "/auth/sign-up"
    assert made["request_id"].startswith("req_")
    assert repeated["subject"].startswith("sub_")
    assert "user" not in repeated


async def test_sessions_and_tokens_are_told(alice: Browser, world: World, lines: Lines) -> None:
    tokens = json.loads((await alice.post("/auth/token", {})).body)
    issued = lines.one("token-issued")
    assert issued["user"] == alice.id
    answer = await alice.post("/auth/token/refresh", {"refresh_token": tokens["refresh_token"]})
    assert answer.status == 200
    assert lines.one("token-refreshed")["session"] == issued["session"]
    assert (await alice.post("/auth/sign-out", {})).status == 204
    out = lines.one("signed-out")
    assert (out["user"], out["session"]) == (alice.id, issued["session"])
    assert lines.one("session-ended") | {"method": "", "path": ""} == {
        "event": "session-ended",
        "request_id": "-",
        "user": alice.id,
        "session": issued["session"],
        "reason": "sign-out",
        "method": "",
        "path": "",
    }
    again = await world.browser("alice")
    assert len(lines.of("signed-in")) == 1
    assert (await again.post("/auth/sign-out-everywhere", {})).status == 204
    assert lines.one("signed-out-everywhere")["user"] == alice.id
    assert lines.one("sessions-ended")["reason"] == "sign-out"


async def test_keys_are_told_by_their_id(alice: Browser, lines: Lines) -> None:
    assert (await alice.post("/auth/api-keys", {"name": "a\nsecurity: forged"})).status == 422
    made = json.loads((await alice.post("/auth/api-keys", {"name": "robot"})).body)
    name = f"/auth/api-keys/{made['id']}"
    assert (await alice.post(f"{name}/rotate", {})).status == 200
    assert (await alice.send("PATCH", name, {"name": "other"})).status == 200
    assert (await alice.ask("DELETE", name)).status == 204
    for event in ("created", "rotated", "updated", "revoked"):
        found = lines.one(f"api-key-{event}")
        assert (found["user"], found["key"]) == (alice.id, made["id"])
    assert lines.one("api-key-updated")["fields"] == "name"


async def test_changes_of_an_account_are_told_at_their_commit(bob: Browser, world: World, lines: Lines) -> None:
    users, database = world.guard.services.get(Users), world.guard.services.get(Database)
    address = read_email("bob.other@example.com")
    with pytest.raises(KeyError):
        async with database.transaction() as tx:
            await users.set_email(tx, bob.id, address)
            raise KeyError
    assert lines.records == []
    async with database.transaction() as tx:
        await users.set_email(tx, bob.id, address)
        await users.verify_email(tx, bob.id, address)
        await users.set_role(tx, bob.id, "moderator")
    assert [lines.one(event)["user"] for event in ("email-changed", "email-verified", "role-changed")] == [bob.id] * 3
    async with database.transaction() as tx:
        await users.set_role(tx, bob.id, "user")
        await users.set_email(tx, bob.id, read_email("bob@example.com"))


def test_times_have_date_and_offset(capsys: pytest.CaptureFixture[str]) -> None:
    """RFC 3339 section 5.6, in our lines and in uvicorn's."""
    config = logging_config()
    config["handlers"]["line"]["stream"] = "ext://sys.stdout"
    kept = {name: logging.getLogger(name) for name in config["loggers"]}
    before = {name: (one.handlers[:], one.level, one.propagate, one.filters[:]) for name, one in kept.items()}
    try:
        logging.config.dictConfig(config)
        for name in ("routeguard.security", "uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).warning("a line")
    finally:
        for name, (handlers, level, propagate, filters) in before.items():
            one = kept[name]
            one.handlers, one.propagate, one.filters = handlers, propagate, filters
            one.setLevel(level)
    found = capsys.readouterr().out.splitlines()
    assert len(found) == 3
    for line in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d WARNING a line", line)
