"""RL, PW, ENUM, RED, DDP and SES at the doors of the example application: the same attacks as a stranger sends them."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import sqlalchemy as sa

from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.identity.passwords.hashing import HashingPool
from routeguard.identity.passwords.models import PasswordSettings
from routeguard.identity.users.service import Users
from routeguard.identity.users.store import users
from tests.attacks.test_inj import settle
from tests.attacks.world import COOKIE, ORIGIN, Browser, World, peer
from tests.conformance.wire import Result
from tests.core.test_redirect import ATTACKS as REDIRECTS
from tests.steady import until, work_within

COVERS = ("identity/emails/step",)

pytestmark = pytest.mark.anyio

FORM = ("content-type", "application/x-www-form-urlencoded")
PAGE = (("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-site", "same-origin"))
GOOD = "seven grey herons at dawn"


@pytest.fixture(autouse=True)
def _calm(world: World) -> None:
    world.calm()


async def guess(
    browser: Browser, email: str, password: str = "wrong one", *, form: bool = False, path: str = ""
) -> Result:
    path = path or "/auth/sign-in"
    if form:
        return await browser.ask("POST", path, FORM, body=urlencode({"email": email, "password": password}).encode())
    return await browser.post(path, {"email": email, "password": password})


# -- limits ---------------------------------------------------------------------------------------------------------


async def test_one_address_has_one_budget_for_signing_in(world: World) -> None:
    """RL-19, RL-06, RL-01: JSON, forms, spellings and forwarding fields spend the same; the twin has his own."""
    browser = Browser(world, peer=peer())
    statuses = []
    for number in range(30):
        email, odd = f"p{number}@example.com", number % 2 == 1
        body = (
            urlencode({"email": email, "password": "x"}).encode()
            if odd
            else json.dumps({"email": email, "password": "x"}).encode()
        )
        more = (
            FORM if odd else ("content-type", "application/json"),
            ("x-forwarded-for", f"10.0.0.{number}"),
            ("forwarded", f"for=10.1.0.{number}"),
            ("x-real-ip", f"10.2.0.{number}"),
        )
        statuses.append((await browser.ask("POST", f"/auth/sign-in?x={number}", *more, body=body)).status)
    assert statuses[:20] == [401] * 20
    assert set(statuses[21:]) <= {429, 401}
    assert statuses.count(401) <= 22
    for path in (
        "//auth/sign-in",
        "/auth/sign-in/",
        "/auth/sign-in//",
        "/AUTH/sign-in",
        "/auth/./sign-in",
        "/auth/sign-in;x",
        "/%61uth/sign-in",
    ):
        answer = await guess(browser, "p@example.com", path=path)
        assert answer.status in {404, 405, 429}, (path, answer.status)
    assert (await guess(Browser(world, peer=peer()), "p@example.com")).status == 401


async def test_a_hundred_at_once_are_twenty(world: World) -> None:
    """RL-07: of a hundred sent together from one address the burst passes, and no more."""
    browser = Browser(world, peer=peer())
    answers = await asyncio.gather(*(guess(browser, f"q{number}@example.com") for number in range(100)))
    statuses = [answer.status for answer in answers]
    assert statuses.count(429) >= 78
    assert 20 <= statuses.count(401) + statuses.count(503) <= 22
    refused = next(answer for answer in answers if answer.status == 429)
    assert json.loads(refused.body)["type"].endswith("#quota-exceeded")  # RL-18
    assert int(refused.header("retry-after") or 0) >= 1
    assert re.fullmatch(r'"sign-in";q=\d+;w=\d+(;.*)?', (refused.header("ratelimit-policy") or "").split(", ")[0])


async def test_one_account_has_one_budget_over_all_addresses_and_spellings(world: World) -> None:
    """RL-20, RL-22, RL-10: ten tries, however it is spelt and from wherever; a success elsewhere gives none back."""
    spelled = [
        "bob@example.com",
        "BOB@example.com",
        "Bob@Example.COM",
        "bob+a@example.com",
        "bob+b@example.com",
        "\uff42ob@example.com",
        " bob@example.com",
    ]
    passed = 0
    for number in range(28):
        answer = await guess(Browser(world), spelled[number % len(spelled)])
        assert answer.status in {401, 422, 429}
        passed += answer.status == 401
        if number == 5:
            assert (await guess(Browser(world), "alice@example.com", world.passwords["alice"])).status == 200
    assert passed == 10


async def test_strangers_do_not_lock_the_owner_out(world: World) -> None:
    """RL-11: from where he signed in before, the right password opens during the attack."""
    home = Browser(world, peer=peer())
    assert (await guess(home, "bob@example.com", world.passwords["bob"])).status == 200
    for _ in range(15):
        last = await guess(Browser(world), "bob@example.com")
    assert last.status == 429
    assert (await guess(Browser(world), "bob@example.com", world.passwords["bob"])).status == 429
    assert (await guess(Browser(world, peer=home.peer), "bob@example.com", world.passwords["bob"])).status == 200


async def test_guesses_are_counted_in_the_store_all_share(world: World) -> None:
    """RL-19, RL-07: an empty store is false in Python; a second one made in its place would be nobody's."""
    store: Any = world.guard.services.get(Ephemeral)
    before = set(store._tats.items)
    await guess(Browser(world), "somebody@example.com")
    fresh = set(store._tats.items) - before
    assert any("acc:" in key and ":sign-in:" in key for key in fresh), fresh


