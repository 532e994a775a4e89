"""Whether figures sampled over time are flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """What one process used, `at` seconds after the beginning."""

    at: float
    rss: int
    files: int
    threads: int
    tasks: int


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the least squares slope of points (x, y)."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def growth(values: Sequence[float]) -> float:
    """Return how much the median of the last quarter is above that of the first."""
    quarter = max(len(values) // 4, 1)
    return median(values[-quarter:]) - median(values[:quarter])


def findings(samples: Sequence[Sample], *, seconds: float) -> list[str]:
    """Return what is not flat after a warm-up of a third of the time.

    Memory: over half an hour or more, a slope of at most 1 MB in ten minutes (attack OPS-23). In less time than that
    a page more or less is a steep slope, so for a short run it is growth by 6 MB, which a leak of 1 KB a request
    passes several times over.
    """
    kept = [sample for sample in samples if sample.at > seconds / 3]
    if len(kept) < 8:
        return [f"{len(kept)} samples after the warm-up are too few"]
    found = []
    per_ten_minutes = slope([(sample.at, sample.rss) for sample in kept]) * 600 / MEGABYTE
    grown = growth([sample.rss for sample in kept]) / MEGABYTE
    if seconds >= 1800 and per_ten_minutes > 1:
        found.append(f"memory grows by {per_ten_minutes:.2f} MB in ten minutes")
    if grown > 6:
        found.append(f"memory grew by {grown:.1f} MB after the warm-up")
    for name, most in (("files", 10), ("threads", 4), ("tasks", 20)):
        more = growth([getattr(sample, name) for sample in kept])
        if more > most:
            found.append(f"{more:.0f} more {name} than after the warm-up")
    return found
