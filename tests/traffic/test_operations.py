"""The limits and the de-duplication of the identity service, over HTTP, as its clients see them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa

from routeguard.core.errors import ConfigError
from routeguard.foundation.db.models import DatabaseSettings
from routeguard.identity.sessions.store import sessions
from routeguard.identity.users.store import users
from routeguard.protection.traffic.models import TrafficSettings
from routeguard.settings import Settings
from tests.passwords.world import GOOD, UNLIMITED, World

COVERS = ("protection/traffic/feature", "protection/traffic/models")

pytestmark = pytest.mark.anyio

BROWSER = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"}
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
NOWHERE = "127.0.0.1:1"
"""A port nobody listens on."""
ADA = {"email": "ada@example.com", "password": GOOD}


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    """The service with few tries, so that they run out."""
    few = TrafficSettings(sign_in="3/minute", sign_up="2/hour", identity="4/minute")
    async with World.open(sqlite_url, traffic=few) as world:
        yield world


@pytest.fixture
async def free(sqlite_url: str) -> AsyncIterator[World]:
    """The service without limits."""
    async with World.open(sqlite_url, traffic=UNLIMITED) as world:
        yield world


def parse(field: str) -> dict[str, dict[str, int]]:
    """Read a RateLimit or RateLimit-Policy field: an RFC 9651 list of strings with integer parameters."""
    found: dict[str, dict[str, int]] = {}
    for item in field.split(", "):
        match = re.fullmatch(r'"([\x20-\x21\x23-\x5b\x5d-\x7e]+)"((?:;[a-z]+=-?\d+)+)', item)
        assert match is not None, field
        found[match[1]] = {name: int(value) for name, value in re.findall(r";([a-z]+)=(-?\d+)", match[2])}
    return found


async def test_what_the_answers_say_about_the_limit(world: World) -> None:
    """RL-18: on 200, 401 and 429."""
    async with world.signed_in("ada@example.com") as browser:
        ok = await browser.get("/auth/session")
        refused = await world.client().get("/auth/session")
        last = [await browser.get("/auth/session") for _ in range(3)][-1]
    assert (ok.status_code, refused.status_code, last.status_code) == (200, 401, 429)
    for answer, left in ((ok, 3), (refused, 2), (last, 0)):
        assert parse(answer.headers["ratelimit-policy"]) == {"session": {"q": 4, "w": 60}}
        assert parse(answer.headers["ratelimit"])["session"]["r"] == left
    assert int(last.headers["retry-after"]) >= parse(last.headers["ratelimit"])["session"]["t"] >= 1
    body = last.json()
    assert (body["type"], body["violated-policies"]) == (QUOTA_EXCEEDED, ["session"])


async def test_an_outage_says_the_limit_too(world: World, sqlite_url: str) -> None:
    """RL-18: on 503, with a database that is away, and with a counter that is."""
    async with world.signed_in("ada@example.com") as browser:
        cookie = {"cookie": f"routeguard={browser.cookies['routeguard']}"}
    hasty = DatabaseSettings(timeout=timedelta(seconds=0.2), statement_timeout=timedelta(seconds=0.2))
    async with World.open(f"postgresql://x@{NOWHERE}/x", traffic=TrafficSettings(), database=hasty) as away:
        answer = await away.client().get("/auth/session", headers=cookie)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert parse(answer.headers["ratelimit"])["session"]["r"] == 119
    assert parse(answer.headers["ratelimit-policy"])["session"] == {"q": 120, "w": 60}

    async with World.open(sqlite_url, traffic=TrafficSettings(), ephemeral_url=f"redis://{NOWHERE}") as blind:
        guess = await blind.sign_in("ada@example.com", "a wrong guess at it")
        shown = await blind.client().get("/auth/session", headers=cookie)
    assert guess.status_code == 503
    assert parse(guess.headers["ratelimit-policy"])["sign-in"] == {"q": 20, "w": 60}
    assert int(guess.headers["retry-after"]) >= 1
    # Showing a session gives nothing to guess, so it is counted in the process meanwhile.
    assert shown.status_code == 200
    assert shown.headers["ratelimit-policy"].endswith(";degraded")


async def test_sign_in_has_one_budget_for_forms_and_json_and_tells_no_count(world: World) -> None:
    """RL-19: and the refusal of a form is a page."""
    async with world.client() as client:
        answers = [
            await client.post("/auth/sign-in", json={**ADA, "password": "a wrong guess at it"}),
            await client.post("/auth/sign-in", data={**ADA, "password": "a wrong guess at it"}, headers=BROWSER),
            await client.post("/auth/sign-in", data=ADA),
        ]
        page = await client.post("/auth/sign-in", data=ADA, headers=BROWSER)
        script = await client.post("/auth/sign-in", json=ADA)
    assert {answer.status_code for answer in answers} == {401}
    for answer in (*answers, page, script):
        assert parse(answer.headers["ratelimit-policy"]) == {"sign-in": {"q": 3, "w": 60}}
        assert "ratelimit" not in answer.headers
    for answer in (page, script):
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
    assert page.headers["content-type"].startswith("text/html")
    assert GOOD not in page.text
    assert script.json()["type"] == QUOTA_EXCEEDED


async def test_a_session_is_ended_from_one_budget_by_script_and_by_form(world: World) -> None:
    """RL-19."""
    async with world.signed_in("ada@example.com") as browser:
        for _ in range(2):
            assert (await browser.delete("/auth/sessions/ses_none")).status_code == 404
            assert (await browser.post("/account/sessions/ses_none/revoke", headers=BROWSER)).status_code == 404
        assert (await browser.delete("/auth/sessions/ses_none")).status_code == 429
        assert (await browser.post("/account/sessions/ses_none/revoke", headers=BROWSER)).status_code == 429


async def test_accounts_are_opened_slowly(world: World) -> None:
    statuses = [(await world.sign_up(f"user{number}@example.com")).status_code for number in range(3)]
    assert statuses == [201, 201, 429]


async def test_every_operation_has_a_limit_in_the_matrix(world: World) -> None:
    """Nothing but pages that only show something is without one."""
    for row in world.guard.matrix():
        # Keys that are good may be verified as often as one likes; those that are none are counted by address.
        if row.path == "/auth/api-keys/verify":
            continue
        if row.method != "GET" or row.path in {"/auth/session", "/auth/sessions", "/auth/csrf"}:
            assert re.search(r"at most \d+/(minute|hour) by (address|client)", row.policy), (row.path, row.policy)


async def test_the_defaults_are_those_promised(free: World) -> None:
    promised = TrafficSettings(sign_in="20/minute", sign_up="30/hour", identity="120/minute", refresh="300/minute")
    assert TrafficSettings() == promised
    assert not any("by address" in row.policy for row in free.guard.matrix())


def test_a_rate_that_is_none_is_a_finding() -> None:
    with pytest.raises(ConfigError) as caught:
        TrafficSettings(sign_in="often", identity="0/minute")
    assert [finding.partition(":")[0] for finding in caught.value.findings] == ["traffic.sign_in", "traffic.identity"]
    loaded = Settings.load(environ={"ROUTEGUARD_TRAFFIC_SIGN_IN": "off", "ROUTEGUARD_TRAFFIC_SIGN_UP": "5/day"})
    assert (loaded.traffic.sign_in, loaded.traffic.sign_up) == ("off", "5/day")


async def test_a_hundred_equal_sign_ins_start_one_session(free: World) -> None:
    """DDP-08: double clicks and retries; each copy gets the one session's cookie."""
    await free.sign_up("ada@example.com")
    async with free.client() as client:
        answers = await at_once(100, lambda: client.post("/auth/sign-in", json=ADA))
    assert {answer.status_code for answer in answers} == {200}
    assert len({cookie_of(answer) for answer in answers}) == 1
    assert await count(free, sessions) == 1
    headers = {"cookie": f"routeguard={cookie_of(answers[0])}"}
    assert (await free.client().get("/auth/session", headers=headers)).status_code == 200


