"""What the service said of credentials: remembered while nothing contradicts it, and asked once for all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from routeguard.core.errors import Unavailable
from routeguard.core.tasks import end
from routeguard.invalidation.remembered import Remembered

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.invalidation.feed import Feed
    from routeguard.invalidation.remembered import Tick

T = TypeVar("T")

_CAPACITY: Final = 8192
"""Good answers remembered; the one asked for longest ago makes room. About 2 KB each."""
_REFUSALS: Final = 2048
"""Refusals remembered, apart: anybody can make up credentials, and push out only other such ones (attack RL-16)."""
_REFUSED_FOR: Final = 2.0
"""Seconds a refusal is remembered: long enough for a client that does not stop, short enough for one made right."""


@dataclass(frozen=True, slots=True)
class Finding(Generic[T]):
    """An answer. It is void once one of `subjects` is invalidated, and from `ends_at` on (wall seconds).

    `refused` says that it is a no. One that is not `shared` was given for one use: nobody else may have it.
    """

    value: T
    subjects: tuple[str, ...] = ()
    ends_at: float = float("inf")
    refused: bool = False
    shared: bool = True


@dataclass(frozen=True, slots=True)
class _Flight(Generic[T]):
    task: asyncio.Task[Finding[T]]
    asked_at: Tick


class Answers(Generic[T]):
    """Answers by the digest of what was asked about, so that memory holds no credential."""

    def __init__(self, *, clock: SteadyClock, feed: Feed, life: float) -> None:
        """`life` is how long a yes is remembered, in seconds."""
        self._known: Remembered[bytes, Finding[T]] = Remembered(feed, clock, capacity=_CAPACITY, life=life)
        self._refused: Remembered[bytes, Finding[T]] = Remembered(
            feed, clock, capacity=_REFUSALS, life=_REFUSED_FOR
        )  # fmt: skip
        self._flights: dict[bytes, _Flight[T]] = {}

    async def get(self, key: bytes, ask: Callable[[], Awaitable[Finding[T]]]) -> T:
        """Return what is known about `key`, else what `ask` finds out. Raises what it raises.

        Of many who want the same at once, one asks, so that a service that comes back is not run over by them.
        """
        known = self._known.get(key) or self._refused.get(key)
        if known is not None:
            return known.value
        flight = self._flights.get(key)
        # One that began before something was revoked may bring an answer of before.
        leads = flight is None or flight.asked_at != self._known.began()
        if flight is None or leads:
            flight = self._begin(key, ask)
        finding = await _result(flight)
        if not leads and not finding.shared:
            finding = await ask()
        return finding.value

    def was_good(self, key: bytes) -> bool:
        """Whether the last answer about `key` was a yes, even if it counts no more."""
        return key in self._known

    async def close(self) -> None:
        """End what is under way."""
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            await end(flight.task)

    def _begin(self, key: bytes, ask: Callable[[], Awaitable[Finding[T]]]) -> _Flight[T]:
        # In a task of its own: whoever asked first may hang up, and the others wait on.
        flight = _Flight(asyncio.ensure_future(_run(ask)), self._known.began())
        self._flights[key] = flight

        def landed(task: asyncio.Task[Finding[T]]) -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]
            if not task.cancelled() and task.exception() is None:
                self._remember(key, task.result(), flight.asked_at)

        flight.task.add_done_callback(landed)
        return flight

    def _remember(self, key: bytes, finding: Finding[T], asked_at: Tick) -> None:
        if not finding.shared:
            return
        known, other = (self._refused, self._known) if finding.refused else (self._known, self._refused)
        other.forget(key)
        known.put(key, finding, subjects=finding.subjects, ends_at=finding.ends_at, asked_at=asked_at)


async def _run(ask: Callable[[], Awaitable[Finding[Any]]]) -> Finding[Any]:
    return await ask()


async def _result(flight: _Flight[T]) -> Finding[T]:
    """Wait for a flight without ending it. Each who waits gets an error of his own."""
    try:
        return await asyncio.shield(flight.task)
    except Unavailable as error:
        raise type(error)(error.what, retry_after=error.retry_after) from error
