"""What a service is told: introspection and the feed of what was revoked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from routeguard.core.address import Address, parse_address
from routeguard.core.errors import Unavailable
from routeguard.core.problem import Problem, authentication_required
from routeguard.foundation.invalidation.store import insert_invalidations
from routeguard.identity.api_keys.models import ApiKey
from routeguard.identity.oauth_server import routes as oauth_server_routes
from routeguard.identity.oauth_server.introspection import Introspection
from routeguard.identity.oauth_server.models import ClientSettings
from routeguard.identity.sessions.resolver import CookieSessions
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.sessions.sources import SessionSources
from routeguard.identity.users.service import Users
from routeguard.protection.traffic.problems import NETWORK_NOT_ALLOWED, QUOTA_EXCEEDED
from tests.oauth_server.world import ISSUER, JSON, Service, World

COVERS = ("identity/oauth_server/feature", "identity/oauth_server/introspection")

pytestmark = pytest.mark.anyio
FORM = {"content-type": "application/x-www-form-urlencoded"}
INACTIVE = {"active": False}


async def test_a_session_is_told_with_its_user(world: World, shop: Service) -> None:
    user = await world.user()
    told = await shop.introspect(await world.cookie(user), token_type_hint="session")
    assert told["active"] is True
    assert told["token_type"] == "session"
    assert told["sub"] == user.id
    assert told["sid"].startswith("ses_")
    assert told["user"]["email"] == user.email
    assert (told["acr"], told["amr"]) == ("aal1", ["pwd"])
    assert told["iat"] <= told["auth_time"] + 1 < told["exp"]
    # Nothing of it opens anything.
    assert "secret" not in json.dumps(told)


async def test_an_access_token_is_told_with_its_session(world: World, shop: Service) -> None:
    """RFC 7662 section 2.2: what the token says, and who stands behind it now."""
    user = await world.user()
    cookie = {"cookie": f"__Host-routeguard={await world.cookie(user)}", "origin": ISSUER}
    pair = json.loads((await world.send("POST", "/auth/token", cookie | JSON, b"{}")).body)
    told = await shop.introspect(pair["access_token"], token_type_hint="access_token")
    assert (told["active"], told["token_type"], told["sub"]) == (True, "access_token", user.id)
    assert (told["iss"], told["aud"]) == (ISSUER, ISSUER)
    assert 0 < told["exp"] - told["iat"] <= 900
    assert told["user"]["name"] == "Ann"
    # A refresh token opens nothing at a service, and it must not be shown to one.
    assert await shop.introspect(pair["refresh_token"]) == INACTIVE
    async with world.database.transaction() as tx:
        await world.guard.services.get(Users).set_role(tx, user.id, "admin")
    assert (await shop.introspect(pair["access_token"]))["user"]["role"] == "admin"
    assert (await world.send("POST", "/auth/sign-out", cookie)).status == 204
    assert await shop.introspect(pair["access_token"]) == INACTIVE


async def test_a_form_is_read_as_well(world: World, shop: Service) -> None:
    """RFC 7662 section 2.1."""
    body = urlencode({"token": await world.cookie(await world.user()), "token_type_hint": "whatever"}).encode()
    answer = await shop.call("POST", "/oauth/introspect", body, FORM)
    assert json.loads(answer.body)["active"] is True
    assert dict(answer.headers)[b"cache-control"] == b"private, no-store"


async def test_an_answer_sets_no_cookie(world: World, shop: Service) -> None:
    """A renewed cookie is its browser's alone."""
    body = json.dumps({"token": await world.cookie(await world.user())}).encode()
    answer = await shop.call("POST", "/oauth/introspect", body, JSON)
    assert b"set-cookie" not in dict(answer.headers)


async def test_whatever_is_no_good_is_told_alike(world: World, shop: Service) -> None:
    """OAP-29: garbage, forged, ended, suspended, of another kind: `{"active": false}` and no more."""
    user, other = await world.user(), await world.user()
    ended, suspended = await world.cookie(user), await world.cookie(other)
    services = world.guard.services
    async with world.database.transaction() as tx:
        await services.get(Sessions).revoke_all(tx, user.id, reason="revoked")
        await services.get(Users).suspend(tx, other.id)
    good = await world.cookie(await world.user())
    tokens = [
        "",
        ".",
        "..",
        "x" * 8000,
        "a.b",
        "ä",
        "a;b.c",
        "a b.c",
        "rg_",
        "rg_live_x_y",
        "rg_ä",
        "null",
        ended,
        suspended,
        good[:-1],
        good + "A",
        good.replace(".", ""),
        f"{good}; x=1",
        f"routeguard={good}",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1c3JfMSJ9.",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1c3JfMSJ9.AAAA",
    ]
    for token in tokens:
        assert await shop.introspect(token) == INACTIVE, token
    assert (await shop.introspect(good))["active"] is True


