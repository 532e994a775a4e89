"""What tickets contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from routeguard.core.feature import Feature
from routeguard.ephemeral.protocol import Ephemeral
from routeguard.sessions.by_id import SessionsById
from routeguard.sessions.sources import SessionSources
from routeguard.tickets.routes import routes
from routeguard.tickets.service import Tickets
from routeguard.tickets.source import TicketSessions

if TYPE_CHECKING:
    from routeguard.core.services import Services


def register(services: Services, settings: Any) -> None:  # noqa: ARG001 - the seam's shape
    """Register `Tickets`, and take them as a credential beside access tokens."""
    store = services.get(Ephemeral)
    tickets = services.add(Tickets, Tickets(store, services.get(SessionsById)))
    services.get(SessionSources).add("ticket", TicketSessions(tickets))


feature: Final = Feature(name="tickets", register=register, routes=routes)
