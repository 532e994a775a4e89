"""Longer runs: ``python -m tests.fuzz --inputs 500000``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time

from .engine import fuzz
from .targets import TARGETS


def say(line: str) -> None:
    """Write one line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Fuzz every parser with its share of the inputs; return 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=500_000, help="inputs in all, over all parsers")
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFF, help="repeats a run exactly")
    parser.add_argument("--only", default="", help="parsers whose name holds this")
    arguments = parser.parse_args()
    targets = [target for target in TARGETS if arguments.only in target.name]
    if not targets:
        parser.error(f"no parser's name holds {arguments.only!r}")
    say(f"seed {arguments.seed}")
    # What is refused is logged: written, so that writing is tried too, but not shown half a million times.
    logging.basicConfig(filename=os.devnull, level=logging.INFO)
    failed = 0
    for target in targets:
        start = time.perf_counter()
        report = fuzz(target, -(-arguments.inputs // len(targets)), arguments.seed)
        taken = time.perf_counter() - start
        say(
            f"{report.name:20} {report.inputs:8} inputs {report.accepted:8} accepted "
            f"slowest {report.slowest * 1000:6.1f} ms {taken:6.1f} s  {len(report.failures)} failures"
        )
        for failure in report.failures:
            say(f"  {failure}")
        failed += len(report.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
