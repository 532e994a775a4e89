"""The two routes: pairs for programs and for browsers, and one refusal for all that is no good."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from routeguard.core.problem import Problem
from routeguard.identity.sessions.routes import _SignOut
from routeguard.identity.tokens.routes import _Refresh
from routeguard.protection.traffic.models import TrafficSettings
from tests.attacks.world import ORIGIN
from tests.tokens.app import ACCESS, REFRESH, SESSION, App, TokenBrowser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.wire import Result

COVERS = (
    "identity/tokens/ambient",
    "identity/tokens/bearer",
    "identity/tokens/checks",
    "identity/tokens/cookies",
    "identity/tokens/problems",
    "identity/tokens/routes",
)

pytestmark = pytest.mark.anyio

ORIGIN_FIELD = ("origin", ORIGIN)


@pytest.fixture(scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory, _migrated_sqlite: Path) -> AsyncIterator[App]:
    directory = tmp_path_factory.mktemp("routes")
    path = shutil.copyfile(_migrated_sqlite, directory / "routeguard.db")
    async with App.run(f"sqlite:///{path}", directory) as app:
        yield app


async def refresh(app: App, text: Any, *headers: tuple[str, str]) -> Result:
    body = json.dumps({"refresh_token": text}).encode()
    return await app.ask("POST", "/auth/token/refresh", [("content-type", "application/json"), *headers], body=body)


async def bearer(app: App, target: str, token: str, method: str = "GET") -> Result:
    return await app.ask(method, target, [("authorization", f"Bearer {token}")])


async def test_a_pair_for_a_program(app: App) -> None:
    browser = await app.signed_in()
    answer = await browser.post("/auth/token", {})
    assert answer.status == 200
    assert answer.header("cache-control") == "no-store"
    pair = json.loads(answer.body)
    assert set(pair) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (pair["token_type"], pair["expires_in"]) == ("Bearer", 900)
    assert set(browser.cookies) == {SESSION}
    assert (await bearer(app, "/me", pair["access_token"])).status == 200
    following = await refresh(app, pair["refresh_token"])
    assert following.status == 200
    assert following.header("cache-control") == "no-store"
    assert not [value for name, value in following.headers if name == b"set-cookie"]
    again = json.loads(following.body)
    assert set(again) == set(pair)
    assert again["refresh_token"] != pair["refresh_token"]
    assert (await bearer(app, "/me", again["access_token"])).status == 200


async def test_a_bodiless_request_is_one_for_a_pair(app: App) -> None:
    browser = await app.signed_in()
    answer = await browser.ask("POST", "/auth/token")
    assert "refresh_token" in json.loads(answer.body)


async def test_an_access_token_gets_no_refresh_token(app: App) -> None:
    """A copy of one is good for minutes, and must not become one that is good for days."""
    browser = await app.signed_in()
    pair = json.loads((await browser.post("/auth/token", {})).body)
    assert (await bearer(app, "/auth/token", pair["access_token"], "POST")).problem == "permission-denied"
    both = [*browser.headers(), ("authorization", f"Bearer {pair['access_token']}")]
    assert (await app.ask("POST", "/auth/token", both)).problem == "permission-denied"
    tokens = await app.with_tokens()
    assert (await tokens.post("/auth/token", {})).status == 200


async def test_a_session_gets_another_family_and_both_go_on(app: App) -> None:
    browser = await app.signed_in()
    first = json.loads((await browser.post("/auth/token", {})).body)
    second = json.loads((await browser.post("/auth/token", {})).body)
    for pair in (first, second):
        assert (await refresh(app, pair["refresh_token"])).status == 200


async def test_a_pair_for_a_browser(app: App) -> None:
    browser = await app.signed_in()
    answer = await browser.post("/auth/token", {"cookies": True})
    assert json.loads(answer.body) == {"token_type": "Bearer", "expires_in": 900}
    cookies = [value.decode() for name, value in answer.headers if name == b"set-cookie"]
    assert [cookie.partition("=")[0] for cookie in cookies] == [ACCESS, REFRESH]
    for cookie, life in zip(cookies, (900, 7 * 86400), strict=True):
        parts = cookie.split("; ")
        assert {"Path=/", "HttpOnly", "SameSite=Lax"} <= set(parts)
        [max_age] = [int(part.partition("=")[2]) for part in parts if part.startswith("Max-Age=")]
        assert life - 60 <= max_age <= life
    before = dict(browser.cookies)
    answer = await browser.ask("POST", "/auth/token/refresh")
    assert json.loads(answer.body) == {"token_type": "Bearer", "expires_in": 900}
    assert all(browser.cookies[name] != before[name] for name in (ACCESS, REFRESH))


async def test_behind_https_the_cookies_have_the_prefix(tmp_path: Path, sqlite_url: str) -> None:
    """CK-13"""
    async with App.run(sqlite_url, tmp_path, issuer="https://id.example") as app:
        browser = await app.signed_in()
        answer = await browser.ask(
            "POST",
            "/auth/token",
            ("content-type", "application/json"),
            body=b'{"cookies": true}',
            origin="https://id.example",
        )
        assert answer.status == 200
        cookies = [value.decode() for name, value in answer.headers if name == b"set-cookie"]
        assert [cookie.partition("=")[0] for cookie in cookies] == [f"__Host-{ACCESS}", f"__Host-{REFRESH}"]
        assert all("; Secure" in cookie for cookie in cookies)
        plain = {name.removeprefix("__Host-"): value for name, value in browser.cookies.items() if ACCESS in name}
        assert (await TokenBrowser(app, plain, browser.id, session=browser.session).get("/me")).status == 401


async def test_every_refusal_is_the_same(app: App) -> None:
    """SES-22, ENUM-01: unknown, changed, spent long ago, of an ended session, an access token, nothing: one answer."""
    browser = await app.signed_in()
    pairs = [json.loads((await browser.post("/auth/token", {})).body) for _ in range(3)]
    ended = await app.signed_in()
    dead = json.loads((await ended.post("/auth/token", {})).body)["refresh_token"]
    assert (await ended.post("/auth/sign-out", {})).status == 204
    spent = pairs[0]["refresh_token"]
    following = json.loads((await refresh(app, spent)).body)["refresh_token"]
    assert (await refresh(app, following)).status == 200
    tokens = [
        dead,
        pairs[1]["access_token"],
        pairs[1]["refresh_token"][:-1] + "!",
        "",
        "x",
        "x.y",
        "é",
        "a" * 5000,
        "\t",
        spent,
        pairs[2]["refresh_token"],
    ]
    answers = [await refresh(app, token) for token in tokens]
    answers += [await app.ask("POST", "/auth/token/refresh"), await refresh(app, None)]
    seen = set()
    for answer in answers:
        assert answer.problem == "invalid-token"
        assert answer.status == 401
        assert answer.header("www-authenticate") == 'Bearer error="invalid_token"'
        body = json.loads(answer.body)
        del body["instance"]
        seen.add((json.dumps(body), tuple(name for name, _ in answer.headers)))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"refresh_token": 5}', 422),
        (b'{"refresh_token": ["x"]}', 422),
        (b'{"refresh_token": "x", "cookies": true}', 422),
        (b'{"refresh_token": "x", "refresh_token": "y"}', 400),
        (b"[]", 422),
        (b"{", 400),
        (b'{"refresh_token": "' + b"x" * 70_000 + b'"}', 413),
    ],
    ids=["number", "list", "unknown member", "twice", "no object", "cut off", "too long"],
)
async def test_what_is_no_request_is_refused(app: App, body: bytes, status: int) -> None:
    headers = [("content-type", "application/json")]
    assert (await app.ask("POST", "/auth/token/refresh", headers, body=body)).status == status


async def test_a_pair_takes_a_session(app: App) -> None:
    assert (await app.ask("POST", "/auth/token")).problem == "authentication-required"
    browser = await app.signed_in()
    assert (await browser.ask("POST", "/auth/token", origin="https://attacker.example")).problem == "forgery-suspected"


async def test_a_foreign_page_rotates_nothing(app: App) -> None:
    """CSRF-03, CSRF-09: with the cookie the request is a browser's; the token in the body needs none."""
    browser = await app.with_tokens()
    before = dict(browser.cookies)
    for origin in ("https://attacker.example", "null", None):
        answer = await browser.ask("POST", "/auth/token/refresh", origin=origin)
        assert answer.problem == "forgery-suspected"
    assert browser.cookies == before
    assert (await browser.ask("POST", "/auth/token/refresh")).status == 200
    program = json.loads((await browser.post("/auth/token", {})).body)["refresh_token"]
    assert (await refresh(app, program, ("cookie", "other=1"), ("origin", "https://elsewhere.example"))).status == 200


