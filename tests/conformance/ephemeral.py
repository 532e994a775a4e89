"""What every ephemeral store must do: a new one is tested by a subclass and a `store` fixture."""

from __future__ import annotations

import asyncio

import pytest

from routeguard.core.errors import ConfigError
from routeguard.foundation.ephemeral.protocol import Attempt, Ephemeral, Quota, hash_tag

TEN = Quota(limit=10, period=60, burst=10)
TEN_SLIDING = Quota(limit=10, period=60, burst=10, algorithm="sliding")
TEN_OF_EACH = pytest.mark.parametrize("quota", [TEN, TEN_SLIDING], ids=["gcra", "sliding"])


class EphemeralConformance:
    """Run with a `store` fixture: an empty, started store."""

    async def test_a_value_lives_until_its_time(self, store: Ephemeral) -> None:
        assert await store.get("{a}:1") is None
        assert await store.put("{a}:1", b"\x00\xff", ttl=1)
        assert await store.get("{a}:1") == b"\x00\xff"
        await asyncio.sleep(1.1)
        assert await store.get("{a}:1") is None

    async def test_put_replaces_value_and_life(self, store: Ephemeral) -> None:
        await store.put("k", b"old", ttl=0.1)
        await store.put("k", b"new", ttl=5)
        await asyncio.sleep(0.15)
        assert await store.get("k") == b"new"

    async def test_put_with_expected_is_compare_and_set(self, store: Ephemeral) -> None:
        assert not await store.put("k", b"2", ttl=5, expected=b"1")
        await store.put("k", b"1", ttl=5)
        assert await store.put("k", b"2", ttl=5, expected=b"1")
        assert not await store.put("k", b"3", ttl=5, expected=b"1")
        assert await store.get("k") == b"2"

    async def test_delete_removes_once(self, store: Ephemeral) -> None:
        await store.put("k", b"1", ttl=5)
        assert not await store.delete("k", expected=b"other")
        assert await store.delete("k", expected=b"1")
        assert not await store.delete("k")
        assert await store.get("k") is None

    async def test_one_of_many_claims(self, store: Ephemeral) -> None:
        answers = await asyncio.gather(*[store.claim("once", b"%d" % n, ttl=5) for n in range(100)])
        winners = [n for n, found in enumerate(answers) if found is None]
        assert len(winners) == 1
        assert {found for found in answers if found is not None} == {b"%d" % winners[0]}

    async def test_a_claim_ends_by_itself(self, store: Ephemeral) -> None:
        assert await store.claim("lease", b"a", ttl=1) is None
        assert await store.claim("lease", b"b", ttl=5) == b"a"
        await asyncio.sleep(1.1)
        assert await store.claim("lease", b"b", ttl=5) is None

    @TEN_OF_EACH
    async def test_ten_of_a_thousand_at_once(self, store: Ephemeral, quota: Quota) -> None:
        """RL-07: 10 means 10."""
        answers = await asyncio.gather(*[store.hit([Attempt("{ip}:l", quota)]) for _ in range(1000)])
        assert sum(hit.allowed for (hit,) in answers) == 10

    @TEN_OF_EACH
    async def test_keys_are_counted_apart(self, store: Ephemeral, quota: Quota) -> None:
        for key in ("{1}:l", "{2}:l"):
            assert all([(await store.hit([Attempt(key, quota)]))[0].allowed for _ in range(10)])
            assert not (await store.hit([Attempt(key, quota)]))[0].allowed

    @TEN_OF_EACH
    async def test_remaining_counts_down(self, store: Ephemeral, quota: Quota) -> None:
        seen = [(await store.hit([Attempt("r", quota)]))[0].remaining for _ in range(12)]
        assert seen == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]

    @TEN_OF_EACH
    async def test_refusals_are_not_counted_and_reset_is_true(self, store: Ephemeral, quota: Quota) -> None:
        short = Quota(limit=2, period=3, burst=2, algorithm=quota.algorithm)
        for _ in range(2):
            await store.hit([Attempt("s", short)])
        refused = [(await store.hit([Attempt("s", short)]))[0] for _ in range(20)]
        assert not any(hit.allowed for hit in refused)
        await asyncio.sleep(refused[-1].reset + 0.005)
        assert (await store.hit([Attempt("s", short)]))[0].allowed

    async def test_waiting_as_told_lets_in(self, store: Ephemeral) -> None:
        for quota in (
            Quota(limit=5, period=0.5, burst=2),
            Quota(limit=2, period=0.4, burst=2, algorithm="sliding"),
        ):
            key = "w" + quota.algorithm
            while (hit := (await store.hit([Attempt(key, quota)]))[0]).allowed:
                pass
            await asyncio.sleep(hit.reset + 0.005)
            assert (await store.hit([Attempt(key, quota)]))[0].allowed

    async def test_burst_and_steady_rate(self, store: Ephemeral) -> None:
        quota = Quota(limit=100, period=1.0, burst=3)
        assert [(await store.hit([Attempt("b", quota)]))[0].allowed for _ in range(3)] == [True] * 3
        await asyncio.sleep(0.025)
        hits = [(await store.hit([Attempt("b", quota)]))[0] for _ in range(2)]
        assert all(hit.allowed for hit in hits)

    @TEN_OF_EACH
    async def test_cost(self, store: Ephemeral, quota: Quota) -> None:
        assert (await store.hit([Attempt("c", quota, 7)]))[0].remaining == 3
        assert not (await store.hit([Attempt("c", quota, 4)]))[0].allowed
        assert (await store.hit([Attempt("c", quota, 3)]))[0].remaining == 0

    async def test_several_limits_all_or_none(self, store: Ephemeral) -> None:
        wide, narrow = Attempt("{u}:wide", TEN), Attempt("{u}:narrow", Quota(limit=2, period=60, burst=2))
        passed = [all(hit.allowed for hit in await store.hit([wide, narrow])) for _ in range(5)]
        assert passed == [True, True, False, False, False]
        assert (await store.hit([wide]))[0].remaining == 7

    async def test_sliding_never_lets_more_through_in_any_span(self, store: Ephemeral) -> None:
        """RL-09: bursts at the edge of a window."""
        quota = Quota(limit=10, period=0.4, burst=10, algorithm="sliding")
        loop = asyncio.get_running_loop()
        passed: list[tuple[float, float]] = []
        while len(passed) < 35:
            before = loop.time()
            if (await store.hit([Attempt("edge", quota)]))[0].allowed:
                passed.append((before, loop.time()))
            await asyncio.sleep(0.002)
        # Each was counted somewhere between being sent and being answered.
        for (first, _), (_, last) in zip(passed, passed[10:], strict=False):
            assert last - first > 0.4 - 0.02

    async def test_several_keys_are_read_together(self, store: Ephemeral) -> None:
        await store.put("{s}:one", b"1", ttl=5)
        await store.put("{s}:two", b"2", ttl=5)
        assert list(await store.get_all(["{s}:two", "{s}:none", "{s}:one"])) == [b"2", None, b"1"]
        assert list(await store.get_all([])) == []

    def test_malformed_quotas_are_configuration_errors(self) -> None:
        with pytest.raises(ConfigError) as caught:
            Quota(limit=0, period=0, burst=0)
        assert len(caught.value.findings) == 3

    def test_a_hash_tag_cannot_be_closed_early(self) -> None:
        assert hash_tag("a}b{c") == "{a%7Db%7Bc}"
