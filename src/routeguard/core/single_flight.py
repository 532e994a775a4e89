"""One question for all who ask the same at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from routeguard.core.errors import Unavailable
from routeguard.core.tasks import end

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Puts one question for all callers who ask it while its answer is awaited, and gives the answer to each of them.

    The question is put in a task of its own: a caller that is cancelled ends neither the question nor the wait of the
    others. What it raises goes to every caller, and each gets an Unavailable of its own, because a traceback grows
    with every caller that raises it. Nothing is kept: who asks after the answer came puts the question anew.

    Needs asyncio. Flights of an event loop that has ended are forgotten, so there is nothing to start.
    """

    __slots__ = ("_flights", "_loop", "_name")

    def __init__(self, name: str) -> None:
        """`name` is what the tasks are called."""
        self._name = name
        self._flights: dict[K, asyncio.Task[T]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, key: K, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to the question under way for `key`, else that of `ask`. Raises what it raises."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._flights = loop, {}
        flight = self._flights.get(key)
        # One that is done and not yet forgotten has the answer to a question of before.
        if flight is None or flight.done():
            flight = self._flights[key] = loop.create_task(_result(ask), name=self._name)
            flight.add_done_callback(partial(self._ended, key))
        # Not awaited itself: to cancel the caller would cancel it.
        await asyncio.wait({flight})
        if flight.cancelled():
            # By `close`. The caller is not cancelled, and does not know the answer.
            raise Unavailable(f"{self._name} (closing)")
        try:
            return flight.result()
        except Unavailable as error:
            raise copy(error) from error

    async def close(self, *, patience: float = 0.0) -> None:
        """Wait up to `patience` seconds for each question under way, then cancel it: its callers get Unavailable."""
        for flight in tuple(self._flights.values()):
            await end(flight, patience=patience)

    def _ended(self, key: K, flight: asyncio.Task[Any]) -> None:
        # Perhaps the next one for the same key is under way.
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # Seen, also when every caller has been cancelled.


async def _result(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()
