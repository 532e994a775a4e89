"""API keys, attacked by the catalogue's ids in the example application."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from routeguard.core.principal import PrincipalWatcher
from routeguard.core.secret import Secret
from routeguard.foundation.db.database import Database
from routeguard.identity.api_keys.models import ApiKey, KeyVerifier
from routeguard.identity.api_keys.service import ApiKeys
from routeguard.identity.api_keys.text import new_id, new_key
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.service import Users
from tests.attacks.world import Browser, World
from tests.conformance.wire import Result

pytestmark = pytest.mark.anyio

DATA = "/api/v1/data"


async def key_of(browser: Browser, **wished: Any) -> tuple[str, str]:
    """Return id and text of a new key."""
    answer = await browser.post("/auth/api-keys", {"name": "robot"} | wished)
    assert answer.status == 201, answer.body
    made = json.loads(answer.body)
    return made["id"], made["key"]


async def with_key(world: World, text: str, method: str = "GET", target: str = DATA, **scope: Any) -> Result:
    return await world.ask(method, target, [("x-api-key", text)], **scope)


def said(answer: Result) -> tuple[int, dict[str, Any], str | None]:
    """Return what a refusal tells, but for the name of the request."""
    body = json.loads(answer.body)
    body.pop("instance", None)
    return answer.status, body, answer.header("www-authenticate")


@pytest.fixture
def asked(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids that the store is asked for from now on."""
    verifier: Any = world.guard.services.get(KeyVerifier)
    seen: list[str] = []
    lookup = verifier._lookup

    class Counted:
        async def one(self, **params: Any) -> Any:
            seen.append(params["id"])
            return await lookup.one(**params)

    monkeypatch.setattr(verifier, "_lookup", Counted())
    return seen


async def test_wrong_parts_are_one_answer_and_one_question(world: World, alice: Browser, asked: list[str]) -> None:
    """KEY-01."""
    key_id, text = await key_of(alice)
    secret = text[-49:-6]
    wrong = [new_key("test", key_id), new_key("test", new_id()), new_key("live", key_id)]
    answers = []
    for one in wrong:
        asked.clear()
        answers.append(said(await with_key(world, one)))
        assert len(asked) == 1
    asked.clear()
    answers.append(said(await with_key(world, "sk_" + text.removeprefix("rg_"))))
    answers.append(said(await with_key(world, secret)))
    assert asked == []
    assert answers == [answers[0]] * 5
    assert answers[0][0] == 401


async def test_headers_that_name_an_address_move_nobody(world: World, alice: Browser) -> None:
    """KEY-05."""
    _, text = await key_of(alice, networks=["192.0.2.0/24"])
    assert (await with_key(world, text, client=("192.0.2.9", 1))).status == 200
    for name, value in (
        ("x-forwarded-for", "192.0.2.9"),
        ("forwarded", "for=192.0.2.9"),
        ("x-real-ip", "192.0.2.9"),
        ("cf-connecting-ip", "192.0.2.9"),
        ("true-client-ip", "192.0.2.9"),
    ):
        answer = await world.ask("GET", DATA, [("x-api-key", text), (name, value)], client=("203.0.113.9", 1))
        assert answer.status == 403, name
        assert answer.problem == "network-not-allowed"


@pytest.mark.parametrize(
    "entry",
    [
        "010.0.0.1",
        "127.1",
        "0x7f.1",
        "1.2.3.4/33",
        "10.0.0.1/8",
        "fe80::1%eth0",
        "2130706433",
        "",
        "1.2.3.4/",
        "::1/129",
    ],
)
async def test_strange_networks_are_422(alice: Browser, entry: str) -> None:
    """KEY-06: at creation and at a change."""
    assert (await alice.post("/auth/api-keys", {"name": "robot", "networks": ["192.0.2.1", entry]})).status == 422
    key_id, _ = await key_of(alice)
    assert (await alice.send("PATCH", f"/auth/api-keys/{key_id}", {"networks": [entry]})).status == 422
    assert json.loads((await alice.get(f"/auth/api-keys/{key_id}")).body)["networks"] == []
    await alice.ask("DELETE", f"/auth/api-keys/{key_id}")


