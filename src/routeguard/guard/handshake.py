"""The end of a refused WebSocket handshake, as servers understand it."""

from __future__ import annotations

import sys
from typing import Any


def end_refused(send: Any) -> None:
    """Tell uvicorn's `websockets-sansio` implementation that a denial response was the end of the handshake.

    It sends the response and then logs an ERROR for an application that returns "without completing handshake" (seen
    in 0.54), one for every guest who tries a socket. It takes its own `ClientDisconnected` for an end instead. Does
    nothing for other servers.
    """
    protocol: Any = getattr(send, "__self__", None)
    utils: Any = sys.modules.get("uvicorn.protocols.utils")
    if utils is None or type(protocol).__module__ != "uvicorn.protocols.websockets.websockets_sansio_impl":
        return
    if not getattr(protocol, "handshake_complete", True) and getattr(protocol, "initial_response", None):
        raise utils.ClientDisconnected
