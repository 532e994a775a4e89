"""The verdict itself: it finds a leak, and no leak where there is none."""

from __future__ import annotations

import pytest

from tests.soak.verdict import MEGABYTE, Sample, findings, memory, slope


def series(seconds: int, **growth: float) -> list[Sample]:
    """Return a sample every two seconds that wobbles, and grows by so much a second."""
    made = []
    for at in range(0, seconds, 2):
        wobble = (at * 7919) % 5
        made.append(
            Sample(
                at=at,
                rss=int(90 * MEGABYTE + wobble * 4096 + growth.get("rss", 0) * at),
                files=30 + wobble + int(growth.get("files", 0) * at),
                threads=6 + int(growth.get("threads", 0) * at),
                tasks=12 + wobble + int(growth.get("tasks", 0) * at),
            )
        )
    return made


def both(seconds: int, **growth: float) -> list[str]:
    """Return what is found when every replica grows."""
    return findings([series(seconds, **growth)] * 2, seconds=seconds)


def test_slope() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)


def test_one_outlier_bends_nothing() -> None:
    points = [(at, 2.0 * at) for at in range(20)]
    points[17] = (17, 10_000.0)
    assert slope(points) == pytest.approx(2)


@pytest.mark.parametrize("seconds", [180, 1800])
def test_flat_is_flat(seconds: int) -> None:
    assert both(seconds) == []


def test_the_warm_up_may_grow() -> None:
    warm = [
        Sample(one.at, one.rss - max(60 - int(one.at), 0) * MEGABYTE, one.files, one.threads, one.tasks)
        for one in series(180)
    ]
    assert findings([warm, warm], seconds=180) == []


@pytest.mark.parametrize(
    ("growth", "word"),
    [({"rss": 30_000}, "memory"), ({"files": 0.3}, "files"), ({"threads": 0.1}, "threads"), ({"tasks": 0.5}, "tasks")],
    ids=["memory", "files", "threads", "tasks"],
)
def test_a_leak_is_found(growth: dict[str, float], word: str) -> None:
    """OPS-23: 30 KB a second are the thirty requests a second of one replica, and 1 KB of each."""
    assert any(word in finding for finding in both(180, **growth))


@pytest.mark.parametrize("seconds", [180, 1800])
@pytest.mark.parametrize(("megabytes", "found"), [(0.8, False), (1.2, True)])
def test_a_megabyte_in_ten_minutes_is_the_bound(seconds: int, megabytes: float, *, found: bool) -> None:
    """OPS-23"""
    assert bool(both(seconds, rss=megabytes * MEGABYTE / 600)) is found


def test_memory_is_in_megabytes_in_ten_minutes() -> None:
    assert memory(series(600, rss=MEGABYTE / 600), seconds=600) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("megabytes", "found"), [(3, False), (10, True)])
def test_memory_of_one_replica_only_has_a_wider_bound(megabytes: float, *, found: bool) -> None:
    assert bool(findings([series(180), series(180, rss=megabytes * MEGABYTE / 600)], seconds=180)) is found


def test_other_things_count_in_each_replica() -> None:
    assert findings([series(180), series(180, files=0.3)], seconds=180)


def test_too_few_samples_prove_nothing() -> None:
    assert both(12)
