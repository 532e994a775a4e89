"""The feed as sessions need it."""

from __future__ import annotations

import pytest

from tests.sessions.world import World

pytestmark = pytest.mark.anyio


async def test_a_session_is_deleted_a_day_after_it_expired(world: World) -> None:
    """SES-27: not at once, so that a clock an hour ahead deletes nothing alive."""
    await world.sign_in(await world.user())
    [row] = await world.rows()
    world.clock.advance(row.idle_expires_at - world.clock.time() + 86_000)
    await world.feed.poll()
    assert len(await world.rows()) == 1
    world.clock.advance(401)
    await world.feed.poll()
    assert await world.rows() == []


async def test_the_feed_reaches_back_as_far_as_a_cookie_of_a_clock_ahead_lives(world: World) -> None:
    """SES-27."""
    assert world.feed.keep == (world.settings.envelope_life + world.settings.skew).total_seconds()
