"""A ticket in the subprotocols of a handshake as a source of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from routeguard.core.credentials import credential_of
from routeguard.core.security_log import note
from routeguard.traffic.csrf import came_by_header

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.sessions.models import UserSession
    from routeguard.sessions.sources import Source
    from routeguard.tickets.service import Tickets


class TicketSessions:
    """Sessions of tickets; other credentials in header fields are left to `others`."""

    def __init__(self, tickets: Tickets[Any], others: Source | None) -> None:
        self._tickets = tickets
        self._others = others

    def presents(self, exchange: Exchange) -> bool:
        """Return whether a ticket or another credential was sent. Raises ProblemError 400 for two credentials."""
        found = credential_of(exchange.request)
        if found is not None and found.kind == "ticket":
            return True
        return self._others is not None and self._others.presents(exchange)

    async def resume(self, exchange: Exchange) -> UserSession[Any] | None:
        """Return the live session, or None. Raises Unavailable when that cannot be told."""
        found = credential_of(exchange.request)
        if found is None or found.kind != "ticket":
            return None if self._others is None else await self._others.resume(exchange)
        # A mount and its route may both ask, and it is one handshake: the ticket is spent by the first.
        key = (TicketSessions, found.value, exchange.request.path)
        if key not in exchange.spent:
            exchange.spent[key] = await self._tickets.redeem(found.value, exchange.request.path)
        session: UserSession[Any] | None = exchange.spent[key]
        if session is None:
            note("ticket-refused", exchange)
        else:
            came_by_header(exchange, session)
        return session
