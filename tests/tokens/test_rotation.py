"""Tokens renewed on the way to the handler, in a real application: whatever the handler does, once for all who ask."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from routeguard.core.errors import Unavailable
from routeguard.foundation.invalidation.service import Invalidations
from routeguard.identity.sessions import store as sessions
from routeguard.identity.sessions.by_id import SessionsById
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.tokens import store
from routeguard.identity.tokens.access import AccessTokens
from routeguard.identity.tokens.families import RefreshFamilies
from routeguard.identity.tokens.service import Tokens
from routeguard.identity.users.models import User
from routeguard.protection.traffic.models import TrafficSettings
from tests.tokens.app import ACCESS, GATES, REFRESH, SESSION, App, TokenBrowser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.wire import Result

COVERS = ("identity/tokens/families", "identity/tokens/feature", "identity/tokens/service")

pytestmark = pytest.mark.anyio

EXPIRED = 3600.0
NEAR = 900.0 - 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Talkative(User):
    """A user with more to show than a cookie holds."""

    essay: str = field(default="", metadata={"public": True})


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[App]:
    async with App.run(database_url, tmp_path) as app:
        yield app


def cookies_of(answer: Result) -> dict[str, str]:
    """What the answer tells the browser to keep: each name once."""
    given = [value.decode().partition(";")[0] for name, value in answer.headers if name == b"set-cookie"]
    pairs = dict(pair.split("=", 1) for pair in given)
    assert len(pairs) == len(given)
    return pairs


async def rows(app: App) -> list[Any]:
    async with app.database.read() as tx:
        return list(await tx.all(sa.select(store.refresh_families)))


@pytest.mark.parametrize("state", ["good", "near its end", "expired", "missing", "rubbish"])
async def test_tokens_are_renewed_when_it_is_time(app: App, state: str) -> None:
    browser = await app.with_tokens()
    before = dict(browser.cookies)
    match state:
        case "near its end":
            browser.age(NEAR)
        case "expired":
            browser.age(EXPIRED)
        case "missing":
            del browser.cookies[ACCESS]
        case "rubbish":
            browser.cookies[ACCESS] = "a.b.c"
    answer = await browser.get("/me")
    assert answer.status == 200
    if state == "good":
        assert cookies_of(answer) == {}
        return
    assert set(cookies_of(answer)) == {ACCESS, REFRESH}
    assert all(browser.cookies[name] != before[name] for name in before)
    assert cookies_of(await browser.get("/me")) == {}
    [row] = await rows(app)
    assert row.generation == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/me", 200),
        ("/perhaps", 200),
        ("/stream", 200),
        ("/fails", 500),
        ("/admin", 403),
        ("/either", 403),
        ("/mine", 200),
    ],
)
async def test_the_new_cookies_leave_whatever_the_handler_does(app: App, path: str, status: int) -> None:
    """An error, a stream, a refusal by a later check, by both sides of a `|` or by its first: the token is spent."""
    browser = await app.with_tokens()
    browser.age(EXPIRED)
    answer = await browser.get(path)
    assert answer.status == status
    assert set(cookies_of(answer)) == {ACCESS, REFRESH}
    [row] = await rows(app)
    assert row.generation == 1
    assert (await browser.get("/me")).status == 200
    await _no_grace_left(app)
    del browser.cookies[ACCESS]
    assert (await browser.get("/me")).status == 200


@pytest.mark.parametrize("state", ["near its end", "missing"])
async def test_a_socket_rotates_nothing(app: App, state: str) -> None:
    """A handshake that is refused carries no cookies: whoever rotated on it would sign the user out."""
    browser = await app.with_tokens()
    if state == "missing":
        del browser.cookies[ACCESS]
    else:
        browser.age(NEAR)
    answer = await browser.socket("/ws")
    assert answer.sent[0]["type"] == "websocket.accept"
    assert cookies_of(answer) == {}
    assert [row.generation for row in await rows(app)] == [0]


async def test_a_socket_is_opened_by_no_spent_token(app: App) -> None:
    browser = await app.with_tokens()
    del browser.cookies[ACCESS]
    old = browser.copy()
    assert (await browser.get("/me")).status == 200
    assert (await old.socket("/ws")).sent[0]["type"] == "websocket.accept"
    await _no_grace_left(app)
    _forget(app)
    assert (await old.socket("/ws")).sent[0]["type"] != "websocket.accept"
    assert (await browser.get("/me")).status == 200


async def test_a_write_needs_what_every_write_of_a_browser_needs(app: App) -> None:
    """CSRF-01"""
    browser = await app.with_tokens()
    assert (await browser.ask("POST", "/write")).status == 200
    assert (await browser.ask("POST", "/write", origin="https://attacker.example")).problem == "forgery-suspected"
    assert (await browser.ask("POST", "/write", origin=None)).problem == "forgery-suspected"
    token = json.loads((await browser.get("/auth/csrf")).body)["csrf_token"]
    assert (await browser.ask("POST", "/write", ("x-csrf-token", token), origin=None)).status == 200


async def test_one_rotation_for_many_at_once(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """SES-04: a page's requests wait for one, and all get the same cookies."""
    calls: list[object] = []
    rotate = RefreshFamilies.rotate

    async def counted(self: Any, text: Any, **given: Any) -> Any:
        calls.append(text)
        await asyncio.sleep(0.05)
        return await rotate(self, text, **given)

    monkeypatch.setattr(RefreshFamilies, "rotate", counted)
    browser = await app.with_tokens()
    browser.age(EXPIRED)
    tabs = [browser.copy() for _ in range(32)]
    answers = await asyncio.gather(*(tab.get("/me") for tab in tabs))
    assert [answer.status for answer in answers] == [200] * 32
    assert len(calls) == 1
    assert Counter(len(cookies_of(answer)) for answer in answers) == {2: 32}
    assert len({tab.cookies[REFRESH] for tab in tabs}) == 1
    [row] = await rows(app)
    assert row.generation == 1


