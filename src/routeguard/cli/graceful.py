"""The end of a server: those who balance are told first, what is under way is finished, nothing lasts for ever."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Final

import uvicorn

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

logger = logging.getLogger("routeguard")

REQUESTS: Final = 4
"""Seconds for requests under way when nothing new is taken any more."""
_ALL: Final = 8.0
"""Seconds for them and for the services after them (mails in flight, counts not yet written)."""
_SETTLE: Final = 0.3
"""Seconds in which a client that was let in at the last moment can still say what it wants."""
_TICK: Final = 0.05


class GracefulServer(uvicorn.Server):
    """uvicorn, told to stop by SIGTERM or SIGINT, in four steps (attack OPS-14).

    1. At once: `on_stop` is called, which makes `/readyz` 503.
    2. For `drain` seconds everybody is served as before, so that balancers find out; every answer asks its client to
       connect anew (`Connection: close`, RFC 9112 section 9.6), which by then leads to another process.
    3. New connections are refused, and requests under way have four seconds to end.
    4. The services close: what is queued in memory is written. Then the process ends by itself, with exit code 0.

    A second SIGINT (Ctrl-C) skips the waiting.
    """

    def __init__(self, config: uvicorn.Config, *, drain: float, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._seconds = drain
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's shape
        """Begin to stop. Only sets flags: a signal comes between any two steps of the interpreter."""
        self._on_stop()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then end what uvicorn ends, within bounds."""
        if not self.force_exit:
            await self._drain()
        for server in self.servers:
            server.close()
        await self._until(_SETTLE, lambda: not self.server_state.connections)
        try:
            async with asyncio.timeout(_ALL):
                await super().shutdown(sockets)
        except TimeoutError:
            logger.error("stopping took more than %.0f seconds; what is left is cut off", _ALL)  # noqa: TRY400 - no fault

    async def _drain(self) -> None:
        if self._seconds:
            logger.info("about to stop: not ready any more, refusing new connections in %g s", self._seconds)
        ends = asyncio.get_running_loop().time() + self._seconds
        while True:
            await self.on_tick(0)  # Sets the header `Date`.
            self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
            left = ends - asyncio.get_running_loop().time()
            if left <= 0 or self.force_exit:
                return
            await self._until(min(left, 1.0), lambda: False)

    async def _until(self, seconds: float, done: Callable[[], bool]) -> None:
        ends = asyncio.get_running_loop().time() + seconds
        while not done() and not self.force_exit and asyncio.get_running_loop().time() < ends:  # noqa: ASYNC110 - what ends it are flags of signals and of uvicorn
            await asyncio.sleep(_TICK)
