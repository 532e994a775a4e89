"""The routes under /auth/api-keys, in the example application."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routeguard.identity.api_keys.routes import _Verify
from routeguard.identity.api_keys.text import parse_key
from routeguard.identity.api_keys.uses import UseCounter
from tests.attacks.world import Browser, World
from tests.conformance.wire import Result

COVERS = ("identity/api_keys/feature", "identity/api_keys/problems", "identity/api_keys/service")

pytestmark = pytest.mark.anyio


def body(answer: Result) -> Any:
    return json.loads(answer.body)


async def made(browser: Browser, **wished: Any) -> dict[str, Any]:
    answer = await browser.post("/auth/api-keys", {"name": "robot"} | wished)
    assert answer.status == 201, answer.body
    return dict(body(answer))


async def by_key(world: World, text: str, path: str = "/api/v1/data", *, header: str = "x-api-key") -> Result:
    value = text if header == "x-api-key" else f"Bearer {text}"
    return await world.ask("GET", path, [(header, value)])


async def test_a_key_is_made_shown_once_and_opens_what_asks_for_a_key(world: World, alice: Browser) -> None:
    key = await made(alice, name="report robot")
    assert key["name"] == "report robot"
    assert key["privilege"] == "demo"
    assert key["expires_at"] is None
    assert parse_key(key["key"])
    assert key["owner_id"] == key["user_id"] == alice.id
    for header in ("x-api-key", "authorization"):
        answer = await by_key(world, key["key"], header=header)
        assert answer.status == 200, answer.body
        assert body(answer) == {"caller": key["id"]}
    assert body(await alice.get("/api/v1/data")) == {"caller": alice.id}
    shown = body(await alice.get(f"/auth/api-keys/{key['id']}"))
    assert "key" not in shown
    assert shown["usage_count"] == 2
    assert shown["last_used_at"] is not None
    assert shown["last_four"] == key["key"][-4:]


async def test_the_list_counts_what_may_be_used_and_what_may_not(world: World, bob: Browser) -> None:
    first, second = await made(bob), await made(bob)
    assert (await bob.ask("DELETE", f"/auth/api-keys/{first['id']}")).status == 204
    listed = body(await bob.get("/auth/api-keys"))
    assert {one["id"]: one["valid"] for one in listed["api_keys"]} == {first["id"]: False, second["id"]: True}
    assert (listed["total"], listed["valid"], listed["invalid"]) == (2, 1, 1)
    assert (await by_key(world, first["key"])).status == 401
    assert (await by_key(world, second["key"])).status == 200
    assert (await bob.ask("DELETE", f"/auth/api-keys/{first['id']}")).status == 404
    assert (await bob.post(f"/auth/api-keys/{first['id']}/rotate", {})).status == 409


async def test_a_rotated_key_has_another_secret_at_once_or_after_an_overlap(world: World, alice: Browser) -> None:
    key = await made(alice)
    again = body(await alice.post(f"/auth/api-keys/{key['id']}/rotate", {}))
    assert again["id"] == key["id"]
    assert (await by_key(world, key["key"])).status == 401
    assert (await by_key(world, again["key"])).status == 200
    third = body(await alice.post(f"/auth/api-keys/{key['id']}/rotate", {"overlap": 3600}))
    assert (await by_key(world, again["key"])).status == 200
    assert (await by_key(world, third["key"])).status == 200
    for overlap in (-1, 8 * 86400, "1h", True):
        refused = await alice.post(f"/auth/api-keys/{key['id']}/rotate", {"overlap": overlap})
        assert refused.status == 422, overlap


async def test_what_a_key_may_do_is_changed_and_holds_at_once(world: World, alice: Browser) -> None:
    key = await made(alice)
    assert (await by_key(world, key["key"])).status == 200
    path = f"/auth/api-keys/{key['id']}"
    changed = await alice.send("PATCH", path, {"networks": ["192.0.2.0/24"], "privilege": "full", "name": "other"})
    assert changed.status == 200
    assert body(changed)["networks"] == ["192.0.2.0/24"]
    assert body(changed)["privilege"] == "full"
    assert body(changed)["name"] == "other"
    refused = await by_key(world, key["key"])
    assert refused.status == 403
    assert body(refused)["type"].endswith("/network-not-allowed")
    there = await world.ask("GET", "/api/v1/data", [("x-api-key", key["key"])], client=("192.0.2.7", 4000))
    assert there.status == 200
    assert (await alice.send("PATCH", path, {"networks": [], "scopes": ["reports:read"]})).status == 200
    assert (await by_key(world, key["key"])).status == 200
    soon = await alice.send("PATCH", path, {"expires_at": "2999-01-01T00:00:00Z"})
    assert body(soon)["expires_at"] == "2999-01-01T00:00:00Z"
    assert body(await alice.send("PATCH", path, {"expires_at": None}))["expires_at"] is None


@pytest.mark.parametrize(
    ("wished", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"name": "a" * 101}, "/name"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2999-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-14:00"}, "/expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "/expires_at"),
        ({"privilege": "root"}, "/privilege"),
        ({"scopes": ["two words"]}, "/scopes"),
        ({"scopes": ["*"]}, "/scopes"),
        ({"scopes": ["a:b"] * 51}, "/scopes"),
        ({"rate": "often"}, "/rate"),
        ({"remaining": 0}, "/remaining"),
        ({"user_id": "usr_victim"}, "/user_id"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_422_and_makes_nothing(
    alice: Browser, wished: dict[str, Any], pointer: str
) -> None:
    before = body(await alice.get("/auth/api-keys"))["total"]
    answer = await alice.post("/auth/api-keys", {"name": "robot"} | wished)
    assert answer.status == 422, answer.body
    assert [error["pointer"] for error in body(answer)["errors"]] == [pointer]
    assert body(await alice.get("/auth/api-keys"))["total"] == before


async def test_a_body_over_2_kilobytes_is_413(alice: Browser) -> None:
    assert (await alice.post("/auth/api-keys", {"name": "a" * 2048})).status == 413


async def test_a_key_of_its_own_rate_is_429_beyond_it(world: World, alice: Browser) -> None:
    key = await made(alice, rate="2/hour")
    answers = [await by_key(world, key["key"]) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert int(answers[2].header("retry-after") or 0) > 0


async def test_a_key_shows_who_it_is_at_the_verify_route(world: World, alice: Browser) -> None:
    key = await made(alice, scopes=["reports:*"])
    assert key["privilege"] == "custom"
    text = key["key"]
    sent = [("content-type", "application/json")]
    good = await world.ask("POST", "/auth/api-keys/verify", sent, body=json.dumps({"key": text}).encode())
    assert good.status == 200
    assert body(good)["id"] == key["id"]
    assert text.encode() not in good.body
    wished = json.dumps({"scopes": ["reports:read"], "privilege": "custom"}).encode()
    assert (await world.ask("POST", "/auth/api-keys/verify", [*sent, ("x-api-key", text)], body=wished)).status == 200
    wished = json.dumps({"scopes": ["reports:read", "users:read"]}).encode()
    lacking = await world.ask("POST", "/auth/api-keys/verify", [*sent, ("x-api-key", text)], body=wished)
    assert lacking.status == 403
    assert body(lacking)["missing"] == ["users:read"]
    assert body(lacking)["required"] == ["reports:read", "users:read"]
    twice = json.dumps({"key": text}).encode()
    assert (await world.ask("POST", "/auth/api-keys/verify", [*sent, ("x-api-key", text)], body=twice)).status == 400
    assert (await world.ask("POST", "/auth/api-keys/verify", sent, body=b"{}")).status == 401


@pytest.mark.parametrize(
    "scopes",
    [['a"b'], ["a\r\nset-cookie: x=y"], ["\u20ac"], ["two words"], [""], ["*"], ["a:b"] * 51],
    ids=ascii,
)
async def test_scopes_that_are_none_are_422_and_in_no_header(world: World, alice: Browser, scopes: list[str]) -> None:
    """Nothing of it gets into the challenge, and no use is counted."""
    key = await made(alice, remaining=1)
    sent = [("content-type", "application/json"), ("x-api-key", key["key"])]
    answer = await world.ask("POST", "/auth/api-keys/verify", sent, body=json.dumps({"scopes": scopes}).encode())
    assert answer.status == 422, answer.body
    assert answer.header("www-authenticate") is None
    assert (await by_key(world, key["key"])).status == 200


async def test_what_a_change_answers_says_whether_the_key_still_works(alice: Browser) -> None:
    key = await made(alice)
    path = f"/auth/api-keys/{key['id']}"
    assert body(await alice.send("PATCH", path, {}))["valid"] is True
    assert (await alice.ask("DELETE", path)).status == 204
    assert body(await alice.send("PATCH", path, {}))["valid"] is False
    assert (await alice.send("PATCH", path, {"name": "other"})).status == 409


async def test_a_use_is_in_the_counts_that_come_with_it(world: World, alice: Browser) -> None:
    """By a handler and by the verify route alike, and whatever is written in between."""
    key = await made(alice)
    sent = [("content-type", "application/json"), ("x-api-key", key["key"])]
    uses = world.guard.services.get(UseCounter)
    for number in range(1, 6):
        found = body(await world.ask("POST", "/auth/api-keys/verify", sent, body=b"{}"))
        assert found["usage_count"] == number
        assert found["last_used_at"] is not None
        if number == 3:
            await uses.flush()


def test_no_repr_shows_a_key() -> None:
    """KEY-15"""
    assert "rg_secret" not in repr(_Verify(key="rg_secret"))


async def test_uses_are_written_in_batches_and_summed(world: World, alice: Browser) -> None:
    key = await made(alice)
    uses = world.guard.services.get(UseCounter)
    for _ in range(3):
        await by_key(world, key["key"])
    await uses.flush()
    assert uses.pending(key["id"]) is None
    await by_key(world, key["key"])
    assert body(await alice.get(f"/auth/api-keys/{key['id']}"))["usage_count"] == 4