async def test_equal_sign_ins_count_toward_the_limit(sqlite_url: str) -> None:
    """De-duplication saves work; it is no way around the limit."""
    async with World.open(sqlite_url, traffic=TrafficSettings()) as world:
        await world.sign_up("ada@example.com")
        answers = await at_once(100, lambda: world.sign_in("ada@example.com"))
        assert sorted(answer.status_code for answer in answers) == [200] * 20 + [429] * 80
        assert await count(world, sessions) == 1


async def test_nobody_joins_a_sign_in_with_another_password_name_or_cookie(free: World) -> None:
    """DDP-01."""
    await free.sign_up("ada@example.com")
    await free.sign_up("bob@example.com")
    wrong = [{**ADA, "password": f"a wrong guess number {number}"} for number in range(4)]
    bodies = [ADA, {"email": "bob@example.com", "password": GOOD}, *wrong] * 4
    answers = await asyncio.gather(*(free.post("sign-in", body) for body in bodies))
    for body, answer in zip(bodies, answers, strict=True):
        if body in wrong:
            assert answer.status_code == 401
            assert "set-cookie" not in answer.headers
        else:
            assert answer.json()["user"]["email"] == body["email"]
    assert await count(free, sessions) == 2
    first, second = cookie_of(answers[0]), cookie_of(answers[1])
    assert first != second

    # The same body from two browsers that are signed in already: each session is replaced by its own.
    cookies = [{"cookie": f"routeguard={value}"} for value in (first, second)]
    both = await asyncio.gather(*(free.client(**headers).post("/auth/sign-in", json=ADA) for headers in cookies))
    assert len({cookie_of(answer) for answer in both}) == 2
    for headers in cookies:
        assert (await free.client().get("/auth/session", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("sign-up", {**ADA, "name": "Ada"}, 201),
        ("password/forgot", {"email": "ada@example.com"}, 202),
        ("email/resend", {"email": "ada@example.com"}, 202),
    ],
)
async def test_a_hundred_equal_requests_send_one_mail(
    free: World, path: str, body: Mapping[str, Any], status: int
) -> None:
    if path != "sign-up":
        await free.sign_up("ada@example.com")
        await free.settle()
        # A link that is young is not sent again.
        await free.pass_time(6)
        free.mailbox.messages.clear()
    answers = await at_once(100, lambda: free.post(path, body))
    assert {answer.status_code for answer in answers} == {status}
    await free.settle()
    assert len(free.mailbox.messages) == 1
    assert await count(free, users) == 1


