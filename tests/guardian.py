"""Ends what a process of tests started and did not end, because it was ended itself.

A run in several processes ends them without a word when it is interrupted, and their servers would run on. Each starts
one of these, which waits for the end of its standard input: ``python -m tests.guardian MARK``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import psutil

VARIABLE: Final = "PYTEST_STARTED_BY"
"""In the environment of everything that a process of tests starts: that process, by its id and a random number."""
_PATIENCE: Final = 20.0


def watch() -> subprocess.Popen[bytes]:
    """Mark what this process starts from now on, and have it ended with this process. The result is to be kept."""
    mark = f"{os.getpid()}-{os.urandom(8).hex()}"
    # In a session of its own: Ctrl-C reaches everybody else.
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.guardian", mark],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
    )
    os.environ[VARIABLE] = mark
    return process


def main(mark: str) -> None:
    """Wait for the end, then end what is left."""
    sys.stdin.buffer.read()
    import psutil

    left = [process for process in psutil.process_iter() if _is_marked(process, mark)]
    pids = {process.pid for process in left}
    # A server that is asked ends its own children, and knows how.
    for number in (signal.SIGINT, signal.SIGKILL):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                if number == signal.SIGKILL or process.ppid() not in pids:
                    process.send_signal(number)
        _, left = psutil.wait_procs(left, _PATIENCE)


def _is_marked(process: psutil.Process, mark: str) -> bool:
    import psutil

    try:
        return process.environ().get(VARIABLE) == mark
    except psutil.Error:
        return False


if __name__ == "__main__":
    main(sys.argv[1])
