"""One room. Messages are short, speakers are named by the server, and who does not listen is let go."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

if TYPE_CHECKING:
    from routeguard.identity.sessions.models import UserSession

MAXIMUM_MESSAGE: Final = 2000
"""Characters in one message (RFC 6455 section 7.4.1: longer closes with 1009)."""
_PATIENCE: Final = 5.0
_PER_SECOND: Final = 5
_POLICY, _TOO_BIG, _UNSUPPORTED = 1008, 1009, 1003


class Room:
    """The sockets that are open in this process. The guard closes those whose session ends."""

    def __init__(self) -> None:
        self._open: set[WebSocket] = set()

    async def join(self, socket: WebSocket, session: UserSession[Any]) -> None:
        """Keep a guarded socket until it leaves or misbehaves."""
        await socket.accept()
        self._open.add(socket)
        try:
            code = await self._talk(socket, session.user.name or "a user")
        finally:
            self._open.discard(socket)
        if code is not None:
            await socket.close(code)

    async def _talk(self, socket: WebSocket, name: str) -> int | None:
        """Pass on what one socket says. Returns the code to close it with; None when it left by itself."""
        allowance, last = float(_PER_SECOND), asyncio.get_running_loop().time()
        while True:
            try:
                text = await _text(socket)
            except WebSocketDisconnect:
                return None
            if text is None:
                return _UNSUPPORTED
            if len(text) > MAXIMUM_MESSAGE:
                return _TOO_BIG
            now = asyncio.get_running_loop().time()
            allowance, last = min(_PER_SECOND, allowance + (now - last) * _PER_SECOND) - 1, now
            if allowance < 0:
                return _POLICY
            await self._say(json.dumps({"name": name, "text": text}))

    async def _say(self, line: str) -> None:
        await asyncio.gather(*(self._send(socket, line) for socket in tuple(self._open)))

    async def _send(self, socket: WebSocket, line: str) -> None:
        # A reader that stalls must not hold up the room, nor fill our memory.
        try:
            async with asyncio.timeout(_PATIENCE):
                await socket.send_text(line)
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            self._open.discard(socket)


async def _text(socket: WebSocket) -> str | None:
    """Return the next text message; None for a binary one."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    text: str | None = message.get("text")
    return text
