"""Which sessions and users signed cookies no longer speak for, in this process and soon in all others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from typing import TYPE_CHECKING, Final

from routeguard.core.errors import Unavailable
from routeguard.sessions import store

if TYPE_CHECKING:
    from collections.abc import Callable

    from routeguard.core.clock import Clock
    from routeguard.db.database import Database, Transaction
    from routeguard.sessions.models import SessionSettings

logger = logging.getLogger("routeguard.sessions")

_SEEN_CAPACITY: Final = 4096
_OVERLAP: Final = 30.0
"""Seconds read again by each poll: commits become visible out of order, and the database's clock may step."""
_PRUNE_EVERY: Final = 300.0
_RETENTION: Final = 3600.0
_EXPIRED_FOR: Final = 86400.0
"""Seconds an expired session nobody presents is kept, so that a clock an hour ahead deletes nothing alive."""


class Invalidations:
    """A feed of subjects (session and user ids) whose cookies must be checked against the store.

    Each change writes a row in its own transaction. This process learns of it at the commit, the others by asking
    once a second; one that could not ask for `trust` seconds trusts no cookie. `tick` counts what was learned: a
    store read that began at tick n knows of everything learned up to n, so no two clocks are ever compared.
    """

    def __init__(self, database: Database, *, clock: Clock, settings: SessionSettings) -> None:
        self._database = database
        self._clock = clock
        self._poll_every = settings.poll.total_seconds()
        self._trust = settings.trust.total_seconds()
        # A cookie issued just before, on a machine whose clock is ahead, lives this long (attack SES-27).
        self._keep = (settings.envelope_life + settings.skew).total_seconds()
        self._seen: dict[tuple[int, str, float], float] = {}
        self._last_id = 0
        self._expiry: deque[tuple[float, str, int]] = deque()
        self._last_answer: tuple[float, float] | None = None
        self._pruned_at = -math.inf
        self._task: asyncio.Task[None] | None = None
        self._listeners: dict[str, set[Callable[[], None]]] = {}
        self.tick = 0
        self.stale: dict[str, int] = {}
        self.trusted_until = -math.inf
        """Monotonic seconds up to which `stale` is known to be complete enough."""

    async def start(self) -> None:
        """Load what is still relevant and begin polling. A database that is down is waited for, trusting nothing."""
        await self._attempt()
        self._task = asyncio.create_task(self._run(), name="routeguard-session-invalidations")

    async def close(self) -> None:
        """Stop polling; from now on nothing is trusted."""
        self.trusted_until = -math.inf
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def invalidate(self, tx: Transaction, *subjects: str) -> None:
        """Make every process forget what cookies say about `subjects`, if and when `tx` commits."""
        await store.insert_invalidations(tx, subjects)
        tx.after_commit(lambda: self.learn(*subjects))

    def learn(self, *subjects: str) -> None:
        """Distrust cookies about `subjects` from now on, and wake whoever watches them."""
        self.tick += 1
        until = self._clock.monotonic() + self._keep
        for subject in subjects:
            self.stale[subject] = self.tick
            self._expiry.append((until, subject, self.tick))
            for wake in tuple(self._listeners.get(subject, ())):
                wake()

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
        """Ask the database once. Raises Unavailable."""
        asked_at, wall = self._clock.monotonic(), self._clock.time()
        window = self._keep + _OVERLAP
        if self._last_answer is not None:
            # Both clocks, because the monotonic one stands still while a machine sleeps.
            gap = max(asked_at - self._last_answer[0], wall - self._last_answer[1], 0.0)
            window = min(gap + _OVERLAP, window)
        rows = await store.read_invalidations(self._database, window=window, after_id=self._last_id)
        fresh = [row for row in rows if row not in self._seen]
        if fresh:
            self.learn(*{subject for _, subject, _ in fresh})
            self._seen.update((row, asked_at) for row in fresh)
            self._last_id = max(self._last_id, *(number for number, _, _ in fresh))
        # From the moment of asking, not of the answer: what was committed in between may be missing from it.
        self._last_answer = (asked_at, wall)
        self.trusted_until = asked_at + self._trust
        self._forget(asked_at)
        if asked_at - self._pruned_at > _PRUNE_EVERY:
            self._pruned_at = asked_at
            await store.prune(
                self._database, older_than=max(_RETENTION, 2 * self._keep), expired_before=wall - _EXPIRED_FOR
            )

    def _forget(self, now: float) -> None:
        while self._expiry and self._expiry[0][0] < now:
            _, subject, tick = self._expiry.popleft()
            if self.stale.get(subject) == tick:
                del self.stale[subject]
        if len(self._seen) > _SEEN_CAPACITY:
            self._seen = {row: at for row, at in self._seen.items() if at > now - self._keep - 2 * _OVERLAP}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_every)
            await self._attempt()

    async def _attempt(self) -> None:
        was_trusted = self._clock.monotonic() < self.trusted_until
        try:
            await self.poll()
        except Unavailable as error:
            if was_trusted:
                logger.warning("session invalidations cannot be read, cookies will be checked one by one: %s", error)
