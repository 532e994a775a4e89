"""The security log: what it says of an attack, and what it never holds (ASVS v5.0.0-16.3, 16.4.1)."""

from __future__ import annotations

import logging
import re
from ipaddress import ip_address
from typing import Any

import httpx2 as httpx
import pytest

from routeguard.core.security_log import AccountPseudonyms, network_of, note
from routeguard.protection.traffic.models import TrafficSettings
from tests.fakes import deployment
from tests.passwords.world import GOOD, World

pytestmark = pytest.mark.anyio

ADA = "ada@example.com"
BAD = "a wrong guess at it"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """Return a function from an event's name to what was logged of it."""
    caplog.set_level(logging.INFO)

    def of(event: str) -> list[dict[str, str]]:
        records: list[Any] = [one for one in caplog.records if one.name == "routeguard.security"]
        return [one.routeguard for one in records if one.routeguard["event"] == event]

    return of


@pytest.fixture
async def world(sqlite_url: str) -> Any:
    async with World.open(sqlite_url) as world:
        yield world


async def test_failed_sign_ins(world: World, lines: Any, caplog: pytest.LogCaptureFixture) -> None:
    await world.sign_up(ADA)
    user = (await world.user(ADA)).id
    wrong = await world.sign_in(ADA, BAD)
    unknown = await world.sign_in("nobody@example.com", BAD)
    again = await world.sign_in(ADA.upper(), BAD)
    await world.suspend(ADA)
    await world.sign_in(ADA)

    failed = lines("proof-failed")
    assert [one["cause"] for one in failed] == ["wrong password", "no such user", "wrong password", "user-suspended"]
    assert [one.get("user") for one in failed] == [user, None, user, user]
    for answer, line in zip((wrong, unknown, again), failed, strict=False):
        assert line["request_id"] == answer.json()["instance"]
        assert (line["path"], line["network"]) == ("/auth/sign-in", "127.0.0.0/24")
    # One name for all spellings of an account, another for another account.
    assert failed[0]["subject"] == failed[2]["subject"] != failed[1]["subject"]
    assert re.fullmatch(r"sub_[a-z2-7]{16}", failed[0]["subject"])
    assert [(one["user"], one["request_id"]) for one in lines("user-suspended")] == [(user, "-")]
    for secret in (ADA, "nobody@example.com", BAD, GOOD, "127.0.0.1"):
        assert all(secret not in one.getMessage() for one in caplog.records if "routeguard" in one.name)


async def test_slowed_guessing(world: World, lines: Any) -> None:
    """RL-10: the line that says somebody is guessing."""
    answers: list[httpx.Response] = [await world.sign_in(ADA, f"{BAD} {number}") for number in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    (slowed,) = lines("guessing-slowed")
    assert slowed["request_id"] == answers[-1].json()["instance"]
    assert slowed["subject"] == lines("proof-failed")[0]["subject"]


async def test_the_limit_by_address_is_in_the_guards_own_line(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with World.open(sqlite_url, traffic=TrafficSettings(sign_in="1/minute")) as world:
        await world.sign_in(ADA, BAD)
        refused = await world.sign_in(ADA, BAD)
    records: list[Any] = [one for one in caplog.records if one.name == "routeguard.guard"]
    assert records[-1].getMessage().startswith("refused: POST /auth/sign-in 429 quota-exceeded handler=")
    assert records[-1].getMessage().endswith(refused.json()["instance"])
    assert records[-1].routeguard["request_id"] == refused.json()["instance"]


async def test_forged_requests(world: World, lines: Any) -> None:
    async with world.client(origin="https://attacker.example") as page:
        answer = await page.post("/auth/sign-in", json={"email": ADA, "password": GOOD})
    assert answer.status_code == 403
    (line,) = lines("forgery-suspected")
    assert line["request_id"] == answer.json()["instance"]
    assert line["cause"].startswith("the Origin is not trusted; expected from http://")


async def test_what_succeeds(world: World, lines: Any) -> None:
    async with world.signed_in(ADA) as browser:
        body = {"current_password": GOOD, "new_password": "nine blue herons at dusk"}
        assert (await browser.post("/auth/password/change", json=body)).status_code == 204
    user = (await world.user(ADA)).id
    assert [one["user"] for one in lines("signed-in")] == [user]
    assert [(one["user"], one["reason"]) for one in lines("password-changed")] == [(user, "change")]


def test_nobody_writes_lines_of_his_own(caplog: pytest.LogCaptureFixture) -> None:
    """JWT-09: what a caller sends is quoted, and cut."""
    caplog.set_level(logging.INFO)
    note("tried", cause='x\nsecurity: signed-in user="root"', long="a b" * 1000)
    message = caplog.records[-1].getMessage()
    assert "\n" not in message
    assert message.startswith(r'security: tried request_id=- cause="x\nsecurity: signed-in user=\"root\""')
    assert len(message) < 400


def test_where_not_who() -> None:
    assert network_of(ip_address("203.0.113.77")) == "203.0.113.0/24"
    assert network_of(ip_address("2001:db8:1:2:3::4")) == "2001:db8:1::/48"
    assert network_of(None) is None


def test_a_subject_needs_the_key() -> None:
    one, other = AccountPseudonyms(deployment(bytes(32))), AccountPseudonyms(deployment(bytes(range(32))))
    assert one.of(b"account") == one.of(b"account") != other.of(b"account")
