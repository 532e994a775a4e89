"""What tickets contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.feature import Feature
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.identity.sessions.by_id import SessionsById
from routeguard.identity.tickets.routes import routes
from routeguard.identity.tickets.service import Tickets
from routeguard.identity.tickets.source import TicketSessions

if TYPE_CHECKING:
    from routeguard.core.setup import Setup


def set_up(setup: Setup) -> None:
    """Register `Tickets`, and take them as a credential beside access tokens."""
    services = setup.services
    store = services.get(Ephemeral)
    tickets = services.add(Tickets, Tickets(store, services.get(SessionsById)))
    setup.credential("ticket", TicketSessions(tickets))


feature: Final = Feature(name="tickets", requires=("sessions",), setup=set_up, routes=routes)
