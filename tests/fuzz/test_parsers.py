"""No parser raises anything undeclared, and none takes more than 50 ms for 64 KB.

Longer: ``uv run python -m tests.fuzz --inputs 500000``.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .engine import SIZE, Report, attempt, fuzz
from .targets import TARGETS, Target

every = pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])


@every
def test_mutations(target: Target) -> None:
    report = fuzz(target, 2_000, seed=20_260_101)
    assert report.failures == []
    # A fuzzer that is turned away at the door has tested the door.
    assert report.accepted > 20


@every
def test_shrinking_search(target: Target) -> None:
    """Hypothesis finds fewer inputs and shows the smallest that fails."""
    words = st.lists(st.sampled_from([*target.words, *target.seeds]) | st.binary(max_size=4), max_size=12).map(b"".join)

    @given(words | st.binary(max_size=100))
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    def search(data: bytes) -> None:
        report = Report(target.name)
        attempt(target, data, report)
        assert report.failures == []

    search()


@every
def test_64_kilobytes_of_anything(target: Target) -> None:
    """INJ-04: each word, and each pair of words, over and over."""
    report = Report(target.name)
    words = [*target.words, *target.seeds]
    for word in words:
        attempt(target, (word * (SIZE // len(word) + 1))[:SIZE], report)
    for first, last in zip(words, [*words[1:], words[0]], strict=True):
        attempt(target, (first * (SIZE // 2 // len(first)) + last * (SIZE // 2 // len(last)))[:SIZE], report)
    assert report.failures == []


def test_the_fuzzer_notices() -> None:
    """An undeclared exception, and slowness."""

    def breaks(data: bytes) -> None:
        if b"\x00" in data:
            raise KeyError(data)

    assert "KeyError" in fuzz(Target("breaks", breaks), 500, seed=1).failures[0]

    def slow(data: bytes) -> None:
        for _ in range(12_000_000 if len(data) == 3 else 0):
            pass

    report = Report("slow")
    attempt(Target("slow", slow), b"abc", report)
    assert "ms" in report.failures[0]
