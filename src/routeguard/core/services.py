"""Services found by type: registered in one place, closed in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from routeguard.core.errors import ConfigError, ServiceMissing

T = TypeVar("T")
Step = Callable[[], Awaitable[None]]


class Services:
    """A typed look-up by class or protocol, filled by the composition root before the first request."""

    __slots__ = ("_instances", "_lives", "_running")

    def __init__(self) -> None:
        self._instances: dict[type[Any], Any] = {}
        self._lives: list[tuple[Step | None, Step | None]] = []
        self._running: list[Step] = []

    def add(self, kind: type[T], instance: T, *, start: Step | None = None, close: Step | None = None) -> T:
        """Register `instance` under `kind`, with what starts and ends it. Raises ConfigError when it is taken."""
        if kind in self._instances:
            raise ConfigError(f"two services are registered as {kind.__name__}")
        self._instances[kind] = instance
        if start is not None or close is not None:
            self._lives.append((start, close))
        return instance

    def get(self, kind: type[T]) -> T:
        """Return the service registered as `kind`. Raises ConfigError, for a missing one is a wiring fault."""
        try:
            return cast("T", self._instances[kind])
        except KeyError:
            raise ServiceMissing(f"no {kind.__name__} is configured, and a policy needs one") from None

    def find(self, kind: type[T]) -> T | None:
        """Return the service registered as `kind`, or None."""
        return cast("T | None", self._instances.get(kind))

    async def start(self) -> None:
        """Start all services in the order they were registered.

        When one fails, those started before it are closed again, and so is it: the next try begins from nothing.
        """
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
                await asyncio.shield(asyncio.ensure_future(self.close()))

    async def close(self) -> None:
        """Close all services, last started first; a fault of one keeps no other open, and is raised at the end."""
        try:
            while self._running:
                await self._running.pop()()
        finally:
            if self._running:
                await self.close()
