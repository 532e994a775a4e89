"""Whether figures sampled over time are flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

MEGABYTE = 1024 * 1024
MOST_MEMORY = 1.0
"""Megabytes in ten minutes (attack OPS-23)."""
MOST_MEMORY_OF_ONE = 5.0
"""The same for a single replica. Three minutes of a healthy one showed 0.3 to 0.4, a leak of 1 KB a request 19."""
MOST = {"files": 10, "threads": 4, "tasks": 20}
"""By how many the last quarter may be above the first: what one moment has more than another."""


@dataclass(frozen=True)
class Sample:
    """What one process used, `at` seconds after the beginning."""

    at: float
    rss: int
    files: int
    threads: int
    tasks: int


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between all points (x, y): the fit of Theil and Sen, which no outlier bends."""
    return median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] != a[0])


def growth(values: Sequence[float]) -> float:
    """Return how much the median of the last quarter is above that of the first."""
    quarter = max(len(values) // 4, 1)
    return median(values[-quarter:]) - median(values[:quarter])


def settled(samples: Sequence[Sample], *, seconds: float) -> list[Sample]:
    """Return the samples after the warm-up, which is a third of the time."""
    return [sample for sample in samples if sample.at > seconds / 3]


def memory(samples: Sequence[Sample], *, seconds: float) -> float:
    """Return by how many megabytes memory grows in ten minutes after the warm-up."""
    return slope([(sample.at, sample.rss) for sample in settled(samples, seconds=seconds)]) * 600 / MEGABYTE


def findings(replicas: Sequence[Sequence[Sample]], *, seconds: float) -> list[str]:
    """Return what is not flat after the warm-up.

    Of the slopes of memory the smallest counts: all replicas run the same code under the same load, so a leak is in
    every one of them, and what only one of them shows may be where its allocator happened to need another arena. One
    alone fails by what no arena explains.
    """
    kept = [settled(samples, seconds=seconds) for samples in replicas]
    if min(map(len, kept)) < 8:
        return [f"{min(map(len, kept))} samples after the warm-up are too few"]
    found = []
    grown = min(memory(samples, seconds=seconds) for samples in replicas)
    if grown > MOST_MEMORY:
        found.append(f"memory grows by {grown:.2f} MB in ten minutes in every replica")
    for number, samples in enumerate(replicas):
        alone = memory(samples, seconds=seconds)
        if alone > MOST_MEMORY_OF_ONE:
            found.append(f"replica {number}: memory grows by {alone:.2f} MB in ten minutes")
    for number, samples in enumerate(kept):
        for name, most in MOST.items():
            more = growth([getattr(sample, name) for sample in samples])
            if more > most:
                found.append(f"replica {number}: {more:.0f} more {name} than after the warm-up")
    return found
