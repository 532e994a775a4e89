"""Claims that end with the request that made them, also when the store was away at that moment."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from routeguard.core.errors import Unavailable
from routeguard.core.tasks import runs_here

if TYPE_CHECKING:
    from routeguard.foundation.ephemeral.protocol import Ephemeral

_PAUSE: Final = 0.25
_MOST: Final = 4096
"""Claims given back later; what is over ends by its own time to live."""


class Leases:
    """Claims in a store, each under a token of its own.

    A store that froze carries out what it was sent once it thaws: a claim whose answer was no longer waited for
    would shut out the same caller's next try for its whole life, and so would one that could not be given back. These
    are given back as soon as the store answers again (OPS-04: an outcome that is not known). The task that does it
    lives only while there are some: not a `core.periodic.Periodic`, since a check has no start and no close.
    """

    __slots__ = ("_orphans", "_store", "_task")

    def __init__(self, store: Ephemeral) -> None:
        self._store = store
        self._orphans: dict[tuple[str, bytes], float] = {}
        self._task: asyncio.Task[None] | None = None

    async def claim(self, key: str, token: bytes, *, ttl: float) -> bytes | None:
        """Take `key` for `ttl` seconds. Returns None when it was free, else the token that is there.

        Raises Unavailable.
        """
        answered = False
        try:
            found = await self._store.claim(key, token, ttl=ttl)
            answered = True
            return found
        finally:
            # Also when the caller was cancelled, while the command was on its way.
            if not answered:
                self._later(key, token, ttl)

    async def release(self, key: str, token: bytes, *, ttl: float) -> None:
        """Give `key` back if it is still ours: now, or once the store is there again within `ttl` seconds."""
        answered = False
        try:
            await self._store.delete(key, expected=token)
            answered = True
        except Unavailable:
            return
        finally:
            if not answered:
                self._later(key, token, ttl)

    def _later(self, key: str, token: bytes, ttl: float) -> None:
        if len(self._orphans) < _MOST:
            self._orphans[key, token] = monotonic() + ttl
        if asyncio._get_running_loop() is None:  # noqa: SLF001 - documented; None in trio
            return  # Only `memory://` runs there, and it is never away: what is over ends by its own time to live.
        if self._task is None or not runs_here(self._task):
            self._task = asyncio.create_task(self._give_back(), name="routeguard-leases")

    async def _give_back(self) -> None:
        try:
            while self._orphans:
                await asyncio.sleep(_PAUSE)
                for (key, token), until in tuple(self._orphans.items()):
                    if until > monotonic():
                        try:
                            await self._store.delete(key, expected=token)
                        except Unavailable:
                            break
                    del self._orphans[key, token]
        finally:
            self._task = None
