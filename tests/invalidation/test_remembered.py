"""What is remembered counts until it ends, is contradicted, or could have been contradicted unheard (SES-18)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import routeguard
from routeguard.core.clock import SteadyClock
from routeguard.foundation.invalidation.feed import Feed, Row
from routeguard.foundation.invalidation.remembered import Remembered
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio

LIFE: Final = 60.0
KEEP: Final = 660.0


class Scene:
    """A feed that hears nothing unless `rows` says so, and a memory over it."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        steady = SteadyClock(clock)
        self.rows: list[Row] = []
        self.feed = Feed(self._read, clock=steady, poll=1, trust=4, keep=KEEP)
        self.memory: Remembered[str, str] = Remembered(self.feed, steady, capacity=3, life=LIFE)

    async def _read(self, *, window: float, after_id: int) -> list[Row]:
        assert window > 0 <= after_id
        return self.rows

    def put(self, key: str = "key", *, ends_in: float = math.inf, **given: Any) -> None:
        self.memory.put(
            key,
            "value",
            subjects=("ses_a", "usr_a"),
            ends_at=self.clock.time() + ends_in,
            **({"asked_at": self.memory.began()} | given),
        )

    async def wait(self, seconds: float) -> None:
        """Let time pass in which the feed was heard as it should be."""
        while seconds > 0:
            self.clock.advance(min(seconds, 2.0))
            seconds -= 2.0
            await self.feed.poll()


@pytest.fixture
async def scene(clock: FakeClock) -> Scene:
    scene = Scene(clock)
    await scene.feed.poll()
    return scene


async def _nothing(scene: Scene) -> None:
    """Nothing happens."""


async def _almost_its_life(scene: Scene) -> None:
    await scene.wait(LIFE - 2)


async def _another_subject(scene: Scene) -> None:
    scene.feed.learn("ses_b", "usr_b")


async def _a_clock_put_back(scene: Scene) -> None:
    scene.clock.step(-3600)


async def _its_life(scene: Scene) -> None:
    await scene.wait(LIFE)


async def _its_subject(scene: Scene) -> None:
    scene.feed.learn("ses_a")


async def _another_of_its_subjects(scene: Scene) -> None:
    scene.feed.learn("usr_b", "usr_a")


async def _a_silent_feed(scene: Scene) -> None:
    scene.clock.advance(4)


async def _a_closed_feed(scene: Scene) -> None:
    await scene.feed.close()


async def _a_suspended_machine(scene: Scene) -> None:
    """Its monotonic clock stood still, so only the wall clock tells that the feed was not heard."""
    scene.clock.step(KEEP + 1)


async def _a_machine_suspended_for_seconds(scene: Scene) -> None:
    scene.clock.step(4)


async def _a_gap_in_the_feed(scene: Scene) -> None:
    """Heard again, but perhaps not of everything."""
    scene.clock.step(KEEP + 1)
    await scene.feed.poll()


async def _a_gap_after_which_the_clock_is_put_back(scene: Scene) -> None:
    scene.clock.step(KEEP + 1)
    await scene.feed.poll()
    scene.clock.step(-KEEP - 1)


Event = Callable[[Scene], Any]
COUNTS: Final[tuple[Event, ...]] = (_nothing, _almost_its_life, _another_subject, _a_clock_put_back)
VOID: Final[tuple[Event, ...]] = (
    _its_life,
    _its_subject,
    _another_of_its_subjects,
    _a_silent_feed,
    _a_closed_feed,
    _a_suspended_machine,
    _a_machine_suspended_for_seconds,
    _a_gap_in_the_feed,
    _a_gap_after_which_the_clock_is_put_back,
)


@pytest.mark.parametrize("event", COUNTS, ids=lambda event: event.__name__)
async def test_an_answer_goes_on_counting_after(scene: Scene, event: Event) -> None:
    scene.put()
    await event(scene)
    assert scene.memory.get("key") == "value"


@pytest.mark.parametrize("event", VOID, ids=lambda event: event.__name__)
async def test_an_answer_is_void_after(scene: Scene, event: Event) -> None:
    """SES-18"""
    scene.put()
    await event(scene)
    assert scene.memory.get("key") is None
    assert "key" in scene.memory


@pytest.mark.parametrize("clock_step", [0.0, 5.0, -5.0])
async def test_what_it_speaks_of_ends_by_either_clock(scene: Scene, clock_step: float) -> None:
    """SES-27: a clock that is put back does not lengthen it."""
    scene.put(ends_in=10)
    await scene.wait(8)
    assert scene.memory.get("key") == "value"
    scene.clock.step(clock_step)
    await scene.feed.poll()
    await scene.wait(2)
    assert scene.memory.get("key") is None


async def test_what_is_revoked_while_the_store_is_asked_voids_the_answer(scene: Scene) -> None:
    """SES-18: the answer may be of before."""
    asked_at = scene.memory.began()
    scene.feed.learn("ses_a")
    scene.put(asked_at=asked_at)
    assert scene.memory.get("key") is None
    scene.put()
    assert scene.memory.get("key") == "value"
    asked_at = scene.memory.began()
    await _a_gap_in_the_feed(scene)
    scene.put(asked_at=asked_at)
    assert scene.memory.get("key") is None


async def test_before_the_feed_was_heard_nothing_counts(clock: FakeClock) -> None:
    scene = Scene(clock)
    scene.put()
    assert scene.memory.get("key") is None


async def test_an_answer_with_a_life_of_its_own(scene: Scene) -> None:
    scene.put(life=2)
    assert scene.memory.get("key") == "value"
    await scene.wait(2)
    assert scene.memory.get("key") is None


async def test_the_one_put_longest_ago_makes_room(scene: Scene) -> None:
    for key in ("a", "b", "c", "a", "d"):
        scene.put(key)
    assert [key for key in "abcd" if key in scene.memory] == ["a", "c", "d"]
    assert len(scene.memory) == 3


async def test_a_value_is_changed_and_its_end_is_not(scene: Scene) -> None:
    scene.put()
    await scene.wait(LIFE - 2)
    scene.memory.amend("key", "other")
    scene.memory.amend("unknown", "other")
    assert (scene.memory.get("key"), scene.memory.get("unknown")) == ("other", None)
    await scene.wait(2)
    assert scene.memory.get("key") is None
    scene.memory.forget("key")
    scene.memory.forget("key")
    assert "key" not in scene.memory


def test_nobody_else_decides_what_counts() -> None:
    """A cache that compares by itself forgets one of the rules, as three of four once did."""
    source = Path(routeguard.__file__).parent
    found = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if re.search(
            r"\.(trusted_until|trusted_wall|floor)\b|feed\.stale\b|invalidations\.stale\b", path.read_text("utf-8")
        )
    }
    invalidation = {"foundation/invalidation/feed.py", "foundation/invalidation/remembered.py"}
    assert found <= {*invalidation, "foundation/ephemeral/script.py"}
