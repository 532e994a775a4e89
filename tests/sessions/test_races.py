"""Endings against everything that could keep a session alive, 64 at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Final

import pytest

from routeguard.core.errors import ProblemError
from tests.rounds import rounds as repeated
from tests.sessions.fakes import cookie_of
from tests.sessions.world import Browser, World

if TYPE_CHECKING:
    from routeguard.identity.users.models import User

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

AT_ONCE: Final = 64


@repeated(20, 200, variable="ROUTEGUARD_RACE_ROUNDS")
async def test_no_revoked_session_survives_a_race(world: World, rounds: int) -> None:
    """SES-09, SES-17: rounds of 64 racing sign-outs, renewals and rotations leave no live session."""
    dice = random.Random(64)
    user = await world.user()
    async with world.another() as other:
        for _ in range(rounds):
            browser = await world.sign_in(user)
            world.clock.advance(61)
            other.clock.advance(61)
            seen = [browser.cookie]
            actions = [_renew(world, browser, seen) for _ in range(AT_ONCE - 8)]
            actions += [_rotate(world, browser, seen) for _ in range(4)]
            actions += [_end(world, browser, user, kind) for kind in ("out", "out", "everywhere", "revoke")]
            dice.shuffle(actions)
            await asyncio.gather(*actions)
            assert await world.rows() == []
            await other.feed.poll()
            for cookie in set(seen):
                assert await Browser(world, cookie).visit() is None
                assert await Browser(other, cookie).visit() is None


async def test_one_rotation_wins(world: World) -> None:
    """Of 64 rotations with one cookie one succeeds, and only its cookie lives."""
    browser = await world.sign_in(await world.user())
    seen: list[str | None] = []
    await asyncio.gather(*(_rotate(world, browser, seen) for _ in range(AT_ONCE)))
    assert len(seen) == 1
    assert await browser.visit() is None
    assert await Browser(world, seen[0]).visit() is not None


async def _renew(world: World, browser: Browser, seen: list[str | None]) -> None:
    await asyncio.sleep(random.random() / 200)
    exchange = browser.exchange()
    await world.cookies.resume(exchange)
    if cookie := cookie_of(exchange):
        seen.append(cookie)


async def _rotate(world: World, browser: Browser, seen: list[str | None]) -> None:
    exchange = browser.exchange()
    with contextlib.suppress(ProblemError):
        async with world.database.transaction() as tx:
            await world.sessions.rotate(tx, exchange)
        seen.append(cookie_of(exchange))


async def _end(world: World, browser: Browser, user: User, kind: str) -> None:
    if kind == "out":
        await asyncio.sleep(random.random() / 200)
        # With the first cookie, which a rotation may have made void: then the others end what is left.
        await world.sessions.sign_out(browser.exchange())
    elif kind == "everywhere":
        await asyncio.sleep(random.random() / 100)
        await world.sessions.sign_out_everywhere(browser.exchange(), user.id)
    else:
        for one in await world.sessions.list(user.id):
            async with world.database.transaction() as tx:
                await world.sessions.revoke(tx, user.id, one.id)
