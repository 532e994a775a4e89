"""What waits for the end of a session: a WebSocket (WS-05)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.sessions.world import World
from tests.steady import until

pytestmark = pytest.mark.anyio


async def test_a_wait_ends_with_the_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """WS-05: signed out here, and in another process after its poll."""
    browser = await world.sign_in(await world.user())
    session = await browser.session()
    async with world.another() as other:
        still, looked = other.sessions._still, asyncio.Event()

        async def look(*asked: Any) -> bool:
            found = await still(*asked)
            looked.set()
            return found

        # A look that comes after the sign-out would see it without any poll.
        monkeypatch.setattr(other.sessions, "_still", look)
        waits = [asyncio.ensure_future(one.sessions.wait_until_revoked(session)) for one in (world, other)]
        await until(lambda: world.feed._listeners and other.feed._listeners and looked.is_set())
        assert not any(wait.done() for wait in waits)
        await world.sessions.sign_out(browser.exchange())
        await asyncio.wait_for(waits[0], 60)
        assert not waits[1].done()
        await other.feed.poll()
        await asyncio.wait_for(waits[1], 60)


@pytest.mark.parametrize("change", ["suspended", "demoted"])
async def test_a_wait_ends_when_the_user_changes(world: World, change: str) -> None:
    """WS-05, SES-26: what was allowed at the handshake may not be any more."""
    await world.user(role="admin")
    user = await world.user(role="admin")
    session = await (await world.sign_in(user)).session()
    wait = asyncio.ensure_future(world.sessions.wait_until_revoked(session))
    await until(lambda: world.feed._listeners)
    await (world.suspend(user) if change == "suspended" else world.set_role(user, "user"))
    await asyncio.wait_for(wait, 60)


async def test_a_wait_goes_on_while_others_end(world: World) -> None:
    user = await world.user()
    first, second = await world.sign_in(user), await world.sign_in(user)
    wait = asyncio.ensure_future(world.sessions.wait_until_revoked(await first.session()))
    await until(lambda: world.feed._listeners)
    await world.sessions.sign_out(second.exchange())
    async with world.database.transaction() as tx:
        await world.sessions.rotate(tx, first.exchange())
    await asyncio.sleep(0.1)
    assert not wait.done()
    wait.cancel()


async def test_a_wait_ends_at_the_absolute_end_and_leaves_nothing_behind(world: World) -> None:
    session = await (await world.sign_in(await world.user())).session()
    world.clock.advance((session.expires_at - session.created_at).total_seconds() - 2)
    wait = asyncio.ensure_future(world.sessions.wait_until_revoked(session))
    await until(lambda: world.feed._listeners)
    await asyncio.sleep(0.1)
    assert not wait.done()
    world.clock.advance(3)
    await asyncio.wait_for(wait, 60)
    assert world.feed._listeners == {}
