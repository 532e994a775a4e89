"""Whether this is the only process that counts in its own memory."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows has no flock; nothing is told there.
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("routeguard")

_HELD: Final[dict[Path, tuple[int, set[int]]]] = {}
"""Locks of this process, and who wants each: several guards of one process are no second process."""


class OneProcess:
    """Warns when another process of this deployment on this machine counts in its own memory as well.

    Each of two workers lets the whole of every limit through, and knows nothing of the other's claims and used
    signatures. A lock on a file tells, which the system releases when its process ends, however it does.
    """

    def __init__(self, deployment: str) -> None:
        name = hashlib.sha256(deployment.encode()).hexdigest()[:20]
        user = os.getuid() if hasattr(os, "getuid") else 0
        self._path = Path(tempfile.gettempdir()) / f"routeguard-{user}-{name}.lock"

    def look(self) -> None:
        """Take the lock, or warn that another process has it. A lock that cannot be made is no reason to stop."""
        if fcntl is None:
            return
        if self._path in _HELD:
            _HELD[self._path][1].add(id(self))
            return
        try:
            # Never through a link that another user put there.
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            logger.warning(
                "ephemeral_url is memory:// and another process of this service runs: each of them counts limits, "
                "claims and used signatures by itself. Set ROUTEGUARD_EPHEMERAL_URL to valkey://..., or run one worker"
            )
        else:
            _HELD[self._path] = (file, {id(self)})

    async def close(self) -> None:
        """Release the lock, when no other guard of this process wants it."""
        file, wanted = _HELD.get(self._path, (-1, set()))
        wanted.discard(id(self))
        if file != -1 and not wanted:
            del _HELD[self._path]
            os.close(file)
