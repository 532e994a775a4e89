"""Ephemeral storage in the memory of one process: bounded, and nothing in it outlives its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import floor
from time import monotonic
from typing import Final, Generic, TypeVar

from routeguard.core.errors import Unavailable
from routeguard.foundation.ephemeral.protocol import BUCKETS, Attempt, Hit, Quota

V = TypeVar("V")

_SWEPT_PER_INSERT: Final = 4
_ALL: Final = 1 << 62
_SUBJECTS: Final = 100
_SUBJECTS_BY_BYTES: Final = 16
"""Who hold all they may fill the store together. Of bytes more each: four answers of the greatest size kept."""
_SLACK: Final = 1e-3
"""The share of one interval by which sums of floats may be off: 10 means 10."""


class _Expiring(Generic[V]):
    """A dictionary whose entries say when they die, swept a few at a time so that no request pays for all."""

    __slots__ = ("_ends", "_heap", "items")

    def __init__(self, ends: Callable[[V], float]) -> None:
        self.items: dict[str, V] = {}
        self._heap: list[tuple[float, str]] = []
        self._ends = ends

    def insert(self, key: str, value: V) -> None:
        """Add a key that is not there. Its end may move later; the heap learns of that when it comes up."""
        self.items[key] = value
        heappush(self._heap, (self._ends(value), key))

    def sweep(self, now: float, count: int = _SWEPT_PER_INSERT) -> list[tuple[str, V]]:
        """Look at up to `count` entries whose time has come: drop and return the dead, put back the moved."""
        heap, items, dead = self._heap, self.items, list[tuple[str, V]]()
        while heap and count and heap[0][0] <= now:
            count -= 1
            _, key = heappop(heap)
            value = items.get(key)
            if value is None:
                continue
            ends = self._ends(value)
            if ends <= now:
                dead.append((key, items.pop(key)))
            else:
                heappush(heap, (ends, key))
        return dead

    def evict(self) -> None:
        """Drop the entry that would have died first, as far as the heap knows."""
        while self._heap:
            _, key = heappop(self._heap)
            if self.items.pop(key, None) is not None:
                return

    def tidy(self) -> None:
        """Forget heap entries whose keys were deleted, once they outnumber the living."""
        if len(self._heap) > 2 * len(self.items) + 64:
            self._heap = sorted((self._ends(value), key) for key, value in self.items.items())


class _Window:
    """The counts of one sliding window, newest bucket first; `index` is that bucket's number."""

    __slots__ = ("counts", "ends", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self.counts = [0] * (BUCKETS + 1)
        self.ends = 0.0


class _Shares:
    """How many values, and bytes of them, each subject holds: no subject may fill what all depend on (attack RL-16)."""

    __slots__ = ("_held", "_keys", "_size")

    def __init__(self, keys: int, size: int) -> None:
        self._keys = max(keys, 1)
        self._size = max(size, 1)
        self._held: dict[str, tuple[int, int]] = {}

    def exceeded(self, key: str, keys: int, size: int) -> bool:
        """Whether so much more is over the share of the subject of `key`. Keys of no subject have no share."""
        subject = _subject(key)
        held, bytes_held = self._held.get(subject, (0, 0))
        return bool(subject) and (held + keys > self._keys or bytes_held + size > self._size)

    def change(self, key: str, keys: int, size: int) -> None:
        """Count what was added or taken away."""
        subject = _subject(key)
        if not subject:
            return
        held, bytes_held = self._held.get(subject, (0, 0))
        if held + keys:
            self._held[subject] = (held + keys, bytes_held + size)
        else:
            self._held.pop(subject, None)


class MemoryEphemeral:
    """`memory://`: for one process, tests and `routeguard dev`. Counts by a monotonic clock (attack RL-08).

    At most `capacity` counters: beyond it the one that would be forgotten first makes room. At most `capacity`
    values and `capacity_bytes` of them: beyond that writing raises Unavailable, because a once-only mark that made
    room for others could be used twice. One subject (the hash tag of a key) has at most a hundredth of the values and
    a sixteenth of the bytes; beyond that writing raises Unavailable to that subject alone.
    """

    def __init__(
        self, *, capacity: int = 200_000, capacity_bytes: int = 64 * 1024 * 1024, clock: Callable[[], float] = monotonic
    ) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._bytes = 0
        self._shares = _Shares(capacity // _SUBJECTS, capacity_bytes // _SUBJECTS_BY_BYTES)
        self._clock = clock
        self._values = _Expiring[tuple[bytes, float]](lambda entry: entry[1])
        self._tats = _Expiring[float](float)
        self._windows = _Expiring[_Window](lambda window: window.ends)

    def __len__(self) -> int:
        """Return how many keys are held, dead ones not yet swept included."""
        return len(self._values.items) + len(self._tats.items) + len(self._windows.items)

    async def start(self) -> None:
        """Nothing to get ready."""

    async def close(self) -> None:
        """Nothing to give up."""

    async def get(self, key: str) -> bytes | None:
        """Return the value of a live key, or None."""
        return self._get(key, self._clock())

    async def get_all(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Return the values of several keys, in order."""
        now = self._clock()
        return [self._get(key, now) for key in keys]

    async def put(self, key: str, value: bytes, *, ttl: float, expected: bytes | None = None) -> bool:
        """Set a key; with `expected`, only while it holds that. Raises Unavailable when memory is full."""
        now = self._clock()
        if expected is not None and self._get(key, now) != expected:
            return False
        self._set(key, value, now, ttl)
        return True

    async def delete(self, key: str, *, expected: bytes | None = None) -> bool:
        """Remove a key; with `expected`, only while it holds that."""
        found = self._get(key, self._clock())
        if found is None or (expected is not None and found != expected):
            return False
        self._drop(key)
        return True

    async def claim(self, key: str, value: bytes, *, ttl: float) -> bytes | None:
        """Set a key unless it is there; None to the one who set it. Raises Unavailable when memory is full."""
        now = self._clock()
        found = self._get(key, now)
        if found is None:
            self._set(key, value, now, ttl)
        return found

    async def hit(self, attempts: Sequence[Attempt]) -> Sequence[Hit]:
        """Spend units of several quotas at once, or of none."""
        return self.hit_now(attempts)

    def hit_now(self, attempts: Sequence[Attempt]) -> Sequence[Hit]:
        """Do what `hit` does, without the await: nothing here waits for anything."""
        if len(attempts) == 1:
            return (self.take(*attempts[0]),)
        now = self._clock()
        looked = [self._try(attempt, now, commit=False) for attempt in attempts]
        if all(hit.allowed for hit in looked):
            return [self._try(attempt, now, commit=True) for attempt in attempts]
        return looked

    def take(self, key: str, quota: Quota, cost: int = 1) -> Hit:
        """Spend units of one quota."""
        if quota.algorithm == "gcra":
            return self._gcra(key, quota, cost, self._clock(), commit=True)
        return self._sliding(key, quota, cost, self._clock(), commit=True)

    # -- values -----------------------------------------------------------------------------------------------------

    def _get(self, key: str, now: float) -> bytes | None:
        found = self._values.items.get(key)
        if found is None:
            return None
        if found[1] <= now:
            self._drop(key)
            return None
        return found[0]

    def _drop(self, key: str) -> None:
        self._gone(key, self._values.items.pop(key)[0])
        self._values.tidy()

    def _gone(self, key: str, value: bytes) -> None:
        self._bytes -= len(value)
        self._shares.change(key, -1, -len(value))

    def _set(self, key: str, value: bytes, now: float, ttl: float) -> None:
        values = self._values
        present = self._get(key, now)
        added = 1 if present is None else 0
        grown = len(value) - (len(present) if present is not None else 0)
        # A little each time, all that is dead when room is short.
        short = self._is_full(added, grown) or self._shares.exceeded(key, added, grown)
        for dead, (was, _) in values.sweep(now, _ALL if short else _SWEPT_PER_INSERT):
            self._gone(dead, was)
        if self._is_full(added, grown):
            raise Unavailable("memory for ephemeral values is full; use Valkey (ROUTEGUARD_EPHEMERAL_URL)")
        # What makes nothing longer is always let in: it may be the note that something was carried out.
        if (added or grown > 0) and self._shares.exceeded(key, added, grown):
            raise Unavailable("this caller's share of the memory for ephemeral values is used up")
        self._bytes += grown
        self._shares.change(key, added, grown)
        if present is None:
            values.insert(key, (value, now + ttl))
        else:
            values.items[key] = (value, now + ttl)

    def _is_full(self, added: int, grown: int) -> bool:
        over = grown > 0 and self._bytes + grown > self._capacity_bytes
        return over or (added > 0 and len(self._values.items) >= self._capacity)

    # -- counters ---------------------------------------------------------------------------------------------------

    def _try(self, attempt: Attempt, now: float, *, commit: bool) -> Hit:
        key, quota, cost = attempt
        if quota.algorithm == "gcra":
            return self._gcra(key, quota, cost, now, commit=commit)
        return self._sliding(key, quota, cost, now, commit=commit)

    def _gcra(self, key: str, quota: Quota, cost: int, now: float, *, commit: bool) -> Hit:
        """One time per key: when the bucket will be full again (the theoretical arrival time)."""
        interval = quota.interval
        items = self._tats.items
        full_at = items.get(key)
        used = full_at - now if full_at is not None and full_at > now else 0.0
        after = max(used + cost * interval, 0.0)
        slack = interval * _SLACK
        spare = quota.room - after + slack
        if spare < 0.0:
            left = int((quota.room - used + slack) / interval)
            return Hit(allowed=False, remaining=left, reset=after - quota.room)
        if commit:
            if full_at is not None:
                items[key] = now + after
            else:
                self._make_room(self._tats, now)
                self._tats.insert(key, now + after)
        remaining = int(spare / interval)
        return Hit(allowed=True, remaining=remaining, reset=(remaining + 1) * interval - spare)

    def _sliding(self, key: str, quota: Quota, cost: int, now: float, *, commit: bool) -> Hit:
        """Sum the current bucket and the ten before it: together they cover every span of one period."""
        width = quota.period / BUCKETS
        current = floor(now / width)
        window = self._windows.items.get(key)
        if window is None:
            window = _Window(current)
            if commit:
                window.ends = now + quota.period + width
                self._make_room(self._windows, now)
                self._windows.insert(key, window)
        elif (passed := current - window.index) > 0:
            window.index = current
            window.counts = ([0] * min(passed, BUCKETS + 1) + window.counts)[: BUCKETS + 1]
        counts = window.counts
        free = quota.limit - sum(counts)
        if cost > free:
            reset = _frees(counts, cost - free, current, width) - now
            return Hit(allowed=False, remaining=max(free, 0), reset=reset)
        if commit:
            counts[0] += cost
            window.ends = now + quota.period + width
        return Hit(allowed=True, remaining=free - cost, reset=_frees(counts, 1, current, width) - now)

    def _make_room(self, table: _Expiring[V], now: float) -> None:
        table.sweep(now)
        if len(table.items) >= self._capacity:
            table.evict()


def _frees(counts: Sequence[int], units: int, current: int, width: float) -> float:
    """Return when `units` will have left the window: its oldest buckets go first."""
    for age in range(BUCKETS, -1, -1):
        units -= counts[age]
        if units <= 0:
            return (current + BUCKETS + 1 - age) * width
    return (current + BUCKETS + 1) * width


def _subject(key: str) -> str:
    """Return the hash tag of a key, or nothing."""
    start = key.find("{")
    end = key.find("}", start + 1)
    return key[start + 1 : end] if 0 <= start < end else ""
