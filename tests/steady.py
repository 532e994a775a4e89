"""How tests wait and measure on a machine that is busy with something else: for conditions, and more than once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

PATIENCE: Final = 60.0
"""Seconds until what must come has not come: many times what it takes, so that only a fault takes so long."""
_TRIES: Final = 8


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
