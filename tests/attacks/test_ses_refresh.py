"""SES: refresh tokens over HTTP, replayed, shared, revoked and restored, on two processes' worth of application.

Races, kills and what only the database sees are in tests/tokens.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy as sa

from routeguard.foundation.db.outbox import Outbox
from routeguard.foundation.invalidation.service import Invalidations
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.tokens import store
from routeguard.identity.tokens.models import RefreshTokenReused
from tests.tokens.app import ACCESS, AGENT, REFRESH, App, TokenBrowser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.wire import Result

COVERS = ("identity/tokens/budget",)

pytestmark = pytest.mark.anyio

AFTER_THE_GRACE: Final = 60.0
THIEF: Final = ("user-agent", "curl/8.0")


@pytest.fixture
async def apps(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[App, App]]:
    """Two replicas over one database."""
    async with App.run(database_url, tmp_path) as first, App.run(database_url, tmp_path) as second:
        yield first, second


async def pair_of(browser: TokenBrowser) -> dict[str, Any]:
    answer = await browser.post("/auth/token", {})
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def refresh(app: App, text: str, agent: tuple[str, str] = AGENT) -> Result:
    body = json.dumps({"refresh_token": text}).encode()
    return await app.ask("POST", "/auth/token/refresh", [("content-type", "application/json"), agent], body=body)


async def next_of(app: App, text: str, agent: tuple[str, str] = AGENT) -> str:
    answer = await refresh(app, text, agent)
    assert answer.status == 200, answer.body
    return str(json.loads(answer.body)["refresh_token"])


async def me(app: App, token: str) -> int:
    return (await app.ask("GET", "/me", [("authorization", f"Bearer {token}")])).status


async def let_time_pass(app: App) -> None:
    """Make every rotation longer ago than any grace, by the database's clock."""
    table = store.refresh_families
    async with app.database.transaction() as tx:
        await tx.execute(sa.update(table).values(rotated_at=table.c.rotated_at - AFTER_THE_GRACE))


async def hear_of_it(app: App) -> None:
    """What a process does twice a second."""
    await app.guard.services.get(Invalidations).poll()


async def test_a_hundred_at_once_get_one_successor(apps: tuple[App, App]) -> None:
    """SES-04, SES-05: half of them at each replica, by another address each."""
    text = (await pair_of(await apps[0].signed_in()))["refresh_token"]
    for _ in range(2):
        answers = await asyncio.gather(*(next_of(apps[number % 2], text) for number in range(100)))
        assert len(set(answers)) == 1
        text = answers[0]


async def test_a_replay_after_a_restart(database_url: str, tmp_path: Path) -> None:
    """SES-06: no state lives in memory only; the thief and the owner are both out."""
    async with App.run(database_url, tmp_path) as app:
        first = (await pair_of(await app.signed_in()))["refresh_token"]
        second = await next_of(app, first)
        await let_time_pass(app)
    async with App.run(database_url, tmp_path) as app:
        assert (await refresh(app, first)).problem == "invalid-token"
        assert (await refresh(app, second)).problem == "invalid-token"


async def test_reuse_ends_everything_on_both_replicas(apps: tuple[App, App]) -> None:
    """SES-06, SES-12: the access tokens and the cookie too, once the other replica has asked; one event."""
    heard: list[RefreshTokenReused] = []

    async def hear(event: RefreshTokenReused) -> None:
        heard.append(event)

    for app in apps:
        app.guard.services.get(Outbox).on(RefreshTokenReused, hear, name="test")
    browser = await apps[0].signed_in()
    old = await pair_of(browser)
    new = json.loads((await refresh(apps[0], old["refresh_token"])).body)
    tokens = [old["access_token"], new["access_token"]]
    assert [await me(app, token) for app in apps for token in tokens] == [200] * 4
    await let_time_pass(apps[0])
    replays = [refresh(app, old["refresh_token"]) for app in apps for _ in range(8)]
    assert {answer.problem for answer in await asyncio.gather(*replays)} == {"invalid-token"}
    for app in apps:
        await hear_of_it(app)
    assert [await me(app, token) for app in apps for token in tokens] == [401] * 4
    for app in apps:
        browser.world = app
        assert (await browser.copy().get("/me")).status == 401
        assert (await refresh(app, new["refresh_token"])).problem == "invalid-token"
    for app in apps:
        await app.guard.services.get(Outbox).deliver_due()
    assert [(event.user_id, event.session_id) for event in heard] == [(browser.id, browser.session_id)]


