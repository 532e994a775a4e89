"""Work that is done now and then, from the start of a service to its close."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from routeguard.core.errors import Unavailable
from routeguard.core.tasks import end, runs_here

logger = logging.getLogger("routeguard")

_AFTER_A_FAULT: Final = 1.0
"""Seconds between a fault and the pause that follows: what fails at once, and is woken, must not fill a processor."""

Wait = Callable[[asyncio.Event, "float | None"], Awaitable[None]]
"""Returns when the event is set, or after so many seconds; None: only when it is set."""


async def wait(event: asyncio.Event, seconds: float | None) -> None:
    """Wait by the clock of the event loop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Periodic:
    """Runs `call` again and again in a task of its own: after a pause, or as soon as it is woken.

    The pause is from the end of one run to the begin of the next. Whatever a run raises, the next one comes: a fault
    is logged once until a run succeeds, an outage (Unavailable) is for those to tell whom it concerns.

    May be started and closed any number of times, each time in another event loop. Needs asyncio.
    """

    __slots__ = ("_call", "_closed", "_event", "_failing", "_name", "_pause", "_task", "_wait", "_woken")

    def __init__(
        self, name: str, call: Callable[[], Awaitable[Any]], *, pause: Callable[[], float | None], wait: Wait = wait
    ) -> None:
        """`name` is what the task is called. `pause`, asked after each run, is in seconds; None waits for `wake`."""
        self._name = name
        self._call = call
        self._pause = pause
        self._wait = wait
        self._task: asyncio.Task[None] | None = None
        self._event = asyncio.Event()
        self._woken = False
        self._closed = asyncio.Event()
        self._failing = False

    @property
    def running(self) -> bool:
        """Whether it was started and not closed."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin with a pause, or at once if it was woken before. Call it once until `close`."""
        self._closed, self._event = asyncio.Event(), asyncio.Event()
        if self._woken:
            self._event.set()
        self._task = asyncio.create_task(self._run(), name=self._name)

    def wake(self) -> None:
        """Run without waiting for the end of the pause; while it runs, once more after that."""
        self._woken = True
        self._event.set()

    async def close(self, *, patience: float | None = 0.0) -> None:
        """Begin no more run, and end the task. A run under way has `patience` seconds before it is cancelled.

        None waits for its end, however long it takes: for work whose outcome would otherwise be unknown.
        """
        task, self._task = self._task, None
        if not runs_here(task):
            return
        self._closed.set()
        self._event.set()
        await end(task, patience=patience)

    async def _run(self) -> None:
        while True:
            if self._failing:
                await self._wait(self._closed, _AFTER_A_FAULT)
            await self._wait(self._event, self._next_pause())
            if self._closed.is_set():
                return
            self._woken = False
            self._event.clear()
            await self._once()

    async def _once(self) -> None:
        try:
            await self._call()
        except Unavailable as error:
            logger.debug("%s: %s is away", self._name, error.what)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled, but what the run waited for.
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the work of a whole process must not end with one run
            self._fail(error)
        else:
            self._failing = False

    def _next_pause(self) -> float | None:
        try:
            return self._pause()
        except Exception as error:  # noqa: BLE001 - the same
            self._fail(error)
            return _AFTER_A_FAULT

    def _fail(self, error: BaseException) -> None:
        """Log a fault, once until a run succeeds."""
        if not self._failing:
            self._failing = True
            logger.error("%s failed, and is tried again", self._name, exc_info=error)
