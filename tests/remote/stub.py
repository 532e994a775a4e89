"""A server that answers what a test tells it to, however wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self


class Stub:
    """Answers every request with `answer`, raw bytes, and notes what was asked."""

    def __init__(self) -> None:
        self.answer = b""
        self.asked: list[str] = []
        self.script: list[bytes] = []
        """Bodies to answer first, one after the other."""
        self.only: dict[str, bytes] = {}
        """Raw answers of some paths alone."""
        self.url = ""
        self._server: asyncio.Server
        self.held: asyncio.Event | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        stub = cls()
        server = await asyncio.start_server(stub._serve, "127.0.0.1", 0)
        stub._server = server
        stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield stub
        finally:
            server.close()

    def say(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        """Answer this from now on."""
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
        self.answer = "\r\n".join([*lines, "", ""]).encode() + body

    async def close(self) -> None:
        """Take no more connections."""
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.split(b" ")[1].decode())
            if self.held is not None:
                await self.held.wait()
            if self.script:
                self.say(self.script.pop(0))
            target = self.asked[-1].partition("?")[0]
            writer.write(self.only.get(target, self.answer))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
