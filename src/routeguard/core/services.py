"""Services found by type: registered in one place, closed in reverse order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from routeguard.core.errors import ConfigError, ServiceMissing, Unavailable

if TYPE_CHECKING:
    from typing_extensions import TypeForm

logger = logging.getLogger("routeguard")

T = TypeVar("T")
Step = Callable[[], Awaitable[None]]


class Services:
    """A typed look-up by class or protocol, filled by the composition root before the first request.

    May be started and closed any number of times, each time in another event loop: whatever belongs to a loop (tasks,
    locks, connections) is made by `start` and ended by `close`.
    """

    __slots__ = ("_asyncio_only", "_instances", "_lives", "_running")

    def __init__(self) -> None:
        self._instances: dict[TypeForm[Any], Any] = {}
        self._lives: list[tuple[Step | None, Step | None]] = []
        self._running: list[Step] = []
        self._asyncio_only: list[str] = []

    def add(self, kind: TypeForm[T], instance: T, *, start: Step | None = None, close: Step | None = None) -> T:
        """Register `instance` under `kind`, with what starts and ends it. Raises ConfigError when it is taken."""
        if kind in self._instances:
            raise ConfigError(f"two services are registered as {_name(kind)}")
        self._instances[kind] = instance
        if start is not None or close is not None:
            self._lives.append((start, close))
        return instance

    def get(self, kind: TypeForm[T]) -> T:
        """Return the service registered as `kind`. Raises ConfigError, for a missing one is a wiring fault."""
        try:
            return cast("T", self._instances[kind])
        except KeyError:
            raise ServiceMissing(f"no {_name(kind)} is configured, and a policy needs one") from None

    def find(self, kind: TypeForm[T]) -> T | None:
        """Return the service registered as `kind`, or None."""
        return cast("T | None", self._instances.get(kind))

    def require_asyncio(self, what: str) -> None:
        """Say that `what` ("the identity service") runs on asyncio only, so that a start elsewhere is a finding."""
        self._asyncio_only.append(what)

    async def start(self) -> None:
        """Start all services in the order they were registered.

        When one fails, those started before it are closed again, and so is it: the next try begins from nothing.
        Raises ConfigError on another event loop than asyncio's, when there are services that need that one.
        """
        loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; None in an event loop of another library
        if loop is None and self._asyncio_only:
            raise ConfigError(
                f"this event loop is not asyncio's (trio?), and {' and '.join(self._asyncio_only)} cannot run on it:"
                " run the application on asyncio, or with identify= and ephemeral_url=memory://"
            )
        started = False
        try:
            for start, close in self._lives:
                if close is not None:
                    self._running.append(close)
                if start is not None:
                    await start()
            started = True
        finally:
            if not started:
                # In a task of its own: a start-up that was cancelled has to be undone all the same.
                await (self.close() if loop is None else asyncio.shield(asyncio.ensure_future(self.close())))

    async def close(self) -> None:
        """Close all services, last started first; a fault of one keeps no other open, and is raised at the end."""
        try:
            while self._running:
                await self._running.pop()()
        finally:
            if self._running:
                await self.close()

    async def abandon(self) -> None:
        """Close what an event loop left open that has ended without `close`. What cannot be closed is let go."""
        while self._running:
            close = self._running.pop()
            try:
                await close()
            except (RuntimeError, OSError, Unavailable) as error:
                logger.debug("a service of an event loop that has ended could not be closed: %r", error)


def _name(kind: TypeForm[Any]) -> str:
    """Return the name of a class or protocol, for messages."""
    return str(getattr(kind, "__name__", kind))