async def test_a_refresh_beside_a_revocation(apps: tuple[App, App]) -> None:
    """SES-08: after the revocation has returned, nothing minted from that family is good anywhere."""
    for _ in range(5):
        browser = await apps[0].signed_in()
        pair = await pair_of(browser)
        minted: list[dict[str, Any]] = []

        async def go_on(app: App, text: str, minted: list[dict[str, Any]] = minted) -> None:
            while (answer := await refresh(app, text)).status == 200:
                minted.append(json.loads(answer.body))
                text = minted[-1]["refresh_token"]

        async def revoke(browser: TokenBrowser = browser) -> None:
            assert (await browser.ask("DELETE", f"/auth/sessions/{browser.session_id}")).status == 204

        await asyncio.gather(*(go_on(app, pair["refresh_token"]) for app in apps), revoke())
        for app in apps:
            await hear_of_it(app)
            for one in [pair, *minted]:
                assert await me(app, one["access_token"]) == 401
                assert (await refresh(app, one["refresh_token"])).status == 401


async def test_a_lost_answer(apps: tuple[App, App]) -> None:
    """SES-12: the same successor from either replica within the grace, which both know of."""
    first = (await pair_of(await apps[0].signed_in()))["refresh_token"]
    second = await next_of(apps[0], first)
    assert [await next_of(app, first) for app in apps] == [second] * 2
    await let_time_pass(apps[0])
    assert (await refresh(apps[1], first)).problem == "invalid-token"
    assert (await refresh(apps[0], second)).problem == "invalid-token"


async def test_a_thief_within_the_grace(apps: tuple[App, App]) -> None:
    """SES-13: from another client a spent token is a copy, however soon it comes; by cookie as in the body."""
    first = (await pair_of(await apps[0].signed_in()))["refresh_token"]
    second = await next_of(apps[0], first)
    assert (await refresh(apps[1], first, THIEF)).problem == "invalid-token"
    assert (await refresh(apps[0], second)).problem == "invalid-token"

    browser = await apps[0].with_tokens()
    thief = browser.copy()
    thief.agent = THIEF
    del thief.cookies[ACCESS]
    browser.age(3600)
    assert (await browser.get("/me")).status == 200
    assert (await thief.get("/me")).status == 401
    assert thief.cookies == {}
    assert (await browser.get("/me")).status == 401


async def test_the_grace_makes_no_second_line(apps: tuple[App, App]) -> None:
    """SES-14: used again and again, it gives the one leaf; who goes on with an older one ends all."""
    text = (await pair_of(await apps[0].signed_in()))["refresh_token"]
    chain = [text]
    for step in range(6):
        following = {await next_of(apps[step % 2], chain[-1]) for _ in range(4)}
        assert len(following) == 1
        chain.append(following.pop())
    assert len(set(chain)) == 7
    assert (await refresh(apps[0], chain[-3])).problem == "invalid-token"
    assert (await refresh(apps[1], chain[-1])).problem == "invalid-token"


async def test_after_signing_out_nothing_opens_on_either_replica(apps: tuple[App, App]) -> None:
    """SES-17, SES-18: cookie, access and refresh token, replayed where the session was warm in memory."""
    for way in ("/auth/sign-out", "/auth/sign-out-everywhere"):
        browser = await apps[0].with_tokens()
        pair = await pair_of(browser)
        copy = browser.copy()
        for app in apps:
            copy.world = app
            assert (await copy.get("/me")).status == 200
            assert await me(app, pair["access_token"]) == 200
        answer = await browser.post(way, {})
        assert answer.status == 204
        assert answer.header("clear-site-data") == '"cookies", "storage"'
        assert browser.cookies == {}
        await hear_of_it(apps[1])
        for app in apps:
            replay = copy.copy()
            replay.world = app
            assert (await replay.get("/me")).status == 401
            assert await me(app, pair["access_token"]) == 401
            for text in (pair["refresh_token"], copy.cookies[REFRESH]):
                assert (await refresh(app, text)).problem == "invalid-token"


async def test_a_dump_of_the_database_opens_nothing(sqlite_url: str, tmp_path: Path) -> None:
    """SES-22: no token, nor the secret in it, is anywhere in the file; what is there is no token."""
    async with App.run(sqlite_url, tmp_path) as app:
        text = (await pair_of(await app.signed_in()))["refresh_token"]
        following = await next_of(app, text)
        dump = await app.dump()
        for one in (text, following):
            payload, mac = one.split(".")
            assert payload.encode() not in dump
            assert mac.encode() not in dump
        async with app.database.read() as tx:
            [row] = await tx.all(sa.select(store.refresh_families))
        for value in row:
            shown = value.hex() if isinstance(value, bytes) else str(value)
            assert (await refresh(app, shown)).problem == "invalid-token"
        assert await next_of(app, following)


async def test_a_process_that_missed_the_news_believes_it_no_longer(apps: tuple[App, App]) -> None:
    """SES-09: ended by another process while this one refreshes; the store has the last word."""
    user = await apps[0].user()
    browsers = [await apps[number % 2].with_tokens(user) for number in range(6)]
    async with apps[0].database.transaction() as tx:
        await apps[0].guard.services.get(Sessions).revoke_all(tx, user.id)
    for browser in browsers:
        browser.age(3600)
        assert (await browser.get("/me")).status == 401
        assert browser.cookies == {}
