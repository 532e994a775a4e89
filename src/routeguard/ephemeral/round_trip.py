"""What the checks of one request want from the store, gathered and fetched in one command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from routeguard.core.errors import Unavailable
from routeguard.ephemeral.protocol import Attempt, Ephemeral, Hit, Read

if TYPE_CHECKING:
    from collections.abc import Generator

    from routeguard.core.exchange import Exchange

T = TypeVar("T")


class Pending(Generic[T]):
    """An answer to come: awaiting any of a trip's sends the trip, once."""

    __slots__ = ("_trip", "error", "value")

    def __init__(self, trip: RoundTrip) -> None:
        self._trip = trip
        self.error: Unavailable | None = None
        self.value: T

    def __await__(self) -> Generator[None, None, T]:
        """Wait for the trip. Raises Unavailable."""
        if self.error is None and not hasattr(self, "value"):
            yield from self._trip.send().__await__()
        if self.error is not None:
            raise self.error
        return self.value


class RoundTrip:
    """One call to the store, put together by several parties, then sent by the first who needs an answer.

    ``RoundTrip.of(exchange, store)`` is the request's own. After it was sent, a further wish starts the next one.
    A failed trip fails for all who asked.
    """

    __slots__ = ("_attempts", "_hits", "_reads", "_store", "_values")

    def __init__(self, store: Ephemeral) -> None:
        self._store = store
        self._clear()

    @classmethod
    def of(cls, exchange: Exchange, store: Ephemeral) -> RoundTrip:
        """Return the trip of a request."""
        trip = exchange.facts.get(RoundTrip)
        if not isinstance(trip, RoundTrip):
            trip = exchange.facts[RoundTrip] = cls(store)
        return trip

    def get(self, key: str, *, touch: float = 0.0, required: bool = False) -> Pending[bytes | None]:
        """Ask for a key (see `Read`)."""
        pending = Pending[bytes | None](self)
        self._reads.append(Read(key, touch, required))
        self._values.append(pending)
        return pending

    def hit(self, attempts: Sequence[Attempt]) -> Pending[Sequence[Hit | None]]:
        """Ask to spend. All attempts of a trip are counted, or none of them."""
        pending = Pending[Sequence[Hit | None]](self)
        self._hits.append((pending, len(self._attempts), len(attempts)))
        self._attempts.extend(attempts)
        return pending

    async def send(self) -> None:
        """Fetch everything asked for so far. A store that is away is told to each who asked, when he looks."""
        reads, attempts, values, hits = self._reads, self._attempts, self._values, self._hits
        self._clear()
        try:
            answers = await self._store.run(reads, attempts)
        except Unavailable as error:
            for pending in values:
                pending.error = error
            for spent, _, _ in hits:
                spent.error = error
            return
        for pending, value in zip(values, answers.values, strict=True):
            pending.value = value
        for spent, start, count in hits:
            spent.value = answers.hits[start : start + count]

    def _clear(self) -> None:
        self._reads: list[Read] = []
        self._attempts: list[Attempt] = []
        self._values: list[Pending[bytes | None]] = []
        self._hits: list[tuple[Pending[Sequence[Hit | None]], int, int]] = []
