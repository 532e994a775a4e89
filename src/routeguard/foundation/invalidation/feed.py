"""Polls for what was invalidated lately: in the database, or at a service over HTTP."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final, Protocol

from routeguard.core.errors import Unavailable
from routeguard.core.periodic import Periodic

if TYPE_CHECKING:
    from collections.abc import Callable

    from routeguard.core.clock import Clock

logger = logging.getLogger("routeguard.sessions")

OVERLAP: Final = 30.0
"""Seconds read again by each poll: commits become visible out of order, and the database's clock may step."""
_SEEN_CAPACITY: Final = 4096

Row = tuple[int, str, float]
"""Number, subject, and when (seconds since the epoch by the database's clock)."""


class Read(Protocol):
    """Asks for invalidations."""

    def __call__(self, *, window: float, after_id: int) -> Awaitable[list[Row]]:
        """Return what the last `window` seconds brought and all numbered after `after_id`. Raises Unavailable."""
        ...


class Feed:
    """Subjects (ids of sessions, users, keys) about which nothing remembered counts until it was asked for anew.

    A process asks every `poll` seconds; one that could not for `trust` seconds trusts nothing it remembers. Both
    clocks count, because the monotonic one stands still while a machine is suspended. A subject stays stale for `keep`
    seconds. `tick` counts what was learned: an answer whose question began at tick n knows of everything learned up to
    n, so no two clocks are ever compared. What is remembered is kept in `Remembered`, which applies all of this.
    """

    def __init__(self, read: Read, *, clock: Clock, poll: float, trust: float, keep: float) -> None:
        self.keep = keep
        self._read = read
        self._clock = clock
        self._trust = trust
        self._seen: dict[Row, float] = {}
        self._last_id = 0
        self._expiry: deque[tuple[float, str, int]] = deque()
        self._last_answer: tuple[float, float] | None = None
        self._polling = Periodic("routeguard-session-invalidations", self._attempt, pause=lambda: poll)
        self._told = False
        self._listeners: dict[str, set[Callable[[], None]]] = {}
        self.repeats = False
        """Whether what is being learned was learned before, and is said again."""
        self.tick = 0
        self.stale: dict[str, int] = {}
        self.floor = 0
        """What was learned before this tick counts no more, whatever it is about: some of the feed was missed since."""
        self.trusted_until = -math.inf
        """Monotonic seconds up to which `stale` is known to be complete enough."""
        self.trusted_wall = -math.inf
        """The same moment in seconds since the epoch; later by the wall clock alone means a suspended machine."""

    @property
    def heard(self) -> bool:
        """Whether it was ever answered: since then `stale` has all of the last `keep` seconds, up to that answer."""
        return self._last_answer is not None

    def silent_for(self) -> float:
        """Return the seconds since what the feed told stopped being trusted: below 0 while it is, inf if never."""
        return max(self._clock.monotonic() - self.trusted_until, self._clock.time() - self.trusted_wall)

    def trusts(self) -> bool:
        """Whether the feed was heard lately enough that what it has not revoked counts."""
        return self.silent_for() < 0

    def is_stale(self, *subjects: str) -> bool:
        """Whether one of `subjects` was invalidated within the last `keep` seconds."""
        stale = self.stale
        return bool(stale) and any(subject in stale for subject in subjects)

    async def start(self) -> None:
        """Load what is still relevant and begin polling. A source that is down is waited for, trusting nothing."""
        await self._attempt()
        self._polling.start()

    async def close(self) -> None:
        """Stop polling; from now on nothing is trusted."""
        self.trusted_until = -math.inf
        await self._polling.close()

    def learn(self, *subjects: str) -> None:
        """Distrust what is remembered of `subjects` from now on, and wake their watchers."""
        self.tick += 1
        until = self._clock.monotonic() + self.keep
        for subject in subjects:
            self.stale[subject] = self.tick
            self._expiry.append((until, subject, self.tick))
            self._wake(subject)

    def listen(self, subject: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever `subject` is invalidated. Returns what ends that."""
        self._listeners.setdefault(subject, set()).add(wake)

        def stop() -> None:
            listeners = self._listeners.get(subject, set())
            listeners.discard(wake)
            if not listeners:
                self._listeners.pop(subject, None)

        return stop

    async def poll(self) -> None:
        """Ask once. Raises Unavailable."""
        asked_at, wall = self._clock.monotonic(), self._clock.time()
        window, missed = self.keep + OVERLAP, False
        if self._last_answer is not None:
            # Both clocks, because the monotonic one stands still while a machine sleeps.
            gap = max(asked_at - self._last_answer[0], wall - self._last_answer[1], 0.0)
            window, missed = min(gap + OVERLAP, window), gap > self.keep
        rows = await self._read(window=window, after_id=self._last_id)
        fresh = [row for row in rows if row not in self._seen]
        if fresh:
            self.learn(*{subject for _, subject, _ in fresh})
            self._seen.update((row, asked_at) for row in fresh)
            self._last_id = max(self._last_id, *(number for number, _, _ in fresh))
        if missed:
            self._miss()
        # From the moment of asking, not of the answer: what was committed in between may be missing from it.
        self._last_answer = (asked_at, wall)
        self.trusted_until, self.trusted_wall = asked_at + self._trust, wall + self._trust
        self._forget(asked_at)

    def _miss(self) -> None:
        """Distrust all that is remembered, and wake all who watch: what was asked for does not reach back so far."""
        self.tick += 1
        self.floor = self.tick
        for subject in tuple(self._listeners):
            self._wake(subject)

    def _wake(self, subject: str) -> None:
        for wake in tuple(self._listeners.get(subject, ())):
            try:
                wake()
            except RuntimeError:
                # A waiter whose event loop was closed is skipped. The others must be woken.
                self._listeners[subject].discard(wake)

    def _forget(self, now: float) -> None:
        while self._expiry and self._expiry[0][0] < now:
            _, subject, tick = self._expiry.popleft()
            if self.stale.get(subject) == tick:
                del self.stale[subject]
        if len(self._seen) > _SEEN_CAPACITY:
            self._seen = {row: at for row, at in self._seen.items() if at > now - self.keep - 2 * OVERLAP}

    async def _attempt(self) -> None:
        try:
            await self.poll()
        except Unavailable as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - attack SES-18: a feed that has ended lets in who was revoked
            self._failed(error)
        else:
            self._told = False

    def _failed(self, error: Exception) -> None:
        """Say so once per outage."""
        if not self._told:
            self._told = True
            known = isinstance(error, Unavailable)
            logger.warning(
                "what was revoked cannot be read; what is remembered counts for another %g seconds at most: %s",
                self._trust,
                error if known else type(error).__name__,
                exc_info=None if known else error,
            )
