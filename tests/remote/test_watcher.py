"""How long an open WebSocket stands on the word of a service."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from routeguard.core.clock import SteadyClock, SystemClock
from routeguard.foundation.invalidation.feed import Feed, Row
from routeguard.identity.sessions.models import SessionId, UserSession
from routeguard.identity.users.models import User
from routeguard.remote.watcher import RemotePrincipalWatcher
from tests.remote.world import PATIENCE

pytestmark = pytest.mark.anyio

CLOCK = SteadyClock(SystemClock())


async def nothing(*, window: float, after_id: int) -> list[Row]:
    assert window > 0 <= after_id
    return []


def a_feed() -> Feed:
    return Feed(nothing, clock=CLOCK, poll=1, trust=0.2, keep=1500)


def a_session(**life: float) -> UserSession[Any]:
    now = CLOCK.now()
    user = User(id="usr_a", created_at=now, email="ann@example.test", name="Ann")
    return UserSession(SessionId("ses_a"), user, now, now, now + timedelta(**(life or {"days": 400})))


async def ended(feed: Feed, session: UserSession[Any], *, silence: float) -> float:
    """Wait for the end; return after how many seconds it came."""
    begun = CLOCK.monotonic()
    async with asyncio.timeout(PATIENCE):
        await RemotePrincipalWatcher(feed, clock=CLOCK, silence=silence).wait_until_revoked(session)
    assert not feed._listeners
    return CLOCK.monotonic() - begun


@pytest.mark.parametrize("heard", [True, False])
async def test_it_does_not_outlive_a_feed_that_fell_silent(heard: bool):
    """WS-05"""
    feed = a_feed()
    if heard:
        await feed.poll()
    assert await ended(feed, a_session(), silence=0.1) >= 0.09


async def test_it_goes_on_while_the_feed_speaks():
    feed = a_feed()
    await feed.poll()
    waiting = asyncio.ensure_future(ended(feed, a_session(), silence=0.1))
    heard_at = CLOCK.monotonic() + 1.0
    feed.trusted_until, feed.trusted_wall = heard_at, CLOCK.time() + 1.0
    assert await waiting >= 1.0


@pytest.mark.parametrize("subject", ["ses_a", "usr_a"])
async def test_the_first_word_of_the_feed_ends_it(subject: str):
    """WS-05"""
    feed = a_feed()
    waiting = asyncio.ensure_future(ended(feed, a_session(), silence=900))
    while not feed._listeners:
        await asyncio.sleep(0)
    feed.learn(subject)
    await waiting


async def test_what_the_feed_missed_ends_it():
    """WS-05"""
    feed = a_feed()
    await feed.poll()
    waiting = asyncio.ensure_future(ended(feed, a_session(), silence=900))
    while not feed._listeners:
        await asyncio.sleep(0)
    assert feed._last_answer is not None
    feed._last_answer = (feed._last_answer[0] - 1501, feed._last_answer[1] - 1501)
    await feed.poll()
    await waiting


async def test_it_ends_with_the_session():
    await ended(a_feed(), a_session(milliseconds=100), silence=900)
