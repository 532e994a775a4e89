"""Issues and redeems tickets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from routeguard.core.secret import digest, new_token
from routeguard.foundation.ephemeral.protocol import hash_tag
from routeguard.identity.sessions.by_id import proof_time

if TYPE_CHECKING:
    from routeguard.foundation.ephemeral.protocol import Ephemeral
    from routeguard.identity.sessions.by_id import SessionsById
    from routeguard.identity.sessions.models import UserSession

U = TypeVar("U")

LIFE: Final = 30
"""Seconds from the issue of a ticket to the handshake."""


class _Ticket(msgspec.Struct, array_like=True):
    user_id: str
    session_id: str
    proven_at: float
    path: str


_DECODER: Final = msgspec.msgpack.Decoder(_Ticket)


class Tickets(Generic[U]):
    """Tickets are random, kept as a hash for `LIFE` seconds, and each opens one socket at one path."""

    def __init__(self, store: Ephemeral, sessions: SessionsById[U]) -> None:
        self._store = store
        self._sessions = sessions

    async def issue(self, session: UserSession[Any], path: str) -> str:
        """Return a ticket for the WebSocket at `path`. Raises Unavailable."""
        ticket = new_token()
        kept = _Ticket(session.user.id, session.id, proof_time(session), path)
        await self._store.put(_key(ticket.encode()), msgspec.msgpack.encode(kept), ttl=LIFE)
        return ticket

    async def redeem(self, ticket: bytes, path: str) -> UserSession[U] | None:
        """Return the live session a ticket was issued to, and spend it. None: unknown, spent, or of another path.

        Raises Unavailable when that cannot be told.
        """
        key = _key(ticket)
        kept = await self._store.get(key)
        # Of several handshakes at once the one whose delete removed the key is served: deciding is one command.
        if kept is None or not await self._store.delete(key, expected=kept):
            return None
        found = _DECODER.decode(kept)
        if found.path != path:
            return None
        return await self._sessions.find(found.user_id, found.session_id, proven_at=found.proven_at)


def _key(ticket: bytes) -> str:
    return hash_tag(f"ticket:{digest(ticket).hex()}")