async def test_a_key_in_the_url_is_refused_and_logged_nowhere(
    world: World, alice: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    """KEY-07."""
    _, text = await key_of(alice)
    caplog.set_level(logging.DEBUG)
    for name in ("api_key", "access_token", "X-API-Key", "apikey", "key"):
        answer = await world.ask("GET", f"{DATA}?{name}={text}")
        assert answer.status == 400, name
        assert text.encode() not in answer.body
    assert (await with_key(world, text, target=f"{DATA}?api_key={text}")).status == 400
    assert text not in caplog.text


async def test_two_credentials_are_400(world: World, alice: Browser) -> None:
    """KEY-08."""
    _, text = await key_of(alice)
    bearer = ("authorization", f"Bearer {text}")
    for pair in ([("x-api-key", text)] * 2, [("x-api-key", text), bearer], [bearer, bearer]):
        assert (await world.ask("GET", DATA, pair)).status == 400


async def test_nobody_makes_a_key_for_somebody_else(world: World, alice: Browser, guest: Browser) -> None:
    """KEY-09."""
    before = await world.rows()
    assert (await guest.post("/auth/api-keys", {"name": "mine", "userId": alice.id})).status == 401
    for member in ("userId", "user_id", "owner_id"):
        assert (await alice.post("/auth/api-keys", {"name": "his", member: "usr_victim"})).status == 422
    assert (await world.rows())["api_keys"] == before["api_keys"]


async def test_another_s_key_is_as_unknown_as_none(alice: Browser, bob: Browser) -> None:
    """AZ-01."""
    key_id, _ = await key_of(alice)
    for method, path in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("POST", "/rotate")):
        for one in (key_id, new_id()):
            answer = await bob.send(method, f"/auth/api-keys/{one}{path}", {})
            assert answer.status == 404, (method, path)
    assert json.loads((await alice.get(f"/auth/api-keys/{key_id}")).body)["valid"] is True


async def test_a_key_never_manages_keys(world: World, alice: Browser) -> None:
    """KEY-11: whatever its scopes, and with its owner's cookie beside it too."""
    key_id, text = await key_of(alice, scopes=["keys:*"], privilege="full")
    before = (await world.rows())["api_keys"]
    one = f"/auth/api-keys/{key_id}"
    targets = [("GET", "/auth/api-keys"), ("POST", "/auth/api-keys"), ("GET", one), ("PATCH", one), ("DELETE", one)]
    for method, target in [*targets, ("POST", f"{one}/rotate")]:
        for header in (("x-api-key", text), ("authorization", f"Bearer {text}")):
            for caller in (Browser(world), alice):
                body = json.dumps({"name": "child", "scopes": ["keys:*"]}).encode()
                sent = await caller.ask(method, target, header, ("content-type", "application/json"), body=body)
                assert sent.status == 403, (method, target, header[0])
    assert (await world.rows())["api_keys"] == before
    assert (await with_key(world, new_key("test", key_id), "POST", "/auth/api-keys")).status == 401


async def test_one_use_left_is_one_use(world: World, alice: Browser) -> None:
    """KEY-13."""
    key_id, text = await key_of(alice, remaining=1)
    verifier = world.guard.services.get(KeyVerifier)
    answers = await asyncio.gather(*(verifier.verify(text.encode(), address=None) for _ in range(100)))
    assert sum(isinstance(answer, ApiKey) for answer in answers) == 1
    assert json.loads((await alice.get(f"/auth/api-keys/{key_id}")).body)["remaining"] == 0


async def test_a_rotated_secret_ends(world: World, alice: Browser) -> None:
    """KEY-14."""
    key_id, text = await key_of(alice)
    answers = await asyncio.gather(*(alice.post(f"/auth/api-keys/{key_id}/rotate", {}) for _ in range(5)))
    assert {answer.status for answer in answers} <= {200, 409}
    texts = [json.loads(answer.body)["key"] for answer in answers if answer.status == 200]
    works = [one for one in [text, *texts] if (await with_key(world, one)).status == 200]
    assert len(works) == 1
    assert works != [text]


