"""Tickets over HTTP, under /auth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from routeguard.foundation.web.body import read
from routeguard.foundation.web.reply import reply
from routeguard.foundation.web.routes import post
from routeguard.identity.sessions import checks
from routeguard.identity.sessions.routes import session_of
from routeguard.identity.tickets.service import LIFE, Tickets
from routeguard.identity.users.problems import invalid
from routeguard.protection.traffic.operations import operation

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from routeguard.core.services import Services

_LONGEST: Final = 2048


def routes(services: Services) -> list[Route]:
    """Return the endpoint over the registered `Tickets`."""
    endpoints = _Endpoints(services.get(Tickets))
    return [
        post(
            "/auth/ticket",
            endpoints.issue,
            checks.session() & operation(services, "ticket", show_remaining=True, on_outage="local"),
        )
    ]


@dataclass(frozen=True, slots=True)
class _Issue:
    path: str = field(default="")


class _Endpoints:
    def __init__(self, tickets: Tickets[Any]) -> None:
        self._tickets = tickets

    async def issue(self, request: Request) -> Response:
        wanted = await read(request, _Issue)
        # As a page's `new URL(...).pathname` says it; servers hand paths on decoded.
        path = unquote(wanted.path)
        if not path.startswith("/") or len(wanted.path) > _LONGEST or "?" in wanted.path or "#" in wanted.path:
            raise invalid("path", "must be the path of a WebSocket, from its first slash and without a query").error()
        ticket = await self._tickets.issue(session_of(request), path)
        response = reply({"ticket": ticket, "expires_in": LIFE}, 201)
        response.headers["cache-control"] = "no-store"
        return response
