"""Services start in order, close in reverse, and a start that failed leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.services import Services, Step

pytestmark = pytest.mark.anyio


class One:
    """A service."""


class Two:
    """Another one."""


class Three:
    """A third one."""


KINDS = (One, Two, Three)


class Diary:
    """What happened, in order; names in `broken` fail."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.broken: set[str] = set()

    def step(self, name: str) -> Step:
        async def run() -> None:
            await asyncio.sleep(0)
            self.lines.append(name)
            if name in self.broken:
                raise Unavailable(name)

        return run

    def services(self) -> Services:
        services = Services()
        for kind in KINDS:
            name = kind.__name__
            services.add(kind, kind(), start=self.step(f"start {name}"), close=self.step(f"close {name}"))
        return services


async def test_order() -> None:
    diary = Diary()
    services = diary.services()
    await services.start()
    await services.close()
    await services.close()
    assert diary.lines == ["start One", "start Two", "start Three", "close Three", "close Two", "close One"]


async def test_a_start_that_fails_is_undone_and_can_be_tried_again() -> None:
    diary = Diary()
    services = diary.services()
    diary.broken = {"start Two"}
    with pytest.raises(Unavailable):
        await services.start()
    assert diary.lines == ["start One", "start Two", "close Two", "close One"]
    diary.broken.clear()
    diary.lines.clear()
    await services.start()
    assert diary.lines == ["start One", "start Two", "start Three"]


async def test_a_start_that_is_cancelled_is_undone() -> None:
    diary, waiting = Diary(), asyncio.Event()

    async def forever() -> None:
        waiting.set()
        await asyncio.Event().wait()

    services = Services()
    services.add(One, One(), start=diary.step("start One"), close=diary.step("close One"))
    services.add(Two, Two(), start=forever, close=diary.step("close Two"))
    task = asyncio.ensure_future(services.start())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert diary.lines == ["start One", "close Two", "close One"]


async def test_a_close_that_fails_leaves_nothing_open() -> None:
    diary = Diary()
    services = diary.services()
    await services.start()
    diary.lines.clear()
    diary.broken = {"close Three"}
    with pytest.raises(Unavailable):
        await services.close()
    assert diary.lines == ["close Three", "close Two", "close One"]


def test_look_up() -> None:
    services = Services()
    one = services.add(One, One())
    assert services.get(One) is one
    assert services.find(Two) is None
    with pytest.raises(ConfigError):
        services.get(Two)
    with pytest.raises(ConfigError):
        services.add(One, One())
