"""What other services ask over HTTP. Each call is signed; nothing here is for browsers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from routeguard.core.address import parse_address
from routeguard.core.clock import Clock
from routeguard.core.problem import VALIDATION_FAILED
from routeguard.foundation.db.database import Database
from routeguard.foundation.invalidation.store import read_invalidations
from routeguard.foundation.web.body import read
from routeguard.foundation.web.reply import reply
from routeguard.foundation.web.routes import get, post
from routeguard.identity.oauth_server.checks import signed_client
from routeguard.identity.oauth_server.introspection import Introspection
from routeguard.identity.oauth_server.models import ClientSettings
from routeguard.protection.traffic.body_limit import body_limit
from routeguard.protection.traffic.callers import ByPrincipal
from routeguard.protection.traffic.rate_limit import rate_limit

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from routeguard.core.policy import Policy
    from routeguard.core.services import Services

_BODY: Final = 32 * 1024
_LONGEST_WINDOW: Final = 3600.0
"""Seconds; about as long as invalidations are kept."""
_NEWEST: Final = 2**63 - 1
_PAGE: Final = 20_000
"""Invalidations in one answer: about 2 MB. A mass revocation must not make a feed too long to read (attack SES-18)."""
_CLIENT: Final = ByPrincipal("client", "cli_")


@dataclass(frozen=True, slots=True)
class IntrospectionRequest:
    """The body of `POST /oauth/introspect` (RFC 7662 section 2.1)."""

    token: str
    token_type_hint: str = ""
    """Accepted and not needed: the form of a credential says what it is."""
    address: str | None = None
    """Who sent the credential to the service that asks."""


def routes(services: Services) -> list[Route]:
    """Return the endpoints over the registered services."""
    endpoints = _Endpoints(services)
    rate = services.get(ClientSettings).rate

    def called(name: str) -> Policy:
        # Clients are few and known, and without the store of nonces no call gets this far: counted here meanwhile.
        limit = rate_limit(rate, by=_CLIENT, name=name, remaining=False, on_outage="local")
        return signed_client() & body_limit(_BODY) & limit

    return [
        post("/oauth/introspect", endpoints.introspect, called("introspect")),
        get("/oauth/invalidations", endpoints.invalidations, called("invalidations")),
    ]


class _Endpoints:
    def __init__(self, services: Services) -> None:
        self._introspection = services.get(Introspection)
        self._database = services.get(Database)
        self._clock: Clock = services.get(Clock)

    async def introspect(self, request: Request) -> Response:
        asked = await read(request, IntrospectionRequest, limit=_BODY)
        address = None if asked.address is None else parse_address(asked.address)
        if asked.address is not None and address is None:
            # Left out, a key bound to networks would be judged by none.
            raise _invalid("address", "This is not an IP address.").error()
        return reply(await self._introspection.introspect(asked.token, address=address))

    async def invalidations(self, request: Request) -> Response:
        after = _number(request, "after", _NEWEST)
        window = _number(request, "window", int(_LONGEST_WINDOW)) or 0
        # Without `after` only the window counts: a new reader needs no more than the age of its cache.
        rows = await read_invalidations(
            self._database,
            window=float(window),
            after_id=_NEWEST if after is None else after,
            beyond=_number(request, "beyond", _NEWEST) or 0,
            limit=_PAGE + 1,
        )
        return reply({"rows": rows[:_PAGE], "more": len(rows) > _PAGE, "now": self._clock.time()})


def _number(request: Request, name: str, most: int) -> int | None:
    """Return a query parameter that is a whole number up to `most`; None when it was not sent. Raises ProblemError."""
    values = request.query_params.getlist(name)
    if not values:
        return None
    text = values[0]
    if len(values) > 1 or not (text.isascii() and text.isdigit()) or len(text) > len(str(most)) or int(text) > most:
        raise _invalid(name, f"This is not a whole number from 0 to {most}.").error()
    return int(text)


def _invalid(name: str, detail: str) -> Any:
    return VALIDATION_FAILED(errors=[{"pointer": f"/{name}", "detail": detail}])
