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
        self.url = ""
        self.held: asyncio.Event | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        stub = cls()
        server = await asyncio.start_server(stub._serve, "127.0.0.1", 0)
        stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield stub
        finally:
            server.close()

    def say(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        """Answer this from now on."""
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
        self.answer = "\r\n".join([*lines, "", ""]).encode() + body

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.split(b" ")[1].decode())
            if self.held is not None:
                await self.held.wait()
            writer.write(self.answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
