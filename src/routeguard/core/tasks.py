"""Tasks that a service runs in the background, from its start to its close."""

from __future__ import annotations

import asyncio
from typing import Any


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
