"""`routeguard` on a machine whose clock is five minutes ahead: ``python -m tests.replicas.ahead FILE serve ...``."""

from __future__ import annotations

import sys
import time

from routeguard.cli.main import main
from routeguard.core.clock import SystemClock

AHEAD = 300.0

if __name__ == "__main__":
    del sys.argv[1]
    SystemClock.time = lambda self: time.time() + AHEAD  # type: ignore[method-assign]
    main()
