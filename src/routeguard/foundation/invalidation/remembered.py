"""Answers of a store that are remembered for a while, and the one rule by which they count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NewType, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from routeguard.core.clock import SteadyClock
    from routeguard.foundation.invalidation.feed import Feed

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

Tick = NewType("Tick", int)
"""What the feed had told when a question was asked: the answer knows of that, and perhaps of nothing later."""


class Remembered(Generic[K, V]):
    """Answers by what was asked about, each until it expires or one of its subjects is invalidated.

    An answer counts while all of these hold, and whether they do is decided here and nowhere else (attack SES-18):

    - it is younger than `life`, and what it speaks of has not ended (`ends_at`);
    - the feed was heard lately by both clocks, because the monotonic one stands still while a machine is suspended;
    - the feed has missed nothing since the question was asked (`Feed.floor`);
    - none of its subjects was invalidated since then.

    At most `capacity` are kept; the one put longest ago makes room.
    """

    __slots__ = ("_capacity", "_clock", "_entries", "_feed", "_life", "_monotonic", "_wall")

    def __init__(self, feed: Feed, clock: SteadyClock, *, capacity: int, life: float) -> None:
        """`life` is in seconds."""
        self._feed = feed
        self._clock = clock
        self._capacity = capacity
        self._life = life
        self._monotonic = clock.monotonic
        self._wall = clock.wall
        # A plain tuple of value, subjects, until, ends_at and tick: unpacking it is the fastest way to read it.
        self._entries: dict[K, tuple[V, tuple[str, ...], float, float, int]] = {}

    def get(self, key: K) -> V | None:
        """Return the answer about `key` if it counts, else None: then the store has to be asked."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, subjects, until, ends_at, tick = entry
        feed, now, wall = self._feed, self._monotonic(), self._wall()
        if (
            now >= until
            or now >= feed.trusted_until
            or wall >= ends_at
            or wall >= feed.trusted_wall
            or tick < feed.floor
        ):
            return None
        if stale := feed.stale:
            for subject in subjects:
                if stale.get(subject, 0) > tick:
                    return None
        return value

    def began(self) -> Tick:
        """Return the moment to hand to `put`. Take it before asking: what is revoked meanwhile voids the answer."""
        return Tick(self._feed.tick)

    def put(
        self, key: K, value: V, *, subjects: tuple[str, ...], ends_at: float, asked_at: Tick, life: float | None = None
    ) -> None:
        """Remember an answer.

        `subjects` are the ids whose invalidation voids it; `ends_at` (seconds since the epoch) is when what it speaks
        of ends by itself; `asked_at` is what `began` returned before the question. `life` (seconds) is for answers
        that count for less than the usual time.
        """
        entries = self._entries
        entries.pop(key, None)
        if len(entries) >= self._capacity:
            del entries[next(iter(entries))]
        left = min(self._life if life is None else life, ends_at - self._clock.time())
        entries[key] = (value, subjects, self._monotonic() + left, ends_at, asked_at)

    def amend(self, key: K, value: V) -> None:
        """Put `value` in place of what is remembered about `key`, if anything is. Its end stays as it was."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries[key] = (value, *entry[1:])

    def forget(self, key: K) -> None:
        """Forget what is remembered about `key`."""
        self._entries.pop(key, None)

    def __contains__(self, key: K) -> bool:
        """Whether there is an answer about `key`, even if it counts no more."""
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)
