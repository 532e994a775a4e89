"""Whose a key is: from memory and from the store, in one process and in another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from routeguard.core.errors import ProblemError
from routeguard.core.problem import Problem
from routeguard.identity.api_keys import store
from routeguard.identity.api_keys.models import ApiKey
from routeguard.identity.api_keys.text import new_id, new_key
from tests.api_keys.world import World
from tests.fakes import FakeClock

COVERS = ("identity/api_keys/models", "identity/api_keys/store")

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(database: Any) -> AsyncIterator[World]:
    async with World.of(database) as world:
        yield world


async def test_a_key_is_its_text_and_nothing_else(world: World) -> None:
    """KEY-01: another secret, another environment, another id, another key's secret: one answer."""
    made, other = await world.key(), await world.key()
    text = made.text
    assert await world.status(text) == 200
    live = new_key("live", made.key.id)
    wrong = [new_key("test", made.key.id), live, new_key("test", new_id()), new_key("test", other.key.id), text[:-1]]
    answers = [await world.verify(one) for one in wrong]
    assert all(isinstance(answer, Problem) for answer in answers)
    assert {(one.status, str(one.body()), one.headers) for one in answers if isinstance(one, Problem)} == {
        (401, str(answers[0].body()), answers[0].headers) if isinstance(answers[0], Problem) else None
    }


async def test_a_known_key_is_answered_without_the_store(world: World) -> None:
    made = await world.key()
    assert await world.status(made.text) == 200
    async with world.database.transaction() as tx:
        await tx.execute(sa.delete(store.api_keys))
    assert await world.status(made.text) == 200
    await world.wait(61)
    assert await world.status(made.text) == 401


async def test_without_the_feed_memory_does_not_count(world: World) -> None:
    made = await world.key()
    assert await world.status(made.text) == 200
    async with world.database.transaction() as tx:
        await tx.execute(sa.delete(store.api_keys))
    world.clock.advance(5)
    assert await world.status(made.text) == 401


async def test_another_process_learns_of_revocation_rotation_change_and_suspension(world: World) -> None:
    """KEY-18, KEY-19: each with a warm memory, at the next poll; what is suspended comes back with its user."""
    async with World.of(world.database, FakeClock(world.clock.time())) as there:
        user = await world.user()
        revoked, rotated, changed = [await world.key(user) for _ in range(3)]
        suspended = await world.user()
        his = await world.key(suspended)
        await there.feed.poll()
        for made in (revoked, rotated, changed, his):
            assert await there.status(made.text) == 200
        await world.keys.revoke(user.id, revoked.key.id)
        await world.keys.rotate(user.id, rotated.key.id)
        await world.keys.update(user.id, changed.key.id, {"networks": ["198.51.100.0/24"]})
        await world.suspend(suspended)
        await there.feed.poll()
        assert [await there.status(one.text) for one in (revoked, rotated, changed, his)] == [401, 401, 403, 401]
        assert [await world.status(one.text) for one in (revoked, rotated, changed, his)] == [401, 401, 403, 401]
        assert await there.status(changed.text, "198.51.100.9") == 200
        assert await there.status(changed.text, None) == 403
        await world.restore(suspended)
        await there.feed.poll()
        assert await there.status(his.text) == 200


async def test_a_key_expires_and_an_old_secret_ends_with_its_overlap(world: World) -> None:
    """KEY-14: the old secret passes during the overlap and not after it, from memory too."""
    soon = datetime.fromtimestamp(world.clock.time(), UTC) + timedelta(seconds=20)
    short, made = await world.key(expires_at=soon), await world.key()
    assert await world.status(short.text) == 200
    again = await world.keys.rotate(made.key.owner_id, made.key.id, overlap=10)
    assert [await world.status(one.text) for one in (made, again)] == [200, 200]
    await world.wait(9)
    assert [await world.status(one.text) for one in (short, made, again)] == [200, 200, 200]
    await world.wait(2)
    assert [await world.status(one.text) for one in (short, made, again)] == [200, 401, 200]
    await world.wait(10)
    assert [await world.status(one.text) for one in (short, made, again)] == [401, 401, 200]


