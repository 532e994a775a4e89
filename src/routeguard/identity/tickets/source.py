"""A ticket in the subprotocols of a handshake as a source of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from routeguard.core.security_log import note

if TYPE_CHECKING:
    from routeguard.core.credentials import Credential
    from routeguard.core.exchange import Exchange
    from routeguard.identity.sessions.models import UserSession
    from routeguard.identity.tickets.service import Tickets


class TicketSessions:
    """Sessions of tickets."""

    def __init__(self, tickets: Tickets[Any]) -> None:
        self._tickets = tickets

    async def resume(self, exchange: Exchange, credential: Credential) -> UserSession[Any] | None:
        """Return the live session, or None. Raises Unavailable when that cannot be told."""
        # A mount and its route may both ask, and it is one handshake: the ticket is spent by the first.
        key = (TicketSessions, credential.value, exchange.request.path)
        if key not in exchange.memo:
            exchange.memo[key] = await self._tickets.redeem(credential.value, exchange.request.path)
        session: UserSession[Any] | None = exchange.memo[key]
        if session is None:
            note("ticket-refused", exchange)
        return session
