"""The verdict itself: it finds a leak, and no leak where there is none."""

from __future__ import annotations

import pytest

from tests.soak.verdict import MEGABYTE, Sample, findings, slope


def series(seconds: int, **growth: float) -> list[Sample]:
    """Return a sample a second that wobbles, and grows by so much a second."""
    made = []
    for at in range(seconds):
        wobble = (at * 7919) % 5
        made.append(
            Sample(
                at=at, rss=int(90 * MEGABYTE + wobble * 65536 + growth.get("rss", 0) * at),
                files=30 + wobble + int(growth.get("files", 0) * at), threads=6 + int(growth.get("threads", 0) * at),
                tasks=12 + wobble + int(growth.get("tasks", 0) * at),
            )
        )  # fmt: skip
    return made


def test_slope() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)


@pytest.mark.parametrize("seconds", [180, 1800])
def test_flat_is_flat(seconds: int) -> None:
    assert findings(series(seconds), seconds=seconds) == []


@pytest.mark.parametrize(
    ("growth", "word"),
    [({"rss": 100_000}, "memory"), ({"files": 0.3}, "files"), ({"threads": 0.1}, "threads"), ({"tasks": 0.5}, "tasks")],
    ids=["memory", "files", "threads", "tasks"],
)
def test_a_leak_is_found(growth: dict[str, float], word: str) -> None:
    assert any(word in finding for finding in findings(series(180, **growth), seconds=180))


def test_a_slow_leak_is_found_in_half_an_hour() -> None:
    """OPS-23: 2 MB in ten minutes, which three minutes cannot tell."""
    slow = 2 * MEGABYTE / 600
    assert findings(series(180, rss=slow), seconds=180) == []
    assert findings(series(1800, rss=slow), seconds=1800)


def test_too_few_samples_prove_nothing() -> None:
    assert findings(series(5), seconds=5)