async def test_a_hundred_equal_resets_are_one(free: World) -> None:
    """The link works once, and everybody who sent that very request is told that it did."""
    await free.sign_up("ada@example.com")
    await free.post("password/forgot", {"email": "ada@example.com"})
    await free.settle()
    free_token = free.mailbox.token("ada@example.com")
    body = {"token": free_token, "password": "nine blue herons at dusk"}
    answers = await at_once(100, lambda: free.post("password/reset", body))
    assert {answer.status_code for answer in answers} == {204}
    # Later it is used up; so it is at once for another password.
    assert (await free.post("password/reset", body)).status_code == 400


async def test_a_hundred_equal_sign_outs_are_one(free: World) -> None:
    """As forms, too: every copy is sent on, and told to forget."""
    async with free.signed_in("ada@example.com") as browser:
        cookie = {"cookie": f"routeguard={browser.cookies['routeguard']}"}
    answers = await at_once(100, lambda: free.client(**cookie, **BROWSER).post("/auth/sign-out", data={"next": ""}))
    for answer in answers:
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert answer.headers["clear-site-data"] == '"cookies", "storage"'
        assert "max-age=0" in answer.headers["set-cookie"].lower()
    assert await count(free, sessions) == 0


async def at_once(number: int, send: Callable[[], Any]) -> list[httpx.Response]:
    return list(await asyncio.gather(*(send() for _ in range(number))))


def cookie_of(answer: httpx.Response) -> str:
    return answer.headers["set-cookie"].partition("=")[2].partition(";")[0]


async def count(world: World, table: sa.Table) -> int:
    async with world.database.read() as tx:
        found: int = await tx.scalar(sa.select(sa.func.count()).select_from(table))
    return found
