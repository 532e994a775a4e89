"""The end of a WebSocket that was refused before it was accepted."""

from __future__ import annotations

from typing import Final

from anyio.lowlevel import checkpoint

_TURNS: Final = 5
"""Of the event loop, in which a server closes a connection it has written to."""


async def let_server_close() -> None:
    """Give the server time to close the connection on which a handshake was refused.

    uvicorn's `websockets-sansio` notes the end of a handshake when the connection is closed. An application that
    returns before is logged as an error, with every refusal.
    """
    for _ in range(_TURNS):
        await checkpoint()
