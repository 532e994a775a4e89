"""Ends what a connection still sends once its principal is signed out or revoked: sockets, and streamed responses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from routeguard.core.decision import ALLOW
from routeguard.core.overrides import is_overridden
from routeguard.core.principal import PrincipalWatcher
from routeguard.core.problem import authentication_required

if TYPE_CHECKING:
    from routeguard.core.principal import Principal
    from routeguard.protection.guard.asgi import Connection


class StreamEnded(OSError):
    """A response was ended because its principal was signed out or revoked."""


def is_event_stream(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a response is a stream of server-sent events (HTML standard, section 9.2)."""
    for name, value in headers:
        if name == b"content-type":
            return value.startswith(b"text/event-stream")
    return False


def watch_stream(connection: Connection) -> None:
    """End a response that goes on for longer when its principal ends, unless its policy lets it finish."""
    if connection.ends_with_principal and connection.decision is ALLOW and connection.guard.mode == "enforce":
        watch_principal(connection)


def watch_principal(connection: Connection) -> None:
    """Wait in the background until the principal of a connection ends, and end the connection then (attack WS-05).

    Once a connection; nothing is done where no watcher is registered, or for one that a test gave.
    """
    watcher = connection.guard.services.find(PrincipalWatcher)
    if watcher is None or connection.principal is None or connection.watcher is not None:
        return
    if not is_overridden(connection):
        connection.watcher = asyncio.create_task(_end_after(connection, watcher, connection.principal))


async def _end_after(connection: Connection, watcher: PrincipalWatcher, principal: Principal) -> None:
    await watcher.wait_until_revoked(principal)
    if connection.request.kind == "http":
        await _end_stream(connection)
    elif connection.accepted or not connection.started:
        # Whatever the handler still sends is dropped.
        connection.refusal = authentication_required("the principal of an open socket ended")
        connection.log(connection.refusal, "", "closed")
        await connection.close(1008)


async def _end_stream(connection: Connection) -> None:
    """Let no more of a response out. An event stream ends as if its handler had; anything else is cut off.

    A download must not look complete: its next part raises, and the server closes the connection without the last
    chunk. An event stream has no last event, and its client connects again and is refused.
    """
    connection.stream_ended = True
    connection.log(authentication_required("the principal of an open stream ended"), "", "closed")
    if connection.is_event_stream:
        await connection.write({"type": "http.response.body", "body": b"", "more_body": False})