# -- passwords ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5_000, 60_000, 1_000_000, 64_000_000])
async def test_a_huge_password_is_not_hashed(world: World, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """PW-02: at every door, in a few milliseconds, and no hash is made."""
    hashed: list[str] = []
    pool = world.guard.services.get(HashingPool)
    alice = await world.browser("alice")
    monkeypatch.setattr(pool, "hash", lambda *_: hashed.append("hash"))
    monkeypatch.setattr(pool, "verify", lambda *_, **__: hashed.append("verify"))
    text = "a" * min(size, 1_000_000)
    for path, name in (
        ("/auth/sign-in", "password"),
        ("/auth/sign-up", "password"),
        ("/auth/password/reset", "password"),
        ("/auth/password/change", "new_password"),
        ("/auth/password/change", "current_password"),
        ("/auth/email/change", "password"),
    ):
        data = {
            "email": "bob@example.com",
            "password": "x",
            "name": "n",
            "token": "a.b",
            "current_password": "x",
            "new_password": GOOD,
        }
        wanted = {
            "/auth/sign-in": ("email", "password"),
            "/auth/sign-up": ("email", "password", "name"),
            "/auth/password/reset": ("token", "password"),
            "/auth/email/change": ("email", "password"),
            "/auth/password/change": ("current_password", "new_password"),
        }[path]
        body = json.dumps({key: text if key == name else data[key] for key in wanted}).encode()
        chunks: Any = [body] if size <= 1_000_000 else [body] * 64
        with work_within(1):
            answer = await alice.ask("POST", path, ("content-type", "application/json"), body=chunks)
        assert answer.status in {400, 413, 422}, (path, answer.status)
    assert hashed == []


async def test_two_hundred_sign_ins_at_once(tmp_path: Path) -> None:
    """PW-12, OPS-20: the pool is bounded, what is over is told to come back, and the loop goes on serving others."""
    settings = PasswordSettings(workers=1, queue=8, time_cost=1, memory=8 * 1024)
    async with World.open(tmp_path, passwords=settings) as world:
        lags: list[float] = []

        async def probe() -> None:
            while True:
                begun = time.perf_counter()
                await asyncio.sleep(0.002)
                lags.append(time.perf_counter() - begun - 0.002)

        # Hashes end when all but those there is room for are refused, however fast this machine hashes.
        pool: Any = world.guard.services.get(HashingPool)
        go_on = threading.Event()
        pool._executor.submit(go_on.wait, 60)
        answered: list[Result] = []

        async def sign_in(number: int) -> Result:
            answered.append(await guess(Browser(world), f"n{number}@example.com"))
            return answered[-1]

        prober = asyncio.create_task(probe())
        guesses = [asyncio.create_task(sign_in(number)) for number in range(200)]
        await until(lambda: len(answered) == 191)
        go_on.set()
        answers = await asyncio.gather(*guesses)
        prober.cancel()
        statuses = {answer.status for answer in answers}
        assert statuses == {401, 503}
        assert all(answer.header("retry-after") for answer in answers if answer.status == 503)
        assert sum(answer.status == 401 for answer in answers) == 9
        assert statistics.median(lags) < 0.5
        world.calm()
        assert (await guess(Browser(world), "bob@example.com", world.passwords["bob"])).status == 200


async def test_a_stolen_session_changes_no_credential(world: World) -> None:
    """PW-14: without the current password neither password nor address; and nothing changes."""
    thief = await world.browser("bob")
    before = await world.rows()
    for path, body in (
        ("/auth/password/change", {"current_password": "guess", "new_password": GOOD}),
        ("/auth/password/change", {"current_password": "", "new_password": GOOD}),
        ("/auth/password/change", {"new_password": GOOD}),
        ("/auth/password/change", {"current_password": None, "new_password": GOOD}),
        ("/auth/email/change", {"email": "thief@example.com", "password": "guess"}),
        ("/auth/email/change", {"email": "thief@example.com"}),
    ):
        assert (await thief.post(path, body)).status in {401, 422}, path
    assert await world.rows() == before
    with_it = {"email": "bob2@example.com", "password": world.passwords["bob"]}
    assert (await thief.post("/auth/email/change", with_it)).status == 202


# -- who has an account ---------------------------------------------------------------------------------------------


def seen(answer: Result) -> tuple[Any, ...]:
    body = re.sub(rb'"instance":"[^"]*"', b"", answer.body)
    body = re.sub(rb'"email":"[^"]*"', b"", body)
    body = (
        re.sub(rb"nonce[-=][^'\"]*[\"']?[\w-]*", b"", body)
        .replace(b"known@example.com", b"")
        .replace(b"other@example.com", b"")
    )
    headers = [
        (name, re.sub(rb"nonce-[\w-]+", b"", value)) for name, value in answer.headers if name != b"content-length"
    ]
    return answer.status, body, headers


@pytest.mark.parametrize("page", [False, True], ids=["program", "browser"])
@pytest.mark.parametrize(
    "path",
    ["/auth/sign-in", "/auth/sign-up", "/auth/password/forgot", "/auth/email/resend"],
    ids=["ENUM-01", "ENUM-03", "ENUM-04", "ENUM-09"],
)
async def test_nobody_learns_who_has_an_account(world: World, path: str, page: bool) -> None:
    """Byte for byte, but for what the caller said himself: known, unknown, suspended, unproven."""
    await Browser(world).post("/auth/sign-up", {"email": "unproven@example.com", "password": GOOD, "name": "x"})
    await Browser(world).post("/auth/sign-up", {"email": "known@example.com", "password": GOOD, "name": "x"})
    await Browser(world).post("/auth/sign-up", {"email": "ended@example.com", "password": GOOD, "name": "x"})
    async with world.database.transaction() as tx:
        ended = await tx.scalar(sa.select(users.c.id).where(users.c.email == "ended@example.com"))
        await tx.execute(sa.update(users).where(users.c.id == ended).values(suspended_at=1.0))
    answers = set()
    for email in ("known", "other", "ended", "unproven"):
        typed = {"email": f"{email}@example.com", "password": "wrong one" if "in" in path else GOOD}
        fields = {key: typed[key] for key in ("email", "password") if key == "email" or "sign" in path}
        if path == "/auth/sign-up":
            fields["name"] = "x"
        if page:
            body, kind = urlencode(fields).encode(), FORM
        else:
            body, kind = json.dumps(fields).encode(), ("content-type", "application/json")
        answer = await Browser(world).ask("POST", path, kind, *(PAGE if page else ()), body=body)
        found = repr(seen(answer)).replace(quote(f"{email}@example.com"), "").replace(f"{email}@example.com", "")
        answers.add(found)
    assert len(answers) == 1, answers
    await settle(world)


# -- where they are sent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", REDIRECTS)
async def test_after_signing_in_nobody_is_sent_away(world: World, case: str) -> None:
    """RED: as a form's field, as the page's parameter, and for who is signed in already."""
    for target in REDIRECTS[case]:
        world.calm()
        fields = {"email": "bob@example.com", "password": world.passwords["bob"], "next": target}
        try:
            body = urlencode(fields).encode()
        except UnicodeEncodeError:
            continue  # Half a character fits in no form.
        answer = await Browser(world).ask("POST", "/auth/sign-in", FORM, *PAGE, body=body)
        assert (answer.status, answer.header("location")) == (303, "/account"), target  # RED-14
        asked = f"/auth/sign-in?next={quote(target)}"
        shown = await Browser(world).get(asked, *PAGE)
        assert shown.status == 200
        assert b'name="next"' not in shown.body or b'name="next" value=""' in shown.body, target
    bob = await world.browser("bob")
    for target in REDIRECTS[case]:
        if not target.isprintable() and "\ud800" <= target[-1] <= "\udfff":
            continue  # Nor in an address.
        onward = await bob.get(f"/auth/sign-in?next={quote(target, errors='replace')}", *PAGE)
        assert (onward.status, onward.header("location")) == (303, "/account"), target
    # The twin: a place of ours is gone to.
    fields = {"email": "bob@example.com", "password": world.passwords["bob"], "next": "/api/me?x=1"}
    world.calm()
    answer = await Browser(world).ask("POST", "/auth/sign-in", FORM, *PAGE, body=urlencode(fields).encode())
    assert answer.header("location") == "/api/me?x=1"


@pytest.mark.parametrize("target", ["//evil.example", "/\\evil.example", "/%5cevil.example", "/%2f%2fevil.example"])
async def test_the_way_to_sign_in_carries_no_foreign_place(world: World, target: str) -> None:
    """RED-02, RED-08: what a guest asked for is carried along only when the sign-in page would go there."""
    for path in (f"/account{target}", f"/account?x={target}", "/account"):
        answer = await Browser(world).get(path, *PAGE)
        if answer.status == 303:
            location = answer.header("location") or ""
            assert location.startswith("/auth/sign-in")
            assert "evil.example" not in location or location.startswith("/auth/sign-in?next=/account")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_password_is_never_sent_on(world: World, method: str) -> None:
    """RED-14: another spelling of a path of ours is none; 307 would make the browser send the password again."""
    for row in world.routes():
        if row.path.startswith(("/auth", "/account")) and "{" not in row.path:
            for target in (f"{row.path}/", f"{row.path}//", f"{row.path}/?next=/x"):
                answer = await Browser(world).ask(method, target, FORM, body=b"email=a%40example.com&password=x")
                assert answer.status == 404, (target, answer.status, answer.header("location"))


# -- at once --------------------------------------------------------------------------------------------------------


async def test_equal_requests_of_different_callers_are_not_joined(world: World) -> None:
    """DDP-01: same body at once, other session, other address: each his own answer."""
    alice, bob = await world.browser("alice"), await world.browser("bob")
    for browser in (alice, bob):
        browser.peer = "198.51.100.7"  # Behind one gateway.
    pairs = await asyncio.gather(*(one.get("/api/me") for one in (alice, bob) * 8))
    assert [json.loads(answer.body)["id"] for answer in pairs] == [alice.id, bob.id] * 8
    made = await asyncio.gather(*(one.post("/api/invoices", {"title": "a", "amount": 1}) for one in (alice, bob)))
    assert len({json.loads(answer.body)["id"] for answer in made}) == 2
    # Two who sign in at once from one address, one of them wrongly: never the other's cookie.
    right, wrong = Browser(world, peer="198.51.100.8"), Browser(world, peer="198.51.100.8")
    first, second = await asyncio.gather(
        guess(right, "bob@example.com", world.passwords["bob"]), guess(wrong, "bob@example.com", "wrong one")
    )
    assert (first.status, second.status) == (200, 401)
    assert COOKIE in right.cookies
    assert COOKIE not in wrong.cookies


async def test_signing_out_at_once_ends_both_sessions(world: World) -> None:
    """DDP-01: the same empty request, from one address, with two cookies."""
    alice, bob = await world.browser("alice"), await world.browser("bob")
    kept = [Browser(world, dict(one.cookies)) for one in (alice, bob)]
    for browser in (alice, bob):
        browser.peer = "198.51.100.9"
    answers = await asyncio.gather(*(one.ask("POST", "/auth/sign-out") for one in (alice, bob)))
    assert [answer.status for answer in answers] == [204, 204]
    assert [(await one.get("/api/me")).status for one in kept] == [401, 401]


# -- sessions -------------------------------------------------------------------------------------------------------


async def test_a_session_planted_before_signing_in_is_not_the_victims(world: World) -> None:
    """SES-01: the attacker's cookie in the victim's browser; after signing in the attacker's copy opens nothing."""
    attacker = await world.browser("alice")
    victim = Browser(world, dict(attacker.cookies))
    assert (await guess(victim, "bob@example.com", world.passwords["bob"])).status == 200
    assert victim.cookies[COOKIE] != attacker.cookies[COOKIE]
    assert json.loads((await victim.get("/api/me")).body)["name"] == "Bob"
    assert (await attacker.get("/api/me")).status == 401
    for value in ("x", "a.b", "A" * 43):
        planted = Browser(world, {COOKIE: value})
        world.calm()
        assert (await guess(planted, "bob@example.com", world.passwords["bob"])).status == 200
        assert planted.cookies[COOKIE] != value


async def test_a_session_is_taken_from_the_cookie_only(world: World) -> None:
    """SES-02: not from the query, a form, a header or the path; and no address of ours holds one."""
    alice = await world.browser("alice")
    value = alice.cookies[COOKIE]
    guest = Browser(world)
    for name in (COOKIE, "session", "sid", "sessionid", "PHPSESSID", "jsessionid", "access_token", "token"):
        # Where RFC 6750 puts a token it is refused as such (JWT-39), whatever it is.
        refused = 400 if name == "access_token" else 401
        assert (await guest.get(f"/api/me?{name}={quote(value)}")).status == refused
        assert (await guest.get("/api/me", (f"x-{name}", value), (name, value))).status == 401
        body = urlencode({name: value}).encode()
        assert (await guest.ask("POST", "/account/name", FORM, body=body)).status == 401
    for scheme in ("Bearer", "Session", "Cookie", "Token"):
        assert (await guest.get("/api/me", ("authorization", f"{scheme} {value}"))).status == 401
    for path in (f"/api/me/{value}", f"/api/me;{COOKIE}={value}", f"/{value}/api/me"):
        assert (await guest.get(path)).status == 404
    for path in ("/", "/account", "/api/me", "/auth/session", "/auth/sessions"):
        assert value.encode() not in (await alice.get(path)).body
    assert (await alice.get("/api/me")).status == 200


async def test_a_cookie_after_sign_out_opens_nothing(world: World) -> None:
    """SES-17, SES-18: one session, then all, in every route and at once; and the browser is told to forget."""
    for way in ("/auth/sign-out", "/auth/sign-out-everywhere"):
        first, second = await world.browser("bob"), await world.browser("bob")
        copies = [Browser(world, dict(one.cookies)) for one in (first, second)]
        answer = await first.ask("POST", way)
        assert answer.status == 204
        assert "Max-Age=0" in (answer.header("set-cookie") or "")
        assert '"cookies"' in (answer.header("clear-site-data") or "")
        expected = [401, 200] if way == "/auth/sign-out" else [401, 401]
        for path in ("/api/me", "/api/invoices", "/auth/session", "/auth/sessions"):
            assert [(await one.get(path)).status for one in copies] == expected, (way, path)
        accepted = (await copies[0].socket()).sent[0]["type"]
        assert accepted != "websocket.accept"


async def test_a_list_holds_ones_own_and_ends_ones_own(world: World) -> None:
    """SES-24: another's session id is as unknown as none."""
    alice, bob = await world.browser("alice"), await world.browser("bob")
    hers = json.loads((await alice.get("/auth/sessions")).body)["sessions"]
    his = json.loads((await bob.get("/auth/sessions")).body)["sessions"]
    assert not {one["id"] for one in hers} & {one["id"] for one in his}
    for one in hers:
        assert (await bob.ask("DELETE", f"/auth/sessions/{one['id']}")).status == 404
        assert (await bob.ask("POST", f"/account/sessions/{one['id']}/revoke")).status == 404
    assert (await alice.get("/api/me")).status == 200
    mine = next(one["id"] for one in hers if one["current"])
    assert (await alice.ask("DELETE", f"/auth/sessions/{mine}")).status == 204
    assert (await alice.get("/api/me")).status == 401


async def test_a_role_that_is_taken_away_is_gone_at_once(world: World) -> None:
    """SES-26: the cookie still says moderator, and the next request does not."""
    browser = await world.browser("moderator")
    assert (await browser.get("/api/admin/report")).status == 200
    service = world.guard.services.get(Users)
    async with world.database.transaction() as tx:
        await service.set_role(tx, browser.id, "user")
    assert (await browser.get("/api/admin/report")).status == 403
    async with world.database.transaction() as tx:
        await service.suspend(tx, browser.id)
    assert (await browser.get("/api/me")).status == 401
    async with world.database.transaction() as tx:
        await service.restore(tx, browser.id)
        await service.set_role(tx, browser.id, "moderator")
    assert (await browser.get("/api/me")).status == 401


async def test_a_changed_cookie_is_no_cookie(world: World) -> None:
    """SES-30: every letter changed, every truncation, the parts swapped: 401, never 500 and never a guest."""
    alice, bob = await world.browser("alice"), await world.browser("bob")
    value, other = alice.cookies[COOKIE], bob.cookies[COOKIE]

    async def status(cookie: str) -> int:
        return (await world.ask("GET", "/api/me", [("cookie", f"{COOKIE}={cookie}")])).status

    for place in range(len(value)):
        letter = "B" if value[place] == "A" else "A"
        assert await status(value[:place] + letter + value[place + 1 :]) == 401, place
        assert await status(value[:place]) == 401, place
    head, _, mac = value.rpartition(".")
    assert await status(f"{head}.{other.rpartition('.')[2]}") == 401
    assert await status(f"{other.rpartition('.')[0]}.{mac}") == 401
    assert await status(value + "=") == 401
    assert await status(value) == 200
    assert ORIGIN


async def test_what_is_stored_opens_nothing(world: World) -> None:
    """SES-22: every text and every digest of the database, presented as a cookie."""
    await world.browser("alice")
    rows = await world.rows()
    tried = 0
    for row in (*rows["sessions"], *rows["one_time_tokens"], *rows["password_hashes"]):
        for value in row:
            for text in (str(value), value.hex() if isinstance(value, bytes) else quote(str(value), "")):
                if text.isascii() and text.isprintable():
                    assert (await world.ask("GET", "/api/me", [("cookie", f"{COOKIE}={text}")])).status == 401
                    tried += 1
    assert tried > 20