async def test_failures_are_limited_by_address_and_successes_are_not(database: Any) -> None:
    async with World.of(database, failures="3/minute") as world:
        made = await world.key()
        wrong = new_key("test", made.key.id)
        assert [await world.status(wrong) for _ in range(5)] == [401, 401, 401, 429, 429]
        assert [await world.status("rg_test_typo") for _ in range(1)] == [429]
        assert [await world.status(made.text) for _ in range(5)] == [200] * 5
        assert await world.status(wrong, "192.0.2.2") == 401


async def test_uses_from_a_wrong_address_or_over_the_rate_spend_nothing(world: World) -> None:
    made = await world.key(networks=["192.0.2.0/24"], remaining=2, rate="1/hour")
    assert await world.status(made.text, "203.0.113.9") == 403
    found = await world.verify(made.text)
    assert isinstance(found, ApiKey)
    assert found.remaining == 1
    assert await world.status(made.text) == 429
    assert (await world.keys.find(made.key.owner_id, made.key.id))[0].remaining == 1


async def test_uses_in_a_row_are_counted_with_or_without_a_warm_memory(world: World) -> None:
    made = await world.key()
    counts = []
    for step in range(6):
        found = await world.verify(made.text)
        assert isinstance(found, ApiKey)
        assert found.last_used_at is not None
        counts.append(found.usage_count)
        if step == 1:
            await world.uses.flush()
        if step == 3:
            # Changed: asked of the database again, before this process has written what it counted.
            await world.keys.update(made.key.owner_id, made.key.id, {"name": "other"})
    assert counts == [1, 2, 3, 4, 5, 6]


async def test_what_is_given_narrows_what_is_said_and_what_is_left_out(database: Any) -> None:
    async with World.of(database, privileges=("demo", "full")) as world:
        user = await world.user()
        key = (await world.key(user)).key
        assert key.privilege == "demo"
        for wished in ({"scopes": ["a:b"]}, {"scopes": ["a:b"], "privilege": "full"}, {"privilege": "protected"}):
            with pytest.raises(ProblemError) as refused:
                await world.key(user, **wished)
            assert refused.value.problem.status == 403
            with pytest.raises(ProblemError):
                await world.keys.update(user.id, key.id, wished)
        changed, valid = await world.keys.update(user.id, key.id, {"scopes": [], "privilege": "full"})
        assert (changed.privilege, changed.scopes, valid) == ("full", (), True)


@pytest.mark.parametrize("end", ["revoke", "rotate", "privilege", "suspend", "expire"])
async def test_what_is_open_under_a_key_ends_with_it(world: World, end: str) -> None:
    """WS-05: a change that takes nothing away is no end."""
    user = await world.user()
    soon = datetime.fromtimestamp(world.clock.time(), UTC) + timedelta(seconds=100)
    made = await world.key(user, expires_at=soon)
    found = await world.verify(made.text)
    waiting = asyncio.create_task(world.verifier.wait_until_revoked(found))
    await world.keys.update(user.id, made.key.id, {"name": "other"})
    done, _ = await asyncio.wait({waiting}, timeout=0.1)
    assert not done
    if end == "revoke":
        await world.keys.revoke(user.id, made.key.id)
    elif end == "rotate":
        await world.keys.rotate(user.id, made.key.id)
    elif end == "privilege":
        await world.keys.update(user.id, made.key.id, {"privilege": "full"})
    elif end == "suspend":
        await world.suspend(user)
    else:
        world.clock.advance(101)
        world.feed.learn(made.key.id)
    await asyncio.wait_for(waiting, 30)


async def test_ended_keys_of_an_owner_do_not_fill_the_table(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routeguard.identity.api_keys.service._KEPT", 3)
    user = await world.user()
    for _ in range(6):
        made = await world.key(user)
        await world.keys.revoke(user.id, made.key.id)
        world.clock.advance(1)
    last = await world.key(user)
    found = await world.keys.list(user.id)
    assert [valid for _, valid in found] == [True, False, False, False]
    assert found[0][0].id == last.key.id


@pytest.mark.parametrize("polled", [True, False])
async def test_a_key_revoked_while_the_machine_was_suspended(world: World, polled: bool) -> None:
    """SES-18"""
    user = await world.user()
    made, kept = await world.key(user), await world.key(user)
    assert await world.status(made.text) == await world.status(kept.text) == 200
    async with World.of(world.database) as other:
        await other.keys.revoke(user.id, made.key.id)
    await world.suspend_machine(polled=polled)
    assert await world.status(made.text) == 401
    assert await world.status(kept.text) == 200
