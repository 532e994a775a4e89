"""A TCP proxy that breaks connections on demand: between a server and its database, as a network does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading

from tests.backends import free_port

_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing sends RST, not FIN."""


class Proxy:
    """Forwards a port of its own to another one, on a thread of its own, until it is told otherwise."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self._refusing = False
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._start())

    def reset(self) -> int:
        """End every connection with RST, and answer new ones with it until `restore`. Returns how many there were."""
        return self._do(self._reset())

    def restore(self) -> None:
        """Forward again."""
        self._refusing = False

    def close(self) -> None:
        self._do(self._reset())
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _reset(self) -> int:
        self._refusing = True
        count = len(self._open)
        for writer in tuple(self._open):
            _abort(writer)
        return count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _abort(writer)
            return
        try:
            onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _abort(writer)
            return
        self._open |= {writer, onward[1]}
        try:
            await asyncio.gather(_pump(reader, onward[1]), _pump(onward[0], writer))
        finally:
            self._open -= {writer, onward[1]}
            writer.close()
            onward[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket | None = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()
