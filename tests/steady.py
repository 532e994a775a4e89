"""How tests wait and measure on a machine that is busy with something else: for conditions, and more than once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final

from routeguard.foundation.db.models import DatabaseSettings

PATIENCE: Final = 60.0
"""Seconds until what must come has not come: many times what it takes, so that only a fault takes so long."""
PATIENT: Final = DatabaseSettings(timeout=timedelta(seconds=30), statement_timeout=timedelta(seconds=30))
"""For a machine that runs many tests at once; what impatience does is tested in tests/db."""
DEADLINE: Final = 20.0
"""Seconds that a command to Valkey may take, likewise."""
_TRIES: Final = 8
_KNOWN: Final = 0.0015
"""Seconds of the processor for `_known_work` on the machine for which limits are written."""


async def until(condition: Callable[[], Any], *, within: float = PATIENCE) -> None:
    """Wait until `condition()` is true. Raises AssertionError after `within` seconds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "what must come did not come"
        await asyncio.sleep(0.005)


async def quiet(before: set[asyncio.Task[Any]], *, within: float = 5.0) -> None:
    """Wait until the tasks that were begun since `before` are over: what goes on after its caller has left."""
    end = time.monotonic() + within
    here = asyncio.current_task()
    while any(task not in before and task is not here for task in asyncio.all_tasks()) and time.monotonic() < end:
        await asyncio.sleep(0.005)


async def cancelled_after(turns: int, work: Awaitable[Any], *, pause: float = 0.0) -> bool:
    """Run `work`, cancelled after some turns of the loop, as a server does whose client has left. True if it ended.

    A turn takes at least `pause` seconds.
    """
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        if task.done():
            break
        await asyncio.sleep(pause)
    done = task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return done


async def alike(measure: Callable[[], Awaitable[dict[str, float]]], *, within: float) -> None:
    """Check that the largest of what is measured is at most `within` times the smallest, in one try of a few.

    Whatever else the machine does makes one of them slower now and then; a real difference is there every time.
    """
    found = []
    for _ in range(_TRIES):
        times = await measure()
        if max(times.values()) <= within * min(times.values()):
            return
        found.append(times)
    raise AssertionError(found)


def slowness() -> float:
    """Return how many times as long as where limits are written the processor takes for known work now; 1 at least.

    A slow machine takes longer for everything, and so does one whose cores and caches are shared with other work.
    """
    began = time.thread_time()
    _known_work()
    return max(1.0, (time.thread_time() - began) / _KNOWN)


def work_of(call: Callable[[], object], *, tries: int = 1) -> float:
    """Return the seconds of the processor that a call takes, as on the machine for which limits are written.

    The least of several tries: what is slow by itself is slow every time. The call runs in this thread.
    """
    return min(_once(call) for _ in range(tries))


@contextmanager
def work_within(seconds: float) -> Iterator[None]:
    """Check that a block costs this process at most so much of the processor, as where limits are written."""
    began = time.process_time()
    yield
    spent = time.process_time() - began
    if spent > seconds:
        spent /= max(slowness() for _ in range(4))
    assert spent <= seconds, f"{spent:.3f} s of work"


def _once(call: Callable[[], object]) -> float:
    before, began = slowness(), time.thread_time()
    call()
    spent = time.thread_time() - began
    return spent / max(before, slowness())


def _known_work() -> int:
    total = 0
    for number in range(20_000):
        total = (total * 31 + number) & 0xFFFFFFFF
    return total
