"""Tasks that a service runs in the background, from its start to its close."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


def runs_here(task: asyncio.Future[Any] | None) -> bool:
    """Whether `task` belongs to the running event loop.

    One of another loop cannot be awaited or cancelled from here. At a close or a new start that loop has ended, and
    the task with it.
    """
    return task is not None and task.get_loop() is asyncio.get_running_loop()


async def end(task: asyncio.Future[Any] | None, *, patience: float | None = 0.0) -> None:
    """Wait up to `patience` seconds (None: without end) for a task to end by itself, then cancel it and wait for that.

    Does nothing for a task of an event loop that has ended. Raises nothing of what the task raised.
    """
    if task is None or not runs_here(task):
        return
    try:
        if patience != 0:
            await asyncio.wait({task}, timeout=patience)
    finally:
        # Also when the one who waits is cancelled: no task is left behind.
        task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # Seen.


async def uncancelled(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work` to its end although this task is cancelled meanwhile, and raise the cancellation only then.

    A server cancels the task of a client that left, and so does `asyncio.timeout`; the shield of an anyio scope holds
    against neither. Ends early only when the event loop ends, which cancels every task. Raises what `work` raises.
    """
    task = asyncio.get_running_loop().create_task(work())
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # Seen.
    raise cancellation
