"""`routeguard serve`, which says on SIGUSR1 how many tasks it has: ``python -m tests.soak.server FILE serve ...``.

With ``SOAK_TRACE=1`` in the environment, SIGUSR2 writes to FILE.trace which lines hold more than at the first one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import tracemalloc
from pathlib import Path

from routeguard.cli.main import main

_first: list[tracemalloc.Snapshot] = []


def _count(file: Path) -> None:
    gc.collect()
    file.write_text(str(len(asyncio.all_tasks())))


def _trace(file: Path) -> None:
    gc.collect()
    snapshot = tracemalloc.take_snapshot()
    if _first:
        grown = snapshot.compare_to(_first[0], "lineno")[:40]
        file.with_suffix(".trace").write_text("\n".join(str(line) for line in grown))
    _first.append(snapshot)


if __name__ == "__main__":
    target = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, lambda *_: _count(target))
    if os.environ.get("SOAK_TRACE"):
        tracemalloc.start()
        signal.signal(signal.SIGUSR2, lambda *_: _trace(target))
    main()
