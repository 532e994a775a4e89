"""Work done now and then: until it is closed, whatever a run raises, and at once when it is woken."""

from __future__ import annotations

import asyncio
import random

import pytest

from routeguard.core.errors import Unavailable
from routeguard.core.periodic import Periodic, wait
from tests.rounds import rounds
from tests.steady import until

pytestmark = pytest.mark.anyio


class Time:
    """A clock that goes on when told: `pauses` are those that were waited for."""

    def __init__(self) -> None:
        self.pauses: list[float | None] = []
        self._over = asyncio.Event()

    async def __call__(self, event: asyncio.Event, seconds: float | None) -> None:
        self.pauses.append(seconds)
        self._over.clear()
        waits = [asyncio.ensure_future(one.wait()) for one in (event, self._over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def go_on(self) -> None:
        """Let the pause be over, and wait for the next one."""
        begun = len(self.pauses)
        self._over.set()
        await until(lambda: len(self.pauses) > begun)


class Work:
    """What is done: counted, held while `held` is clear, and failing with `error`."""

    def __init__(self) -> None:
        self.begun = self.ended = self.cancelled = 0
        self.held = asyncio.Event()
        self.held.set()
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.begun += 1
        try:
            await self.held.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        self.ended += 1


def _periodic(work: Work, time: Time | None = None, *, pause: float | None = 7.0) -> Periodic:
    return Periodic("test-work", work, pause=lambda: pause, wait=wait if time is None else time)


async def test_it_runs_after_each_pause_and_not_at_the_start() -> None:
    work, time = Work(), Time()
    periodic = _periodic(work, time)
    periodic.start()
    await until(lambda: time.pauses)
    assert work.ended == 0
    for number in range(1, 4):
        await time.go_on()
        assert work.ended == number
    assert time.pauses == [7.0] * 4
    await periodic.close()


async def test_the_pause_is_asked_for_after_each_run() -> None:
    pauses = iter([1.0, 2.0, 0.5])
    work, time = Work(), Time()
    periodic = Periodic("test-work", work, pause=lambda: next(pauses), wait=time)
    periodic.start()
    await until(lambda: time.pauses)
    await time.go_on()
    await time.go_on()
    assert time.pauses == [1.0, 2.0, 0.5]
    await periodic.close()


async def test_the_pause_ends_by_the_clock_of_the_event_loop() -> None:
    work = Work()
    periodic = _periodic(work, pause=0.001)
    periodic.start()
    await until(lambda: work.ended >= 3)
    await periodic.close()


async def test_it_runs_at_once_when_woken_and_once_more_when_woken_meanwhile() -> None:
    work, time = Work(), Time()
    periodic = _periodic(work, time, pause=None)
    periodic.start()
    await until(lambda: time.pauses)
    work.held.clear()
    periodic.wake()
    await until(lambda: work.begun == 1)
    for _ in range(5):
        periodic.wake()
    work.held.set()
    await until(lambda: len(time.pauses) == 3)
    assert work.ended == 2, "not once for each time that it was woken"
    await periodic.close()


async def test_it_begins_with_a_run_when_woken_before_the_start() -> None:
    work, time = Work(), Time()
    periodic = _periodic(work, time, pause=None)
    periodic.wake()
    periodic.start()
    await until(lambda: len(time.pauses) == 2)
    assert work.ended == 1
    await periodic.close()


async def test_a_fault_is_logged_once_until_a_run_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    work, time = Work(), Time()
    periodic = _periodic(work, time, pause=0.0)
    work.error = ZeroDivisionError("why")
    periodic.start()
    await until(lambda: time.pauses)
    for _ in range(6):
        await time.go_on()
    assert work.begun == 3
    [record] = caplog.records
    assert record.getMessage() == "test-work failed, and is tried again"
    assert record.exc_info is not None
    assert time.pauses == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    work.error = None
    await time.go_on()
    assert work.ended == 1
    assert time.pauses[-1] == 0.0
    work.error = ZeroDivisionError("again")
    await time.go_on()
    assert len(caplog.records) == 2
    await periodic.close()


async def test_work_that_waits_for_what_was_cancelled_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """OPS-04: a run that awaits somebody else's task ends with that one, and no later run must."""
    work, time = Work(), Time()
    other = asyncio.ensure_future(asyncio.Event().wait())

    async def call() -> None:
        await work()
        await other

    periodic = Periodic("test-work", call, pause=lambda: 0.0, wait=time)
    periodic.wake()
    periodic.start()
    await until(lambda: work.ended == 1)
    other.cancel()
    await until(lambda: time.pauses[-1] == 1.0)
    await time.go_on()
    await time.go_on()
    assert (work.begun, periodic.running, len(caplog.records)) == (2, True, 1)
    await periodic.close()
    assert not periodic.running


async def test_a_pause_that_cannot_be_told_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    work, time, told = Work(), Time(), iter([ZeroDivisionError(), 7.0])

    def pause() -> float:
        found = next(told, 7.0)
        if isinstance(found, Exception):
            raise found
        return found

    periodic = Periodic("test-work", work, pause=pause, wait=time)
    periodic.start()
    await until(lambda: time.pauses)
    await time.go_on()
    assert (work.ended, time.pauses, len(caplog.records)) == (1, [1.0, 7.0], 1)
    await periodic.close()


async def test_work_that_fails_at_once_and_is_woken_does_not_fill_a_processor() -> None:
    work, time = Work(), Time()
    periodic = _periodic(work, time, pause=0.0)
    work.error = ZeroDivisionError("why")
    periodic.wake()
    periodic.start()
    await until(lambda: time.pauses[-1:] == [1.0])
    for _ in range(50):
        periodic.wake()
        await asyncio.sleep(0)
    assert work.begun == 1
    work.error = None
    await time.go_on()
    await until(lambda: work.ended == 1)
    await periodic.close()


async def test_a_close_after_a_fault_does_not_wait_for_the_next_run() -> None:
    work, time = Work(), Time()
    periodic = _periodic(work, time)
    work.error = ZeroDivisionError("why")
    periodic.wake()
    periodic.start()
    await until(lambda: time.pauses[-1:] == [1.0])
    await periodic.close(patience=None)
    assert work.begun == 1


async def test_an_outage_is_not_its_to_tell_and_changes_no_pause(caplog: pytest.LogCaptureFixture) -> None:
    work, time = Work(), Time()
    periodic = _periodic(work, time, pause=0.5)
    work.error = Unavailable("the database")
    periodic.start()
    await until(lambda: time.pauses)
    for _ in range(3):
        await time.go_on()
    assert work.begun == 3
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []
    assert time.pauses == [0.5] * 4
    await periodic.close()


async def test_close_leaves_no_task_and_no_run_comes_after() -> None:
    before = asyncio.all_tasks()
    work, time = Work(), Time()
    periodic = _periodic(work, time)
    periodic.start()
    await until(lambda: time.pauses)
    assert periodic.running
    await periodic.close()
    assert not periodic.running
    periodic.wake()
    await asyncio.sleep(0)
    assert work.begun == 0
    assert asyncio.all_tasks() == before
    await periodic.close()


async def test_a_close_without_patience_cuts_a_run_off() -> None:
    work = Work()
    work.held.clear()
    periodic = _periodic(work)
    periodic.wake()
    periodic.start()
    await until(lambda: work.begun)
    await periodic.close()
    assert work.cancelled == 1


@pytest.mark.parametrize("patience", [60.0, None])
async def test_a_close_with_patience_lets_the_run_end_and_begins_no_other(patience: float | None) -> None:
    work = Work()
    work.held.clear()
    periodic = _periodic(work)
    periodic.wake()
    periodic.start()
    await until(lambda: work.begun)
    periodic.wake()
    closing = asyncio.create_task(periodic.close(patience=patience))
    await asyncio.sleep(0)
    work.held.set()
    await closing
    assert (work.begun, work.ended, work.cancelled) == (1, 1, 0)


async def test_a_close_with_patience_ends_a_pause_at_once() -> None:
    work, time = Work(), Time()
    periodic = _periodic(work, time, pause=None)
    periodic.start()
    await until(lambda: time.pauses)
    await periodic.close(patience=None)
    assert work.begun == 0


async def test_a_close_that_is_cancelled_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    work = Work()
    work.held.clear()
    periodic = _periodic(work)
    periodic.wake()
    periodic.start()
    await until(lambda: work.begun)
    closing = asyncio.create_task(periodic.close(patience=None))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await until(lambda: asyncio.all_tasks() == before)
    assert work.cancelled == 1


def test_it_can_be_started_in_another_event_loop() -> None:
    work = Work()
    periodic = _periodic(work, pause=0.001)

    async def some() -> None:
        seen = work.ended
        periodic.start()
        await until(lambda: work.ended > seen)
        await periodic.close()

    asyncio.run(some())
    asyncio.run(some())


def test_close_after_its_event_loop_has_ended() -> None:
    work, stopped = Work(), asyncio.new_event_loop()
    periodic = _periodic(work, pause=None)

    async def begin() -> asyncio.Task[None]:
        periodic.start()
        await asyncio.sleep(0)
        assert periodic._task is not None
        return periodic._task

    task = stopped.run_until_complete(begin())
    try:
        asyncio.run(periodic.close())
        assert not periodic.running
        assert not task.done()
    finally:
        task.cancel()
        stopped.run_until_complete(asyncio.wait({task}))
        stopped.close()


@rounds(20, 400)
async def test_waking_callers_race_with_a_close(rounds: int) -> None:
    """After whoever woke it last, one run begins, unless the close came first; never two at once, none after it."""
    for seed in range(rounds):
        chance = random.Random(seed)
        race = Race(chance)
        periodic = Periodic("test-work", race.work, pause=lambda: None)
        periodic.start()
        callers = [asyncio.create_task(race.caller(periodic)) for _ in range(10)]
        async with asyncio.timeout(30):
            if chance.random() < 0.5:
                await asyncio.gather(*callers)
                await until(lambda race=race: race.seen == race.asked)  # type: ignore[misc]
            else:
                await race.turns(6)
            await periodic.close(patience=chance.choice([0.0, 60.0, None]))
        begun = race.begun
        await asyncio.gather(*callers)
        await race.turns(4)
        assert race.begun == begun
        assert race.running == 0


class Race:
    """Callers that wake it by chance, and work that takes a few turns of the event loop."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.asked = self.seen = self.running = self.begun = 0

    async def turns(self, most: int) -> None:
        for _ in range(self.chance.randrange(most)):
            await asyncio.sleep(0)

    async def work(self) -> None:
        self.begun += 1
        self.running += 1
        assert self.running == 1
        seen = self.asked
        try:
            await self.turns(4)
            self.seen = seen
        finally:
            self.running -= 1

    async def caller(self, periodic: Periodic) -> None:
        for _ in range(3):
            await self.turns(5)
            self.asked += 1
            periodic.wake()
