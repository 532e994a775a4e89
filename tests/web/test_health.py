"""`/readyz`: every part is asked, by one look at a time, and a process that is about to stop says no."""

from __future__ import annotations

import asyncio

import pytest

from routeguard.core.errors import Unavailable
from routeguard.foundation.web import health
from routeguard.foundation.web.health import Readiness

pytestmark = pytest.mark.anyio


async def well() -> None:
    return


async def away() -> None:
    raise Unavailable("a part")


async def test_ready_when_every_part_answers() -> None:
    readiness = Readiness(well)
    readiness.require(well)
    await readiness.check()


@pytest.mark.parametrize("probes", [(away, well), (well, away)], ids=["first", "last"])
async def test_not_ready_without_one_part(probes: tuple[health.Probe, ...]) -> None:
    readiness = Readiness(*probes)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await readiness.check()


async def test_not_ready_from_the_signal_on() -> None:
    readiness = Readiness(well)
    readiness.drain()
    with pytest.raises(Unavailable, match="stop"):
        await readiness.check()


async def test_a_signal_in_the_middle_of_a_look_counts() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await go_on.wait()

    readiness = Readiness(slow)
    check = asyncio.create_task(readiness.check())
    await asked.wait()
    readiness.drain()
    go_on.set()
    with pytest.raises(Unavailable, match="stop"):
        await check


async def test_a_flood_is_one_look() -> None:
    looks = 0
    go_on = asyncio.Event()

    async def counted() -> None:
        nonlocal looks
        looks += 1
        await go_on.wait()

    readiness = Readiness(counted)
    flood = [asyncio.create_task(readiness.check()) for _ in range(50)]
    while not looks:
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*flood)
    assert looks == 1
    await readiness.check()
    assert looks == 2


async def test_a_part_that_hangs_is_away_and_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PATIENCE", 0.05)
    looks = 0
    go_on = asyncio.Event()

    async def hangs() -> None:
        nonlocal looks
        looks += 1
        await go_on.wait()

    readiness = Readiness(hangs)
    for _ in range(3):
        with pytest.raises(Unavailable, match="does not answer"):
            await readiness.check()
    assert looks == 1
    go_on.set()
    monkeypatch.setattr(health, "_PATIENCE", 30.0)
    await readiness.check()


async def test_one_who_gives_up_ends_no_look_of_another() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await go_on.wait()

    readiness = Readiness(slow)
    first, second = (asyncio.create_task(readiness.check()) for _ in range(2))
    await asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    await second
