"""A small mutating fuzzer: reproducible from its seed, and fast enough for half a million inputs."""

from __future__ import annotations

import contextlib
import random
import time
import traceback
from dataclasses import dataclass, field

from tests.steady import work_of

from .targets import Target

LIMIT = 0.05
"""Seconds of work one input of at most 64 KB may take, as `tests.steady.work_of` counts them."""
SIZE = 64 * 1024
_LARGE_EVERY = 200


@dataclass
class Report:
    """What became of one target."""

    name: str
    inputs: int = 0
    accepted: int = 0
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)


def fuzz(target: Target, inputs: int, seed: int) -> Report:
    """Try `inputs` inputs; one in 200 is large. Stops at the tenth failure."""
    maker = Maker(target, random.Random(f"{seed} {target.name}"))
    report = Report(target.name)
    for number in range(inputs):
        data = maker.large() if number % _LARGE_EVERY == 1 else maker.small()
        accepted = report.accepted
        attempt(target, data, report)
        if report.accepted > accepted:
            maker.keep(data)
        if len(report.failures) >= 10:
            break
    return report


def attempt(target: Target, data: bytes, report: Report) -> None:
    """Read one input; note any other exception than the declared ones, and any that is too slow."""
    report.inputs += 1
    start = time.thread_time()
    try:
        target.read(data)
        report.accepted += 1
    except target.allowed:
        pass
    except Exception:
        report.failures.append(f"{data[:300]!r} ({len(data)} bytes)\n{traceback.format_exc(limit=-3)}")
        return
    taken = time.thread_time() - start
    if taken > LIMIT:
        # A machine may be slow, and may stumble; an input that is slow is slow every time.
        taken = work_of(lambda: _again(target, data), tries=4)
        if taken > LIMIT:
            report.failures.append(f"{data[:100]!r} ({len(data)} bytes) took {taken * 1000:.0f} ms")
    report.slowest = max(report.slowest, taken)


def _again(target: Target, data: bytes) -> None:
    with contextlib.suppress(target.allowed):
        target.read(data)


class Maker:
    """Makes inputs of a target's seeds and words."""

    def __init__(self, target: Target, source: random.Random) -> None:
        self._source = source
        self._words = (*target.words, *target.seeds, b"\x00", b"\xff", b"\r\n", b"\xc2\xa0", b"\xe2\x80\xa8")
        self._seeds = target.seeds
        self._pool = [*target.seeds, b""]

    def small(self) -> bytes:
        """Return words strung together, or an earlier input changed in a few places."""
        source = self._source
        if source.random() < 0.4:
            return b"".join(source.choices(self._words, k=source.randint(0, 12)))
        # The seeds, which have the right shape, as often as all that grew out of them.
        data = bytearray(source.choice(self._seeds if self._seeds and source.random() < 0.5 else self._pool))
        for _ in range(source.randint(0, 4)):
            place = source.randint(0, len(data))
            kind = source.randrange(5)
            if kind == 0:
                data[place:place] = source.choice(self._words)
            elif kind == 1:
                data[place:place] = source.randbytes(source.randint(1, 4))
            elif kind == 2:
                del data[place : place + source.randint(1, 8)]
            elif kind == 3 and place < len(data):
                data[place] ^= 1 << source.randrange(8)
            else:
                data[place:place] = data[: source.randint(0, 16)]
        return bytes(data[:2000])

    def keep(self, data: bytes) -> None:
        """Let later inputs grow out of one that was accepted: that reaches what no single change does."""
        if len(data) > 300:
            return
        if len(self._pool) < 200:
            self._pool.append(data)
        else:
            self._pool[self._source.randrange(len(self._seeds) + 1, 200)] = data

    def large(self) -> bytes:
        """Return up to 64 KB: one short pattern over and over, with something else at either end."""
        source = self._source
        pattern = b"".join(source.choices(self._words, k=source.randint(1, 3))) or b"\x00"
        first, last = source.choices((b"", *self._words), k=2)
        size = source.choice((4_000, 20_000, SIZE, SIZE))
        return (
            (first + pattern * (size // len(pattern)) + last)[-size:]
            if source.random() < 0.5
            else (first + pattern * (size // len(pattern)))[:size] + last[: SIZE - size]
        )
