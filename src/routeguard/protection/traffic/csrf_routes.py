"""`GET /auth/csrf`: a token for clients that want, or must, send one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.policy import public
from routeguard.foundation.web import routes
from routeguard.foundation.web.reply import reply
from routeguard.protection.traffic.csrf import CsrfTokens
from routeguard.protection.traffic.operations import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from routeguard.core.services import Services


def csrf_routes(services: Services, *, path: str = "/auth/csrf") -> Sequence[Route]:
    """Return the route that answers ``{"csrf_token": ...}``, to guests too.

    Foreign pages may ask, but not read: the answer carries no CORS leave. It is never cached, for it is one caller's.
    """
    tokens = services.get(CsrfTokens)

    async def csrf_token(request: Request) -> Response:
        response = reply({"csrf_token": await tokens.issue(request.scope[SCOPE_KEY])})
        response.headers["cache-control"] = "private, no-store"
        return response

    return [
        routes.get(path, csrf_token, public & operation(services, "csrf-token", show_remaining=True, on_outage="local"))
    ]