QUESTIONS = [
    (b"{}", JSON, 422),
    (b'{"token": 1}', JSON, 422),
    (b'{"token": "a", "more": 1}', JSON, 422),
    (b'{"token": "a", "token": "b"}', JSON, 400),
    (b'{"token": "a", "address": "nowhere"}', JSON, 422),
    (b'{"token": "a", "address": "010.0.0.1"}', JSON, 422),
    (b"token=a&token=b", FORM, 400),
    (b"[]", JSON, 422),
    (b"<token/>", {"content-type": "text/xml"}, 415),
    (b"", {}, 422),
]


async def test_a_question_that_is_none(world: World, shop: Service) -> None:
    for body, headers, status in QUESTIONS:
        assert (await shop.call("POST", "/oauth/introspect", body, headers)).status == status, body


async def test_nobody_asks_without_a_signature(world: World) -> None:
    """OAP-29: neither a guest nor a signed-in user."""
    cookie = {"cookie": f"__Host-routeguard={await world.cookie(await world.user())}"}
    body = b'{"token": "x"}'
    for headers in ({}, cookie):
        assert (await world.send("POST", "/oauth/introspect", headers | JSON, body)).status == 401
        assert (await world.send("GET", "/oauth/invalidations", headers)).status == 401


async def test_what_cannot_be_told_is_503(world: World, shop: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """AZ-16: an outage is not `{"active": false}`, which would sign everybody out."""

    async def away(*_: object) -> None:
        raise Unavailable("the database")

    monkeypatch.setattr(CookieSessions, "resume", away)
    body = b'{"token": "abc.def"}'
    answer = await shop.call("POST", "/oauth/introspect", body, JSON)
    assert answer.status == 503
    assert b"retry-after" in dict(answer.headers)


async def feed(shop: Service, query: str) -> dict[str, Any]:
    answer = await shop.call("GET", f"/oauth/invalidations{query}")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def test_the_feed_names_what_was_revoked(world: World, shop: Service) -> None:
    user = await world.user()
    await world.cookie(user)
    before = await feed(shop, "?window=600")
    last = max((row[0] for row in before["rows"]), default=0)
    async with world.database.transaction() as tx:
        await world.guard.services.get(Sessions).revoke_all(tx, user.id, reason="revoked")
    after = await feed(shop, f"?after={last}&window=0")
    assert after["rows"]
    assert all(number > last and abs(at - after["now"]) < 600 for number, _, at in after["rows"])
    subjects = {subject for _, subject, _ in after["rows"]}
    assert any(subject == user.id or subject.startswith("ses_") for subject in subjects)
    newest = after["rows"][-1][0]
    assert (await feed(shop, f"?after={newest}&window=0"))["rows"] == []
    # Whoever knows nothing yet asks for a span of time.
    assert subjects <= {subject for _, subject, _ in (await feed(shop, "?window=600"))["rows"]}
    assert (await feed(shop, ""))["rows"] == []


async def test_the_feed_comes_in_pages(world: World, shop: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """SES-18"""
    monkeypatch.setattr(oauth_server_routes, "_PAGE", 3)
    async with world.database.transaction() as tx:
        await insert_invalidations(tx, [f"ses_{number}" for number in range(7)])
    for query in ("?window=600", "?window=0&after=0"):
        pages, beyond = [], 0
        while True:
            page = await feed(shop, f"{query}&beyond={beyond}")
            pages.append(page["rows"])
            if not page["more"]:
                break
            assert len(page["rows"]) == 3
            beyond = page["rows"][-1][0]
        rows = [row for page in pages for row in page]
        assert rows == sorted(rows)
        assert {f"ses_{number}" for number in range(7)} <= {subject for _, subject, _ in rows}
        assert len({number for number, _, _ in rows}) == len(rows)


QUERIES = [
    "after=-1",
    "after=x",
    "after=1&after=2",
    "after=",
    "after=1e3",
    "after=%D9%A3",
    "after=" + "9" * 19,
    "after=" + "9" * 5000,
    "beyond=-1",
    "beyond=x",
    "beyond=1&beyond=2",
    "window=3601",
    "window=0.5",
    "window=nan",
]


async def test_a_feed_that_cannot_be_asked_for(world: World, shop: Service) -> None:
    for query in QUERIES:
        assert (await shop.call("GET", f"/oauth/invalidations?{query}")).status == 422, query


async def test_a_client_has_a_rate_of_its_own(sqlite_url: str) -> None:
    async with World.open(sqlite_url, clients=ClientSettings(rate="3/hour")) as world:
        shop, other = await world.client(), await world.client("other")
        answers = [await shop.call("GET", "/oauth/invalidations") for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert (await other.call("GET", "/oauth/invalidations")).status == 200
        # Another endpoint is another budget, so that a busy feed does not stop introspection.
        assert await shop.introspect("x") == INACTIVE


async def test_a_real_key_is_told_and_refused_like_here(world: World, shop: Service) -> None:
    """KEY-05: by the address that the service says it came from."""
    cookie = {"cookie": f"__Host-routeguard={await world.cookie(await world.user())}", "origin": ISSUER}
    body = json.dumps({"name": "ci", "networks": ["198.51.100.0/24"]}).encode()
    made = await world.send("POST", "/auth/api-keys", cookie | JSON, body)
    assert made.status == 201, made.body
    key = json.loads(made.body)
    told = await shop.introspect(key["key"], address="198.51.100.7")
    assert (told["active"], told["token_type"], told["key"]["id"]) == (True, "api_key", key["id"])
    assert key["key"] not in json.dumps(told)
    for address in ({"address": "192.0.2.1"}, {}):
        refused = await shop.introspect(key["key"], **address)
        assert refused == {"active": False, "reason": "network-not-allowed"}
    assert (await world.send("DELETE", f"/auth/api-keys/{key['id']}", cookie)).status in {200, 204}
    assert await shop.introspect(key["key"], address="198.51.100.7") == INACTIVE


class Verifier:
    """Answers with what it was given, and notes what it was asked."""

    def __init__(self, answer: ApiKey | Problem) -> None:
        self.answer = answer
        self.asked: list[tuple[bytes, Address | None]] = []

    async def verify(self, key: bytes, *, address: Address | None) -> ApiKey | Problem:
        self.asked.append((key, address))
        return self.answer


async def ask(world: World, verifier: Verifier, token: str, address: str | None = None) -> dict[str, Any]:
    services = world.guard.services
    introspection = Introspection(
        services.get(SessionSources), services.get(CookieSessions), cookie_name="x", access=None, keys=verifier
    )
    told = await introspection.introspect(token, address=None if address is None else parse_address(address))
    found: dict[str, Any] = json.loads(msgspec.json.encode(told))
    return found


async def test_an_api_key_is_told_with_its_metadata(world: World) -> None:
    key = ApiKey(id="key_1", name="ci", owner_id="usr_1", user_id="usr_1", created_at=datetime.now(UTC))
    verifier = Verifier(key)
    told = await ask(world, verifier, "rg_live_abc", "192.0.2.7")
    assert (told["active"], told["token_type"], told["sub"], told["key"]["id"]) == (True, "api_key", "usr_1", "key_1")
    # Judged by the address of whoever sent the key, not by that of the service that asks (KEY-05).
    assert verifier.asked == [(b"rg_live_abc", parse_address("192.0.2.7"))]


async def test_a_key_that_is_refused_says_why_only_where_its_caller_must_know(world: World) -> None:
    """OAP-29"""
    for problem, told in (
        (authentication_required("revoked"), INACTIVE),
        (NETWORK_NOT_ALLOWED(), {"active": False, "reason": "network-not-allowed"}),
        (
            QUOTA_EXCEEDED(headers=(("retry-after", "7"),)),
            {"active": False, "reason": "quota-exceeded", "retry_after": 7},
        ),
    ):
        assert await ask(world, Verifier(problem), "rg_live_abc") == told


async def test_what_cannot_be_a_key_is_not_looked_up(world: World) -> None:
    verifier = Verifier(authentication_required())
    for text in ("rg_", "rg_live x", "rg_" + "a" * 300, "rg_ä", "rg_\n", "rg_a;b"):
        assert await ask(world, verifier, text) == INACTIVE
    assert verifier.asked == []
