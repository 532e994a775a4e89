"""Subprotocols of a WebSocket handshake that carry a credential: hidden from handlers, and never sent back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from routeguard.core.credentials import CREDENTIAL_SUBPROTOCOLS, SUBPROTOCOL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

_CARRIERS: Final = tuple(name.decode() for name in CREDENTIAL_SUBPROTOCOLS)


def hide_credentials(scope: MutableMapping[str, Any]) -> None:
    """Take credentials out of `scope["subprotocols"]`: a handler that selects the first one offered echoes none."""
    offered = scope.get("subprotocols")
    if offered and any(name.startswith(_CARRIERS) for name in offered):
        scope["subprotocols"] = [name for name in offered if not name.startswith(_CARRIERS)]


def subprotocol(scope: Mapping[str, Any], selected: str | None) -> str | None:
    """Return the subprotocol to accept with: what the handler selected, else ours where the client offered it.

    A browser that offered names ends the connection when the server selects none (Fetch and WebSockets standards). A
    credential is never sent back, wherever a handler found it (attack WS-04).
    """
    if selected is not None and not _carries(selected):
        return selected
    return SUBPROTOCOL if SUBPROTOCOL in (scope.get("subprotocols") or ()) else None


def without_credentials(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an accepted handshake but for a subprotocol that a handler selected by hand."""
    return [pair for pair in headers if pair[0].lower() != b"sec-websocket-protocol"]


def _carries(selected: str) -> bool:
    """Whether a selection holds a credential: one name, or the whole field as the client sent it."""
    return any(name.strip().startswith(_CARRIERS) for name in selected.split(","))
