"""Memory: bounded, whatever it is fed, and blind to the wall clock."""

from __future__ import annotations

import pytest

from routeguard.core.errors import Unavailable
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Attempt, Quota

pytestmark = pytest.mark.anyio

TEN = Quota(limit=10, period=60, burst=10)
SLIDING = Quota(limit=10, period=60, burst=10, algorithm="sliding")


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.mark.parametrize("quota", [TEN, SLIDING], ids=["gcra", "sliding"])
async def test_counters_are_bounded(quota: Quota) -> None:
    """RL-16: any number of distinct identifiers."""
    store = MemoryEphemeral(capacity=1000)
    for n in range(20_000):
        assert (await store.hit([Attempt(f"{{{n}}}", quota)]))[0].allowed
    assert len(store) <= 1000
    assert len(store._tats._heap) + len(store._windows._heap) <= 1001


@pytest.mark.parametrize("quota", [TEN, SLIDING], ids=["gcra", "sliding"])
async def test_old_counters_go_by_themselves(quota: Quota) -> None:
    """RL-16."""
    clock = Hand()
    store = MemoryEphemeral(clock=clock)
    for n in range(10_000):
        clock.at += 1
        await store.hit([Attempt(str(n), quota)])
    assert len(store) < 100


async def test_values_are_bounded_and_marks_never_make_room() -> None:
    clock = Hand()
    store = MemoryEphemeral(capacity=100, clock=clock)
    for n in range(100):
        assert await store.claim(str(n), b"", ttl=10) is None
    with pytest.raises(Unavailable):
        await store.claim("one more", b"", ttl=10)
    assert await store.claim("0", b"", ttl=10) == b"", "still used up"
    clock.at += 11
    assert await store.claim("one more", b"", ttl=10) is None
    assert len(store) == 1


async def test_bytes_are_bounded() -> None:
    clock = Hand()
    store = MemoryEphemeral(capacity_bytes=10_000, clock=clock)
    for n in range(10):
        await store.put(str(n), b"x" * 1000, ttl=10)
    with pytest.raises(Unavailable):
        await store.put("more", b"x", ttl=10)
    await store.put("0", b"", ttl=10)
    assert await store.delete("1")
    await store.put("more", b"x" * 2000, ttl=10)
    clock.at += 11
    await store.put("again", b"x" * 9000, ttl=10)
    assert store._bytes == 9000


async def test_one_subject_cannot_take_what_all_need() -> None:
    """RL-16: a day's worth of once-only keys of one caller fills his share, and is refused to him alone."""
    clock = Hand()
    store = MemoryEphemeral(capacity=1000, capacity_bytes=16_000, clock=clock)
    for n in range(10):
        assert await store.claim(f"{{mallory}}:{n}", b"x", ttl=10 + n) is None
    for n in range(10, 40):
        with pytest.raises(Unavailable):
            await store.claim(f"{{mallory}}:{n}", b"x", ttl=10)
    assert await store.claim("{mallory}:0", b"", ttl=10) == b"x", "still used up"
    assert await store.put("{mallory}:0", b"y", ttl=10), "what he has may change"
    assert await store.claim("{alice}:0", b"x", ttl=10) is None
    assert await store.delete("{mallory}:1")
    assert await store.claim("{mallory}:new", b"x", ttl=10) is None
    clock.at += 11
    assert await store.claim("{mallory}:later", b"x", ttl=1) is None, "what has died counts no more"
    clock.at += 100
    await store.put("{alice}:1", b"x" * 1000, ttl=1)
    with pytest.raises(Unavailable):
        await store.put("{alice}:2", b"x", ttl=1)
    await store.put("{bob}:1", b"x" * 1000, ttl=1)
    clock.at += 2
    assert await store.get("{alice}:1") is None
    await store.put("{alice}:2", b"x" * 1000, ttl=1)
    assert set(store._shares._held) == {"alice"}
    await store.delete("{alice}:2")
    assert store._shares._held == {}
    assert store._bytes == 0


async def test_claims_and_deletes_leave_nothing() -> None:
    store = MemoryEphemeral()
    for n in range(5000):
        await store.claim(str(n), b"x", ttl=1000)
        await store.delete(str(n))
    assert len(store) == 0
    assert store._bytes == 0
    assert len(store._values._heap) < 100


async def test_a_clock_that_jumps_forward_fills_the_bucket_once() -> None:
    """RL-08."""
    for quota in (TEN, SLIDING):
        clock = Hand()
        store = MemoryEphemeral(clock=clock)
        passed = 0
        for step in (0, 100_000, 0, 0):
            clock.at += step
            passed += sum([(await store.hit([Attempt("k", quota)]))[0].allowed for _ in range(30)])
        assert passed == 20


async def test_sliding_worst_case_is_the_limit() -> None:
    """RL-09: hits at the very end of one bucket and the start of another, window after window."""
    clock = Hand()
    store = MemoryEphemeral(clock=clock)
    passed: list[float] = []
    for tick in range(3000):
        clock.at = 1000 + tick * 0.1
        while (await store.hit([Attempt("k", SLIDING)]))[0].allowed:
            passed.append(clock.at)
    assert all(later - earlier >= 60 for earlier, later in zip(passed, passed[10:], strict=False))
    assert len(passed) >= 40


async def test_a_fixed_window_lets_twice_the_limit_through() -> None:
    """RL-09: the unguarded twin, so that the test above cannot pass by accident."""
    counts: dict[int, int] = {}
    passed = []
    for tick in range(3000):
        at = 1000 + tick * 0.1
        window = int(at // 60)
        if at % 60 > 59 or at % 60 < 1:
            while counts.get(window, 0) < 10:
                counts[window] = counts.get(window, 0) + 1
                passed.append(at)
    assert any(later - earlier < 60 for earlier, later in zip(passed, passed[10:], strict=False))
