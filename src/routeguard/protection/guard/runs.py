"""Where the services of a guard run: one set of them for each event loop that uses the guard at the same time.

Locks, tasks, pools and connections belong to an event loop. Most processes have one; a test suite starts one after
the other, or two at once in two threads. A set is used by one loop at a time, and by the next once the first has
stopped or has ended. Two loops at once have two sets, like two processes over one database.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from routeguard.core.services import Services

logger = logging.getLogger("routeguard")

IDLE: Final = object()
"""In place of an event loop: none."""


class Run:
    """A set of services and the event loop it runs in."""

    __slots__ = ("abandoned", "holders", "lock", "loop", "owner", "services")

    def __init__(self, services: Services) -> None:
        self.services = services
        self.loop: object = IDLE
        """The asyncio event loop the services are started in, None for a loop of another library, or `IDLE`."""
        self.owner: object = IDLE
        """The event loop that starts, runs or stops them."""
        self.holders: list[object] = []
        """Whose lifespans have to end before the services stop."""
        self.lock: Any = None
        self.abandoned = False
        """Whether the event loop before this one ended without a stop."""


def running_loop() -> object:
    """Return the running asyncio event loop; None in one of another library."""
    return asyncio._get_running_loop()  # noqa: SLF001 - documented, and does not raise


class Runs:
    """The sets of a guard. `first` is the set for a single event loop; `another` makes one more, without I/O."""

    def __init__(self, first: Services, another: Callable[[], Services]) -> None:
        self._another = another
        self._runs = [Run(first)]
        # Two loops are two threads.
        self._choice = threading.Lock()

    def services(self) -> Services:
        """Return the services of the running event loop; the first where it has none, or outside of one."""
        first, loop = self._runs[0], running_loop()
        if first.loop is loop:
            return first.services
        return next((run for run in self._runs if run.loop is loop), first).services

    def has(self, services: Services) -> bool:
        """Return whether a set is one of these."""
        return any(run.services is services for run in self._runs)

    async def enter(self, holder: object | None) -> Run:
        """Return the set of the running event loop, started. It runs until all who hold it leave.

        Raises what a service raises at its start; the next `enter` tries again.
        """
        loop = running_loop()
        while True:
            run = self._take(loop)
            async with run.lock:
                if run.owner is not loop:
                    continue  # Another holder has just stopped it.
                if run.loop is IDLE:
                    await self._start(run)
                if holder is not None:
                    run.holders.append(holder)
                return run

    async def leave(self, holder: object) -> None:
        """Stop the services of the running event loop, unless another still holds them; safe to call once more.

        Also closes what event loops left open that ended without a stop.
        """
        loop = running_loop()
        for run in tuple(self._runs):
            if run.owner is loop:
                await self._leave(run, loop, holder)
            elif _has_ended(run.owner):
                await self._collect(run)

    def _take(self, loop: object) -> Run:
        """Return the set of `loop`: the one it has, else one that is not in use, else another."""
        with self._choice:
            for run in self._runs:
                if run.owner is loop:
                    return run
            free = [run for run in self._runs if run.owner is IDLE or _has_ended(run.owner)]
            if not free:
                free = [Run(self._another())]
                self._runs += free
            _hand_over(free[0], loop)
            return free[0]

    async def _start(self, run: Run) -> None:
        started = False
        try:
            if run.abandoned:
                await run.services.abandon()
                run.abandoned = False
            await run.services.start()
            run.loop = run.owner
            started = True
        finally:
            if not started:
                run.owner = IDLE

    async def _leave(self, run: Run, loop: object, holder: object) -> None:
        async with run.lock:
            if run.owner is not loop or run.loop is IDLE:
                return
            if holder in run.holders:
                run.holders.remove(holder)
            if run.holders:
                return
            run.loop = IDLE
            try:
                await run.services.close()
            finally:
                run.owner = IDLE

    async def _collect(self, run: Run) -> None:
        loop = running_loop()
        with self._choice:
            if not _has_ended(run.owner):
                return
            _hand_over(run, loop)
        async with run.lock:
            if run.owner is not loop or run.loop is not IDLE:
                return  # A holder was faster, and has closed it on its way.
            try:
                await run.services.abandon()
                run.abandoned = False
            finally:
                run.owner = IDLE


def _hand_over(run: Run, loop: object) -> None:
    run.abandoned = run.abandoned or run.owner is not IDLE
    run.loop, run.owner, run.holders, run.lock = IDLE, loop, [], anyio.Lock()


def _has_ended(owner: object) -> bool:
    """Whether an event loop will not run again. asyncio's say so; those of other libraries hold nothing of ours."""
    return isinstance(owner, asyncio.AbstractEventLoop) and owner.is_closed()
