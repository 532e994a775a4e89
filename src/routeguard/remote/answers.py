"""What the service said of credentials: remembered while nothing contradicts it, and asked once for all who wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from routeguard.core.single_flight import SingleFlight
from routeguard.foundation.invalidation.remembered import Remembered

if TYPE_CHECKING:
    from routeguard.core.clock import SteadyClock
    from routeguard.foundation.invalidation.feed import Feed
    from routeguard.foundation.invalidation.remembered import Tick

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

    `refused` says that it is a no. One that is not `shared` was given for one use: no other may have it.
    """

    value: T
    subjects: tuple[str, ...] = ()
    ends_at: float = float("inf")
    refused: bool = False
    shared: bool = True


class Answers(Generic[T]):
    """Answers by the digest of what was asked about, so that memory holds no credential."""

    def __init__(self, *, clock: SteadyClock, feed: Feed, life: float) -> None:
        """`life` is how long a yes is remembered, in seconds."""
        self._known: Remembered[bytes, Finding[T]] = Remembered(feed, clock, capacity=_CAPACITY, life=life)
        self._refused: Remembered[bytes, Finding[T]] = Remembered(feed, clock, capacity=_REFUSALS, life=_REFUSED_FOR)
        self._flights: SingleFlight[tuple[bytes, Tick], Finding[T]] = SingleFlight("routeguard-answers")

    async def get(self, key: bytes, ask: Callable[[], Awaitable[Finding[T]]]) -> T:
        """Return what is known about `key`, else what `ask` finds out. Raises what it raises.

        Of many who want the same at once, one asks, so that a service that comes back is not run over by them.
        """
        known = self._known.get(key) or self._refused.get(key)
        if known is not None:
            return known.value
        asked_at, own = self._known.began(), False

        async def find() -> Finding[T]:
            nonlocal own
            own = True
            finding = await ask()
            self._remember(key, finding, asked_at)
            return finding

        # By the moment as well: what was asked before something was revoked may bring an answer of before.
        finding = await self._flights.run((key, asked_at), find)
        if not (own or finding.shared):
            finding = await ask()
        return finding.value

    def was_good(self, key: bytes) -> bool:
        """Whether the last answer about `key` was a yes, even if it counts no more."""
        return key in self._known

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    def _remember(self, key: bytes, finding: Finding[T], asked_at: Tick) -> None:
        if not finding.shared:
            return
        known, other = (self._refused, self._known) if finding.refused else (self._known, self._refused)
        other.forget(key)
        known.put(key, finding, subjects=finding.subjects, ends_at=finding.ends_at, asked_at=asked_at)