async def test_the_body_counts_where_both_are_sent(app: App) -> None:
    browser = await app.with_tokens()
    pair = json.loads((await browser.post("/auth/token", {})).body)
    before = dict(browser.cookies)
    answer = await browser.post("/auth/token/refresh", {"refresh_token": pair["refresh_token"]})
    assert "refresh_token" in json.loads(answer.body)
    assert browser.cookies == before


async def test_a_token_is_sent_in_one_way(app: App) -> None:
    """JWT-39"""
    browser = await app.with_tokens()
    token = browser.cookies[ACCESS]
    twice = await browser.get("/me", ("authorization", f"Bearer {token}"))
    assert twice.problem == "malformed-request"
    other = json.loads((await browser.post("/auth/token", {})).body)["access_token"]
    assert (await browser.get("/me", ("authorization", f"Bearer {other}"))).status == 200
    assert (await browser.get(f"/me?access_token={other}")).status == 400


async def test_a_bearer_counts_alone(app: App) -> None:
    """A token that is no good is 401, whatever cookies came along, and rotates nothing."""
    browser = await app.with_tokens()
    before = dict(browser.cookies)
    del browser.cookies[ACCESS]
    assert (await browser.get("/me", ("authorization", "Bearer x.y.z"))).status == 401
    assert browser.cookies[REFRESH] == before[REFRESH]


