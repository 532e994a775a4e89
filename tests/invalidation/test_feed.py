"""Polling for what was invalidated: until it is closed, through outages and faults."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from routeguard.core.clock import SteadyClock
from routeguard.core.errors import Unavailable
from routeguard.foundation.invalidation.feed import Feed, Row
from tests.fakes import FakeClock
from tests.steady import until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

KEEP = 660.0


class Source:
    """What the feed asks: rows, or `error`."""

    def __init__(self) -> None:
        self.asked = 0
        self.rows: list[Row] = []
        self.error: Exception | None = None

    async def __call__(self, *, window: float, after_id: int) -> list[Row]:
        assert window > 0 <= after_id
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.rows


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def feed(source: Source, clock: FakeClock) -> Feed:
    return Feed(source, clock=SteadyClock(clock), poll=0.001, trust=4, keep=KEEP)


async def test_it_asks_again_and_again_until_it_is_closed(feed: Feed, source: Source) -> None:
    before = asyncio.all_tasks()
    await feed.start()
    assert feed.trusts(), "it has asked before it is used"
    source.rows = [(1, "usr_a", 0.0)]
    await until(lambda: feed.is_stale("usr_a"))
    await feed.close()
    assert not feed.trusts()
    assert asyncio.all_tasks() == before
    asked = source.asked
    await asyncio.sleep(0.01)
    assert source.asked == asked


@pytest.mark.parametrize("error", [Unavailable("the database"), ZeroDivisionError("a fault")], ids=["outage", "fault"])
async def test_it_goes_on_after_whatever_a_poll_raises_and_says_so_once(
    feed: Feed, source: Source, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """SES-18: a feed that has ended lets in who was revoked."""
    source.error = error
    await feed.start()
    await until(lambda: source.asked > 3)
    assert not feed.trusts()
    assert len(caplog.records) == 1
    source.error, source.rows = None, [(1, "usr_a", 0.0)]
    await until(lambda: feed.is_stale("usr_a"))
    assert feed.trusts()
    source.error = error
    await until(lambda: len(caplog.records) == 2)
    await feed.close()


async def test_a_row_is_learned_once_and_forgotten_after_its_time(feed: Feed, source: Source, clock: FakeClock) -> None:
    source.rows = [(1, "usr_a", 0.0)]
    for _ in range(3):
        await feed.poll()
    assert feed.tick == 1
    for _ in range(3):
        clock.advance(KEEP / 2)
        await feed.poll()
    assert not feed.is_stale("usr_a")


async def test_who_listens_is_woken_until_listening_ends(feed: Feed) -> None:
    woken: list[str] = []
    stop = feed.listen("usr_a", lambda: woken.append("first"))
    feed.listen("usr_a", lambda: woken.append("second"))
    feed.learn("usr_b")
    assert woken == []
    feed.learn("usr_a")
    assert sorted(woken) == ["first", "second"]
    stop()
    feed.learn("usr_a")
    assert woken.count("first") == 1
    assert woken.count("second") == 2


async def test_a_listener_of_an_event_loop_that_has_ended_keeps_nothing_from_the_others(feed: Feed) -> None:
    woken: list[str] = []

    def closed() -> None:
        raise RuntimeError("Event loop is closed")

    def wake(name: str) -> Callable[[], None]:
        return lambda: woken.append(name)

    for listener in (wake("first"), closed, wake("second")):
        feed.listen("usr_a", listener)
    feed.learn("usr_a")
    assert sorted(woken) == ["first", "second"]


async def test_all_who_listen_are_woken_when_some_of_the_feed_was_missed(feed: Feed, clock: FakeClock) -> None:
    """SES-18: which of them were revoked meanwhile nobody knows."""
    woken: list[str] = []
    feed.listen("usr_a", lambda: woken.append("a"))
    await feed.poll()
    clock.advance(KEEP + 1)
    await feed.poll()
    assert woken == ["a"]
    assert feed.floor == feed.tick
