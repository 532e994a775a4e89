"""One question for all who ask the same at once; cancelled callers end nothing but their own wait."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import pytest

from routeguard.core.errors import Unavailable
from routeguard.core.single_flight import SingleFlight
from tests.rounds import rounds

pytestmark = pytest.mark.anyio


class Question:
    """A question whose answer comes when `held` is set: how often it was put, or `error`."""

    def __init__(self) -> None:
        self.put = 0
        self.held = asyncio.Event()
        self.error: BaseException | None = None
        self.ended: list[str] = []

    async def __call__(self) -> int:
        self.put += 1
        number = self.put
        try:
            await self.held.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        if self.error is not None:
            raise self.error
        return number


async def _callers(flights: SingleFlight[str, int], question: Question, number: int) -> list[asyncio.Task[int]]:
    """Callers that wait for one answer."""
    tasks = [asyncio.create_task(flights.run("key", question)) for _ in range(number)]
    while not question.put:
        await asyncio.sleep(0)
    return tasks


async def test_all_who_ask_at_once_get_the_answer_of_one_question() -> None:
    flights, question = SingleFlight[str, int]("test"), Question()
    tasks = await _callers(flights, question, 50)
    question.held.set()
    assert await asyncio.gather(*tasks) == [1] * 50
    assert question.put == 1


async def test_different_keys_are_different_questions() -> None:
    flights, question = SingleFlight[str, int]("test"), Question()
    question.held.set()
    assert sorted(await asyncio.gather(*(flights.run(key, question) for key in "abca"))) == [1, 1, 2, 3]


async def test_nothing_is_kept_after_the_answer() -> None:
    flights, question = SingleFlight[str, int]("test"), Question()
    question.held.set()
    assert await flights.run("key", question) == 1
    await asyncio.sleep(0)
    assert not flights._flights
    assert await flights.run("key", question) == 2


async def test_a_cancelled_caller_ends_neither_the_question_nor_the_wait_of_others() -> None:
    flights, question = SingleFlight[str, int]("test"), Question()
    first, *others = await _callers(flights, question, 5)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    question.held.set()
    assert await asyncio.gather(*others) == [1] * 4
    assert question.ended == []


async def test_a_question_goes_on_when_every_caller_was_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """What it began, such as a rotation, is not left half done; what it raises is no complaint of the event loop."""
    flights, question = SingleFlight[str, int]("test"), Question()
    question.error = Unavailable("a part")
    tasks = await _callers(flights, question, 3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    [flight] = flights._flights.values()
    question.held.set()
    await asyncio.wait({flight})
    assert not flight.cancelled()
    del flight, tasks
    await asyncio.sleep(0)
    gc.collect()
    assert not flights._flights
    assert caplog.records == []


async def test_an_exception_goes_to_all_and_is_not_kept() -> None:
    flights, question = SingleFlight[str, int]("test"), Question()
    question.error = ZeroDivisionError("once")
    tasks = await _callers(flights, question, 5)
    question.held.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [ZeroDivisionError] * 5
    assert question.put == 1
    question.error = None
    assert await flights.run("key", question) == 2


async def test_each_caller_gets_an_unavailable_of_its_own() -> None:
    class Away(Unavailable):
        """As `remote.breaker` has one."""

    flights, question = SingleFlight[str, int]("test"), Question()
    question.error = Away("a part", retry_after=7)
    tasks = await _callers(flights, question, 5)
    question.held.set()
    found: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    assert len({id(one) for one in found}) == 5
    assert {(type(one), one.what, one.retry_after, str(one)) for one in found} == {(Away, "a part", 7, "a part")}


async def test_close_ends_what_is_under_way_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    flights, question = SingleFlight[str, int]("test"), Question()
    tasks = await _callers(flights, question, 3)
    await flights.close()
    assert question.ended == ["cancelled"]
    assert {type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)} == {Unavailable}
    assert asyncio.all_tasks() == before
    question.held.set()
    assert await flights.run("key", question) == 2, "it can be used again"


async def test_close_gives_a_question_time_to_end() -> None:
    flights, question = SingleFlight[str, int]("test"), Question()
    tasks = await _callers(flights, question, 3)
    closing = asyncio.create_task(flights.close(patience=60))
    await asyncio.sleep(0)
    question.held.set()
    await closing
    assert await asyncio.gather(*tasks) == [1] * 3


def test_a_flight_of_an_event_loop_that_has_ended_is_not_waited_for() -> None:
    flights, stopped = SingleFlight[str, int]("test"), asyncio.new_event_loop()

    async def begin() -> asyncio.Task[int]:
        [task] = await _callers(flights, Question(), 1)
        return task

    async def answer() -> int:
        return 7

    caller = stopped.run_until_complete(begin())
    try:
        assert flights._flights
        assert asyncio.run(flights.run("key", answer)) == 7
    finally:
        for task in asyncio.all_tasks(stopped):
            task.cancel()
        stopped.run_until_complete(asyncio.wait({caller}))
        stopped.close()


class Race:
    """Callers of two questions that come, and give up, by chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.flights: SingleFlight[int, int] = SingleFlight("test")
        self.running = {0: 0, 1: 0}
        self.answered = 0

    async def wait(self, most: int) -> None:
        for _ in range(self.chance.randrange(most)):
            await asyncio.sleep(0)

    async def ask(self, key: int) -> int:
        self.running[key] += 1
        assert self.running[key] == 1, "two questions at once"
        await self.wait(5)
        self.running[key] -= 1
        self.answered += 1
        if self.chance.random() < 0.3:
            raise ZeroDivisionError
        return self.answered

    async def call(self) -> int:
        await self.wait(8)
        key, before = self.chance.randrange(2), self.answered
        found = await self.flights.run(key, lambda: self.ask(key))
        assert found > before, "an answer from before it was asked for"
        return found


@rounds(20, 400)
async def test_racing_callers_of_which_some_give_up(rounds: int) -> None:
    """Who stays gets the answer of a question that was under way while it waited; one at most is at a time."""
    for seed in range(rounds):
        race = Race(seed)
        tasks = [asyncio.create_task(race.call()) for _ in range(30)]
        given_up = race.chance.sample(tasks, 8)
        for task in given_up:
            await race.wait(3)
            task.cancel()
        async with asyncio.timeout(30):
            found = await asyncio.gather(*tasks, return_exceptions=True)
        for task, one in zip(tasks, found, strict=True):
            if not isinstance(one, int | ZeroDivisionError):
                assert isinstance(one, asyncio.CancelledError), one
                assert task in given_up
        while race.flights._flights:
            await asyncio.sleep(0)
        assert race.running == {0: 0, 1: 0}