async def test_one_rotation_across_replicas(app: App, database_url: str, tmp_path: Path) -> None:
    """SES-05: two processes' worth of memory and connections; one successor, and no alarm."""
    browser = await app.with_tokens()
    async with App.run(database_url, tmp_path) as other:
        for generation in range(1, 6):
            browser.age(EXPIRED)
            tabs = [browser.copy() for _ in range(16)]
            for tab in tabs[::2]:
                tab.world = other
            answers = await asyncio.gather(*(tab.get("/me") for tab in tabs))
            assert [answer.status for answer in answers] == [200] * 16
            assert len({tab.cookies[REFRESH] for tab in tabs}) == 1
            [row] = await rows(app)
            assert row.generation == generation
            browser.cookies = tabs[0].cookies


async def test_a_request_that_is_given_up_leaves_the_others_theirs(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first to ask goes away in the middle; who waits with him is served."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    rotate = RefreshFamilies.rotate

    async def held(self: Any, text: Any, **given: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await rotate(self, text, **given)

    monkeypatch.setattr(RefreshFamilies, "rotate", held)
    browser = await app.with_tokens()
    del browser.cookies[ACCESS]
    first = asyncio.create_task(browser.copy().get("/me"))
    await begun.wait()
    second = asyncio.create_task(browser.get("/me"))
    await asyncio.sleep(0)
    first.cancel()
    go_on.set()
    assert (await second).status == 200
    assert set(browser.cookies) == {ACCESS, REFRESH}


async def test_a_dead_refresh_token_is_taken_away(app: App) -> None:
    """SES-17, CK-12: 401, and both cookies go, with the attributes they came with."""
    browser = await app.with_tokens()
    async with app.database.transaction() as tx:
        await app.guard.services.get(Sessions).revoke(tx, browser.id, browser.session_id)
    browser.age(EXPIRED)
    given = [value.decode() for name, value in (await browser.copy().get("/me")).headers if name == b"set-cookie"]
    assert sorted(given) == [f"{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax" for name in (ACCESS, REFRESH)]
    answer = await browser.get("/me")
    assert answer.problem == "authentication-required"
    assert browser.cookies == {}
    assert (await browser.get("/perhaps")).status == 200


async def test_an_access_token_that_still_is_good_stays(app: App) -> None:
    """Its family is gone and the session is not: the user is himself until the token ends."""
    browser = await app.with_tokens()
    async with app.database.transaction() as tx:
        await tx.execute(sa.delete(store.refresh_families))
    browser.age(NEAR)
    assert (await browser.get("/me")).status == 200
    browser.age(EXPIRED)
    assert (await browser.get("/me")).status == 401
    assert browser.cookies == {}


async def test_a_spent_token_beside_a_good_one_ends_nothing(app: App) -> None:
    """The answer with its successor may be on its way; alone, it is a reuse as ever."""
    browser = await app.with_tokens()
    browser.age(NEAR)
    old = browser.copy()
    assert (await browser.get("/me")).status == 200
    await _no_grace_left(app)
    _forget(app)
    before = dict(old.cookies)
    answer = await old.get("/me")
    assert (answer.status, cookies_of(answer)) == (200, {})
    assert old.cookies == before
    assert (await browser.get("/me")).status == 200
    old.age(EXPIRED)
    assert (await old.get("/me")).status == 401
    assert (await browser.get("/me")).status == 401


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_another_site_starts_no_rotation_that_can_wait(app: App, site: str) -> None:
    """Its browser may keep no cookies of the answer, or never get it."""
    browser = await app.with_tokens()
    browser.age(NEAR)
    answer = await browser.get("/me", ("sec-fetch-site", site))
    assert (answer.status, cookies_of(answer)) == (200, {})
    assert [row.generation for row in await rows(app)] == [0]
    assert set(cookies_of(await browser.get("/me", ("sec-fetch-site", "same-origin")))) == {ACCESS, REFRESH}
    browser.age(EXPIRED)
    assert set(cookies_of(await browser.get("/me", ("sec-fetch-site", site)))) == {ACCESS, REFRESH}


async def test_the_grace_begins_when_the_answer_leaves(app: App) -> None:
    """The handler takes longer than the grace: the page's other requests get what its answer will bring."""
    browser = await app.with_tokens()
    browser.age(EXPIRED)
    slow, other, stranger, late = (browser.copy() for _ in range(4))
    stranger.agent = ("user-agent", "curl/8.0")
    gate = GATES["rotation"] = asyncio.Event()
    waiting = asyncio.create_task(slow.get("/held/rotation"))
    async with asyncio.timeout(60):
        while [row.generation for row in await rows(app)] != [1]:
            await asyncio.sleep(0.01)
    # Nobody else's request may have been let in by the database's own grace.
    await _no_grace_left(app)
    assert (await other.get("/me")).status == 200
    assert [row.generation for row in await rows(app)] == [1]
    gate.set()
    assert (await waiting).status == 200
    assert slow.cookies[REFRESH] == other.cookies[REFRESH]
    assert (await browser.copy().get("/me")).status == 200
    del slow.cookies[ACCESS]
    assert (await slow.get("/me")).status == 200
    await _no_grace_left(app)
    # Its successor is spent, so it is not given out again: that would end the session at its next use.
    assert (await late.get("/me")).status == 401


async def test_a_rotation_underway_is_its_clients_alone(app: App) -> None:
    """SES-13, SES-17: another client, or one program with the cookie's token, is a thief; the session's end ends it."""
    for thief in ("curl", "json", "signed out"):
        browser = await app.with_tokens()
        browser.age(EXPIRED)
        slow, other = browser.copy(), browser.copy()
        gate = GATES[thief] = asyncio.Event()
        waiting = asyncio.create_task(slow.get(f"/held/{thief}"))
        async with asyncio.timeout(60):
            while [row.generation for row in await rows(app)] != [1]:
                await asyncio.sleep(0.01)
        await _no_grace_left(app)
        if thief == "curl":
            other.agent = ("user-agent", "curl/8.0")
        if thief == "json":
            body = {"refresh_token": other.cookies[REFRESH]}
            assert (await other.post("/auth/token/refresh", body)).status == 401
        if thief == "signed out":
            async with app.database.transaction() as tx:
                await app.guard.services.get(Sessions).revoke(tx, browser.id, browser.session_id)
        assert (await other.get("/me")).status == 401
        gate.set()
        await waiting
        assert await rows(app) == []


async def test_rotations_on_the_way_spend_the_budget_of_refreshes(sqlite_url: str, tmp_path: Path) -> None:
    """RL-19: one for a rotation, however many wait for it; a token that still is good goes on."""
    traffic = TrafficSettings(refresh="3/hour", identity="off")
    async with App.run(sqlite_url, tmp_path, traffic=traffic) as app:
        browser = await app.with_tokens()
        browser.peer = "203.0.113.7"
        for _ in range(3):
            del browser.cookies[ACCESS]
            tabs = [browser.copy() for _ in range(8)]
            for tab in tabs:
                tab.peer = browser.peer
            assert {answer.status for answer in await asyncio.gather(*(tab.get("/me") for tab in tabs))} == {200}
            browser.cookies = tabs[0].cookies
        browser.age(NEAR)
        answer = await browser.get("/me")
        assert (answer.status, cookies_of(answer)) == (200, {})
        del browser.cookies[ACCESS]
        answer = await browser.get("/me")
        assert (answer.status, cookies_of(answer)) == (429, {})
        assert int(answer.header("retry-after") or 0) > 0
        assert (await browser.post("/auth/token/refresh", {})).status == 429
        browser.peer = None
        assert (await browser.get("/me")).status == 200


async def test_a_refused_access_cookie_is_in_the_security_log(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """JWT-01: one line, as for Bearer; none for one that has only expired."""
    browser = await app.with_tokens()
    browser.age(EXPIRED)
    with caplog.at_level("INFO", logger="routeguard.security"):
        assert (await browser.get("/either")).status == 403
        assert "token-refused" not in caplog.text
        browser.cookies[ACCESS] = "a.b.c"
        assert (await browser.get("/mine")).status == 200
    assert caplog.text.count("token-refused") == 1


async def test_tokens_of_two_sessions_are_not_mixed(app: App) -> None:
    """A refresh token of another user beside a good access token renews nothing of his."""
    mine, other = await app.with_tokens(), await app.with_tokens()
    mine.age(NEAR)
    mine.cookies[REFRESH] = other.cookies[REFRESH]
    assert json.loads((await mine.get("/auth/session")).body)["user"]["id"] == mine.id
    assert (await other.get("/me")).status == 200
    assert [row.generation for row in await rows(app)] == [0, 0]


async def test_the_session_cookie_goes_first(app: App) -> None:
    browser = await app.signed_in()
    tokens = await app.with_tokens()
    browser.cookies |= tokens.cookies
    browser.cookies[ACCESS] = "a.b.c"
    assert json.loads((await browser.get("/auth/session")).body)["user"]["id"] == browser.id
    assert browser.cookies[REFRESH] == tokens.cookies[REFRESH]


async def test_two_of_one_name_are_none(app: App) -> None:
    """CSRF-16: one was planted by somebody else, and order does not tell which."""
    browser, other = await app.with_tokens(), await app.with_tokens()
    for name in (ACCESS, REFRESH):
        cookies = f"{name}={browser.cookies[name]}; {name}={other.cookies[name]}"
        assert (await app.ask("GET", "/me", [("cookie", cookies)])).status == 401
    assert [row.generation for row in await rows(app)] == [0, 0]


@pytest.mark.parametrize(("age", "status"), [(NEAR, 200), (EXPIRED, 503)])
async def test_a_store_that_is_away_is_no_reason_to_sign_out(
    app: App, monkeypatch: pytest.MonkeyPatch, age: float, status: int
) -> None:
    """AZ-16: a token that still is good goes on; without one it is 503, and no cookie is touched."""
    browser = await app.with_tokens()
    assert (await browser.get("/me")).status == 200
    browser.age(age)
    before = dict(browser.cookies)

    async def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("database")

    with monkeypatch.context() as broken:
        broken.setattr(RefreshFamilies, "rotate", away)
        answer = await browser.get("/me")
        perhaps = await browser.get("/perhaps")
    assert (answer.status, perhaps.status) == (status, status)
    assert cookies_of(answer) == {}
    assert browser.cookies == before
    assert (await browser.get("/me")).status == 200
    assert browser.cookies != before


async def test_signing_out_takes_all(app: App) -> None:
    """SES-17, CK-12: by the cookies of tokens alone, even spent ones; a copy of them opens nothing."""
    for age in (0, EXPIRED):
        browser = await app.with_tokens()
        browser.age(age)
        copy = browser.copy()
        answer = await browser.post("/auth/sign-out", {})
        assert answer.status == 204
        assert browser.cookies == {}
        assert (await copy.get("/me")).status == 401
        assert await rows(app) == []


async def test_signing_out_ends_the_access_cookies_session_too(app: App) -> None:
    """SES-17: it is another one than the session cookie's, and nobody will see it in this browser again."""
    browser, other = await app.signed_in(), await app.with_tokens()
    browser.cookies[ACCESS] = other.cookies[ACCESS]
    assert (await browser.post("/auth/sign-out", {})).status == 204
    assert (await other.get("/me")).status == 401


async def test_signing_out_everywhere_takes_all(app: App) -> None:
    """SES-09, SES-18"""
    user = await app.user()
    browsers = [await app.with_tokens(user) for _ in range(3)]
    assert (await browsers[0].post("/auth/sign-out-everywhere", {})).status == 204
    assert browsers[0].cookies == {}
    for browser in browsers[1:]:
        assert (await browser.get("/me")).status == 401
    assert await rows(app) == []


async def test_a_sign_in_ends_what_the_tokens_stood_for(app: App) -> None:
    """SES-01: who signs in where another is signed in by tokens leaves nothing of his behind."""
    before = await app.with_tokens()
    copy = before.copy()
    assert (await before.post("/auth/sign-up", dict(PERSON, name="New"))).status == 201
    assert (await before.post("/auth/sign-in", PERSON)).status == 200
    assert set(before.cookies) == {SESSION}
    assert (await copy.get("/me")).status == 401
    assert await rows(app) == []


async def test_another_password_makes_the_tokens_of_before_void(app: App) -> None:
    """The browser that changed it goes on with new ones, by whichever cookies it came; a copy of the old does not."""
    for kept in ([SESSION, ACCESS, REFRESH], [ACCESS, REFRESH]):
        person = {"email": f"p{len(kept)}@example.test", "password": PERSON["password"]}
        browser = TokenBrowser(app, {}, "", session=None)  # type: ignore[arg-type]
        assert (await browser.post("/auth/sign-up", dict(person, name="New"))).status == 201
        assert (await browser.post("/auth/sign-in", person)).status == 200
        assert (await browser.post("/auth/token", {"cookies": True})).status == 200
        browser.cookies = {name: browser.cookies[name] for name in kept}
        # Proofs are told apart by the second.
        await _proven_earlier(app, browser)
        thief = browser.copy()
        changed = {"current_password": person["password"], "new_password": "eight red foxes at dusk"}
        assert (await browser.post("/auth/password/change", changed)).status == 204
        assert (await browser.get("/me")).status == 200
        browser.cookies.pop(ACCESS, None)
        assert (await browser.get("/me")).status == 200
        held = dict(thief.cookies)
        thief.cookies = {REFRESH: held[REFRESH]}
        assert (await thief.get("/me")).status == 401
        thief.cookies = {ACCESS: held[ACCESS]}
        assert (await thief.get("/me")).status == 401
        bearer = [("authorization", f"Bearer {held[ACCESS]}")]
        assert (await app.ask("GET", "/me", bearer)).status == 401


async def test_a_user_with_much_to_show_still_fits(sqlite_url: str, tmp_path: Path) -> None:
    """CK-09: cookies say who he is and not what he looks like."""
    async with App.run(sqlite_url, tmp_path, user=Talkative) as app:
        user = await app.user(essay="x" * 6000, image="https://example.test/" + "y" * 1900)
        browser = await app.with_tokens(user)
        assert all(len(value) < 1500 for value in browser.cookies.values())
        del browser.cookies[ACCESS]
        assert json.loads((await browser.get("/auth/session")).body)["user"]["essay"] == "x" * 6000


async def _proven_earlier(app: App, browser: TokenBrowser) -> None:
    """Let the user have proven himself a while ago, and the browser have got its tokens then."""
    table, services = sessions.sessions, app.guard.services
    async with app.database.transaction() as tx:
        await tx.execute(sa.update(table).values(authenticated_at=table.c.authenticated_at - 60))
        found = await tx.one(sa.select(table.c.user_id, table.c.id).order_by(table.c.created_at.desc()).limit(1))
        await services.get(Invalidations).invalidate(tx, found.id)
    claims = await services.get(AccessTokens).find(browser.cookies[ACCESS].encode())
    session = await services.get(SessionsById).find(
        found.user_id, found.id, proven_at=claims.auth_time - 60, whole_seconds=True
    )
    assert session is not None
    browser.cookies[ACCESS] = services.get(AccessTokens).mint(session, client_id="routeguard", include_user=False)
    before = TokenBrowser(app, {ACCESS: browser.cookies[ACCESS]}, "", session=session)
    assert (await before.get("/me")).status == 200


def _forget(app: App) -> None:
    """What another process, or this one after the grace, knows of rotations underway."""
    app.guard.services.get(Tokens)._underway.clear()


async def _no_grace_left(app: App) -> None:
    table = store.refresh_families
    async with app.database.transaction() as tx:
        await tx.execute(sa.update(table).values(rotated_at=table.c.rotated_at - 60))


PERSON = {"email": "new@example.test", "password": "seven grey herons at dawn"}
