"""`routeguard serve` for the soak: ``python -m tests.soak.server FILE serve ...``.

On SIGUSR1 it writes to FILE how often it was asked, how much memory and how many tasks it has. What it remembers is
few and short, so that all of that is full after the warm-up: what still grows then is a leak. It waits long for
others, because a neighbour who takes both cores for a second is not what is tried here.

``SOAK_LEAK=1024`` leaks that many bytes with every request, to see that the soak finds it. With ``SOAK_TRACE=1``
SIGUSR2 writes to FILE.trace which lines hold more than at the first one.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import os
import re
import signal
import sys
import tracemalloc
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from uvicorn.config import Config

from routeguard.cli.main import main
from routeguard.foundation.ephemeral.redis import RedisEphemeral
from routeguard.foundation.invalidation import feed
from routeguard.foundation.web import health
from routeguard.identity.api_keys import verifier
from routeguard.identity.sessions import by_id, resolver
from routeguard.identity.tokens import access
from routeguard.identity.tokens import service as tokens
from routeguard.protection.traffic import callers

BOUNDS: list[tuple[ModuleType, str, float]] = [
    (resolver, "_CAPACITY", 64),
    (by_id, "_CAPACITY", 64),
    (access, "_CAPACITY", 64),
    (verifier, "_CAPACITY", 64),
    (tokens, "_CAPACITY", 64),
    (callers, "_REMEMBERED", 64),
    (feed, "_SEEN_CAPACITY", 64),
    (feed, "OVERLAP", 5.0),
    (health, "_PATIENCE", 60.0),
]
DEADLINE = 60.0
"""Seconds for a command of Valkey. The default is half a second."""

_libc = ctypes.CDLL(None)
_numbers = itertools.count(1)
_first: list[tracemalloc.Snapshot] = []
_leaked: list[bytes] = []


def memory() -> int:
    """Return the bytes this process holds, in memory or swapped out.

    Without pages of files: they come and go with what else the machine does, and no leak is there.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * sum(int(number) for number in re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB", status, re.MULTILINE))


def _report(file: Path) -> None:
    number = next(_numbers)
    # What nobody holds is given back before it is counted.
    gc.collect()
    _libc.malloc_trim(0)
    whole = file.with_suffix(".new")
    whole.write_text(f"{number} {memory()} {len(asyncio.all_tasks())}")
    whole.replace(file)


def _trace(file: Path) -> None:
    gc.collect()
    snapshot = tracemalloc.take_snapshot()
    if _first:
        grown = snapshot.compare_to(_first[0], "lineno")[:40]
        file.with_suffix(".trace").write_text("\n".join(str(line) for line in grown))
    _first.append(snapshot)


def _leak(size: int) -> None:
    """Make the served application keep `size` bytes of every request."""
    load = Config.load

    def leaking(config: Config) -> None:
        load(config)
        app: Any = config.loaded_app

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            _leaked.append(os.urandom(size))
            await app(scope, receive, send)

        config.loaded_app = serve

    Config.load = leaking  # type: ignore[method-assign]


def _bound() -> None:
    for module, name, value in BOUNDS:
        getattr(module, name)  # What is called otherwise by now must not stay large unnoticed.
        setattr(module, name, value)
    RedisEphemeral.from_url = partial(RedisEphemeral.from_url, deadline=DEADLINE)  # type: ignore[method-assign]


if __name__ == "__main__":
    target = Path(sys.argv.pop(1))
    _bound()
    signal.signal(signal.SIGUSR1, lambda *_: _report(target))
    if os.environ.get("SOAK_LEAK"):
        _leak(int(os.environ["SOAK_LEAK"]))
    if os.environ.get("SOAK_TRACE"):
        tracemalloc.start()
        signal.signal(signal.SIGUSR2, lambda *_: _trace(target))
    main()
