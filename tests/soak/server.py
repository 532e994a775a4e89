"""`routeguard serve`, which says on SIGUSR1 how many tasks it has: ``python -m tests.soak.server FILE serve ...``."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from pathlib import Path

from routeguard.cli.main import main


def _count(file: Path) -> None:
    gc.collect()
    file.write_text(str(len(asyncio.all_tasks())))


if __name__ == "__main__":
    target = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, lambda *_: _count(target))
    main()