async def test_a_key_s_text_is_found_nowhere(world: World, alice: Browser, caplog: pytest.LogCaptureFixture) -> None:
    """KEY-15: not at rest, in no answer but the first, in no log line, in no repr."""
    caplog.set_level(logging.DEBUG)
    key_id, text = await key_of(alice, networks=["192.0.2.0/24"])
    pieces = [text, text[-49:-6]]
    answers = [
        await alice.get("/auth/api-keys"),
        await alice.get(f"/auth/api-keys/{key_id}"),
        await alice.send("PATCH", f"/auth/api-keys/{key_id}", {"name": "other"}),
        await with_key(world, text),
        await with_key(world, text, target="/api/me"),
        await with_key(world, text, client=("192.0.2.1", 1)),
        await with_key(world, text[:-1] + "!"),
    ]
    keys = world.guard.services.get(ApiKeys)
    made = await keys.create(alice.id, {"name": "shown"})
    shown = f"{made!r} {made.key!r} {Secret(text)!r}"
    rows, disk = repr(await world.rows()), await world.dump()
    for piece in [*pieces, made.text]:
        assert all(piece.encode() not in answer.body for answer in answers)
        assert piece not in caplog.text
        assert piece not in shown
        assert piece not in rows
        assert piece.encode() not in disk


async def test_what_is_no_key_costs_no_question(world: World, alice: Browser, asked: list[str]) -> None:
    """KEY-16, KEY-20."""
    _, text = await key_of(alice)
    checksum = text[:-1] + ("0" if text[-1] != "0" else "1")
    asked.clear()
    for odd in (
        checksum,
        text[:-1],
        text + "0",
        text + "\xe9",
        "rg_" + "a" * 1_000_000,
        "",
        "rg_",
        f"rg_test_{'%' * 22}_",
        text.replace(text[10], "_"),
        "rg_test_*_%",
        "\\" * 80,
    ):
        answer = await with_key(world, odd)
        # An empty field is a key that is none as well.
        assert answer.status in {400, 401, 431}, odd[:90]
    assert asked == []


async def test_a_key_dies_with_its_user(world: World, bob: Browser) -> None:
    """KEY-18: at once, from memory too, and so does what is open under it (WS-05)."""
    _, text = await key_of(bob)
    assert (await with_key(world, text)).status == 200
    services = world.guard.services
    key = await services.get(KeyVerifier).verify(text.encode(), address=None)
    open_still = asyncio.ensure_future(services.get(PrincipalWatcher).wait_until_revoked(key))
    users, database = services.get(Users), services.get(Database)
    async with database.transaction() as tx:
        await users.suspend(tx, bob.id)
    try:
        assert (await with_key(world, text)).status == 401
        await asyncio.wait_for(open_still, 30)
    finally:
        async with database.transaction() as tx:
            await users.restore(tx, bob.id)


async def test_a_key_dies_with_its_user_s_account(world: World) -> None:
    """KEY-18."""
    services = world.guard.services
    users, database = services.get(Users), services.get(Database)
    async with database.transaction() as tx:
        made = await users.create(tx, read_email("stranger@example.com"), email_verified=True)
    assert made is not None
    key = await services.get(ApiKeys).create(made.id, {"name": "robot"})
    assert (await with_key(world, key.text)).status == 200
    async with database.transaction() as tx:
        await users.delete(tx, made.id)
    assert (await with_key(world, key.text)).status == 401


async def test_a_key_is_no_session(world: World, alice: Browser) -> None:
    """KEY-19: what is remembered of a key is no answer to another question."""
    _, text = await key_of(alice, privilege="full")
    assert (await with_key(world, text)).status == 200
    for target in ("/api/me", "/api/admin/report", "/api/invoices", "/auth/session", "/auth/sessions"):
        assert (await with_key(world, text, target=target)).status == 401, target
