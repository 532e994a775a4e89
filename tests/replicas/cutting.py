"""A proxy before PostgreSQL that stops one message of a client: on its way there, or the answer on its way back."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.replicas.proxy import Proxy, _abort


@dataclass
class Trap:
    """Waits for the COMMIT of a transaction in which `statement` was sent, or for the statement where it is alone.

    It springs once, and calls `sprung` before the client can notice anything.
    """

    statement: str
    delivered: bool
    """Whether the server gets the statement, and has done it, before the connection ends."""
    sprung: Callable[[], object] = lambda: None
    alone: bool = False
    done: threading.Event = field(default_factory=threading.Event)

    def springs(self, data: bytes, before: bytes) -> bool:
        """Whether it is time, as a client sends `data` after `before` on the same connection."""
        if self.alone:
            return re.search(self.statement.encode(), data) is not None
        return b"COMMIT\0" in data and re.search(self.statement.encode(), before) is not None


class CuttingProxy(Proxy):
    """Forwards until a trap is sprung: then both ends of that connection are reset, and nobody hears an answer."""

    trap: Trap | None = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self.target)
        self._open |= {writer, onward}
        back = asyncio.create_task(_pump(there, writer))
        said = b""
        try:
            while data := await reader.read(65536):
                trap = self.trap
                if trap is not None and trap.springs(data, said):
                    self.trap = None
                    await self._spring(trap, data, there, onward, writer, back)
                    return
                # What was said since the last transaction began.
                said = data if b"BEGIN" in data else said + data
                onward.write(data)
                await onward.drain()
        except OSError:
            return
        finally:
            back.cancel()
            self._open -= {writer, onward}
            writer.close()
            onward.close()

    async def _spring(self, trap: Trap, data: bytes, there, onward, writer, back) -> None:
        back.cancel()
        await asyncio.gather(back, return_exceptions=True)
        if trap.delivered:
            onward.write(data)
            await onward.drain()
            # Each statement ends with the server saying that it is ready again: 'Z', five, and one of I, T and E.
            answer = b""
            while b"Z\0\0\0\5" not in answer:
                answer += await there.read(65536) or b"Z\0\0\0\5"
        trap.sprung()
        _abort(writer)
        _abort(onward)
        trap.done.set()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    writer.close()