async def test_refreshes_of_one_address_are_limited(tmp_path: Path, sqlite_url: str) -> None:
    """RL-19: 300 a minute, 60 at once; nobody's token is needed to use them up, and none is spent by a refusal."""
    async with App.run(sqlite_url, tmp_path, traffic=TrafficSettings()) as app:
        pair = json.loads((await (await app.signed_in()).post("/auth/token", {})).body)
        place: dict[str, Any] = {"client": ("192.0.2.77", 4000)}
        statuses = [(await app.ask("POST", "/auth/token/refresh", **place)).status for _ in range(120)]
        assert statuses[:60] == [401] * 60
        assert 429 in statuses[60:]
        refused = await app.ask("POST", "/auth/token/refresh", **place)
        assert int(refused.header("retry-after") or 0) >= 1 if refused.status == 429 else refused.status == 401
        assert (await refresh(app, pair["refresh_token"])).status == 200


async def test_signing_out_by_a_token_ends_the_session(app: App) -> None:
    """SES-17: by Bearer as by cookie; every credential of the session is void."""
    browser = await app.signed_in()
    pair = json.loads((await browser.post("/auth/token", {})).body)
    answer = await bearer(app, "/auth/sign-out", pair["access_token"], "POST")
    assert answer.status == 204
    assert (await browser.get("/me")).status == 401
    assert (await bearer(app, "/me", pair["access_token"])).status == 401
    assert (await refresh(app, pair["refresh_token"])).problem == "invalid-token"


@pytest.mark.parametrize("credential", ["expired", "rubbish", "empty"])
async def test_signing_out_by_a_token_that_is_no_good_is_refused(app: App, credential: str) -> None:
    """It would say "done" of what goes on. Its refresh token is the way out."""
    browser = await app.signed_in()
    pair = json.loads((await browser.post("/auth/token", {})).body)
    browser.age(3600)
    token = {"expired": browser.cookies.pop(ACCESS), "rubbish": "a.b.c", "empty": ""}[credential]
    header = ("authorization", f"Bearer {token}")
    assert (await app.ask("POST", "/auth/sign-out", [header])).problem == "authentication-required"
    assert (await app.ask("POST", "/auth/sign-out", [("cookie", f"{ACCESS}=a.b.c"), ORIGIN_FIELD])).status == 204
    assert (await browser.get("/me")).status == 200
    body = json.dumps({"refresh_token": pair["refresh_token"]}).encode()
    content = ("content-type", "application/json")
    assert (await app.ask("POST", "/auth/sign-out", [header, content], body=body)).status == 204
    assert (await browser.get("/me")).status == 401
    assert (await refresh(app, pair["refresh_token"])).status == 401
    assert (await app.ask("POST", "/auth/sign-out", [content], body=body)).status == 204
    assert (await app.ask("POST", "/auth/sign-out", [content], body=b'{"other": 1}')).status == 422


def test_a_request_shows_no_token() -> None:
    assert "secret" not in repr(_Refresh("secret")) + repr(_SignOut("secret"))


def test_the_problem_is_a_value() -> None:
    from routeguard.identity.tokens.problems import invalid_token

    assert isinstance(invalid_token("why"), Problem)
    assert "why" not in json.dumps(invalid_token("why").body())
