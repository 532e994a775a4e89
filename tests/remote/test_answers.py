"""Answers: asked once for all who wait, void when the feed says so, and never shared when they were for one use."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from routeguard.core.clock import SteadyClock
from routeguard.core.errors import Unavailable
from routeguard.foundation.invalidation.feed import Feed, Row
from routeguard.remote.answers import Answers, Finding
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio


class Scene:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        steady = SteadyClock(clock)
        self.feed = Feed(self._read, clock=steady, poll=1, trust=4, keep=1500)
        self.answers: Answers[Any] = Answers(clock=steady, feed=self.feed, life=60)
        self.asked = 0
        self.finding: Finding[Any] | None = Finding("yes", ("ses_a", "usr_a"))
        self.held: asyncio.Event | None = None

    async def _read(self, *, window: float, after_id: int) -> list[Row]:
        assert window > 0 <= after_id
        return []

    async def ask(self) -> Finding[Any]:
        self.asked += 1
        finding = self.finding
        if self.held is not None:
            await self.held.wait()
        if finding is None:
            raise Unavailable("the service")
        return finding

    async def get(self) -> Any:
        return await self.answers.get(b"key", self.ask)


@pytest.fixture
async def scene(clock: FakeClock) -> Scene:
    scene = Scene(clock)
    await scene.feed.poll()
    return scene


async def test_an_answer_is_remembered_while_the_feed_is_heard(scene: Scene):
    for _ in range(3):
        assert await scene.get() == "yes"
    assert scene.asked == 1
    scene.clock.advance(5)
    await scene.get()
    assert scene.asked == 2, "the feed was not heard for longer than it is trusted"


@pytest.mark.parametrize("subject", ["ses_a", "usr_a"])
async def test_what_was_invalidated_is_asked_anew(scene: Scene, subject: str):
    await scene.get()
    scene.feed.learn("usr_other")
    await scene.get()
    assert scene.asked == 1
    scene.feed.learn(subject)
    scene.finding = Finding(None, refused=True)
    assert await scene.get() is None
    assert scene.asked == 2


async def test_it_does_not_outlive_its_time_nor_what_it_speaks_of(scene: Scene):
    scene.finding = Finding("yes", (), scene.clock.time() + 2)
    await scene.get()
    scene.clock.advance(3)
    await scene.get()
    assert scene.asked == 2
    scene.finding = Finding(None, refused=True)
    scene.clock.advance(3)
    await scene.feed.poll()
    for _ in range(3):
        assert await scene.get() is None
    assert scene.asked == 3
    scene.clock.advance(3)
    await scene.get()
    assert scene.asked == 4, "a refusal is soon asked about again"


async def test_of_many_one_asks_though_he_gives_up(scene: Scene):
    scene.held = asyncio.Event()
    tasks = [asyncio.ensure_future(scene.get()) for _ in range(100)]
    while not scene.asked:
        await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    scene.held.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == ["yes"] * 99
    assert scene.asked == 1


async def test_an_outage_is_everybodys_and_is_not_remembered(scene: Scene):
    scene.finding = None
    found = await asyncio.gather(*(scene.get() for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in found} == {Unavailable}
    assert len({id(one) for one in found}) == 20
    assert scene.asked == 1
    scene.finding = Finding("yes")
    assert await scene.get() == "yes"


async def test_who_comes_after_a_revocation_does_not_get_the_answer_of_before(scene: Scene):
    """SES-18"""
    scene.held = asyncio.Event()
    before = asyncio.ensure_future(scene.get())
    while not scene.asked:
        await asyncio.sleep(0)
    scene.feed.learn("ses_a")
    scene.finding = Finding(None, refused=True)
    after = asyncio.ensure_future(scene.get())
    while scene.asked < 2:
        await asyncio.sleep(0)
    scene.held.set()
    await before
    assert await after is None
    assert await scene.get() is None


async def test_an_answer_for_one_use_is_given_to_one(scene: Scene):
    """KEY-13"""
    scene.finding = Finding("yes", shared=False)
    await asyncio.gather(*(scene.get() for _ in range(7)))
    assert scene.asked == 7
    await scene.get()
    assert scene.asked == 8


async def test_made_up_credentials_push_out_only_one_another(scene: Scene):
    """RL-16"""
    await scene.get()

    async def refuse() -> Finding[Any]:
        return Finding(None, refused=True)

    for number in range(9000):
        await scene.answers.get(b"made up %d" % number, refuse)
    await scene.get()
    assert scene.asked == 1
    assert len(scene.answers._refused) == 2048
    assert len(scene.answers._known) == 1


async def test_what_was_good_is_remembered_as_such_until_it_is_refused(scene: Scene):
    assert not scene.answers.was_good(b"key")
    await scene.get()
    scene.feed.learn("ses_a")
    assert scene.answers.was_good(b"key")
    scene.finding = Finding(None, refused=True)
    await scene.get()
    assert not scene.answers.was_good(b"key")
    scene.clock.advance(3)
    await scene.feed.poll()
    scene.finding = Finding("yes")
    await scene.get()
    assert scene.answers.was_good(b"key")
    assert not scene.answers._refused


@pytest.mark.parametrize("polled", [True, False])
async def test_what_was_revoked_while_the_machine_was_suspended(scene: Scene, polled: bool):
    """SES-18"""
    assert await scene.get() == "yes"
    scene.finding = Finding(None, refused=True)
    scene.clock.step(7200)
    if polled:
        await scene.feed.poll()
    assert await scene.get() is None
