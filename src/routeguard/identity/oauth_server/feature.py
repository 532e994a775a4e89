"""What the identity service offers to other services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.clock import SteadyClock
from routeguard.core.cookies import CookieScheme
from routeguard.core.feature import Feature
from routeguard.foundation.db.database import Database
from routeguard.foundation.invalidation.service import Invalidations
from routeguard.identity.api_keys.models import KeyVerifier
from routeguard.identity.oauth_server import store
from routeguard.identity.oauth_server.checks import SIGNATURE_SCHEME, SignedCalls, authorities
from routeguard.identity.oauth_server.introspection import Introspection
from routeguard.identity.oauth_server.models import ClientSettings
from routeguard.identity.oauth_server.routes import routes
from routeguard.identity.oauth_server.service import Clients
from routeguard.identity.sessions.resolver import CookieSessions
from routeguard.identity.sessions.sources import SessionSources
from routeguard.identity.tokens.access import AccessTokens

if TYPE_CHECKING:
    from routeguard.core.setup import Setup


def set_up(setup: Setup) -> None:
    """Wire clients and introspection over the sessions, tokens and keys registered before them."""
    services, settings = setup.services, setup.deployment
    own: ClientSettings = services.add(ClientSettings, settings.clients)
    clock, feed = services.get(SteadyClock), services.get(Invalidations)
    clients = Clients(services.get(Database), clock=clock, invalidations=feed)
    services.add(Clients, clients, start=clients.start)
    # On loopback a machine has several names, which are one service. Trusted origins are other applications.
    names = [one for one in settings.origins if one not in settings.trusted_origins]
    hosts = authorities(settings.issuer, (*own.addresses, *names))
    setup.describe(SIGNATURE_SCHEME)
    services.add(SignedCalls, SignedCalls(hosts, own.skew.total_seconds(), begun=int(clock.time())))
    cookie = services.get(CookieScheme).name()
    introspection = Introspection(
        services.get(SessionSources),
        services.get(CookieSessions),
        cookie_name=cookie,
        access=services.find(AccessTokens),
        keys=services.find(KeyVerifier),
    )
    services.add(Introspection, introspection)


feature: Final = Feature(
    name="oauth_server", requires=("sessions",), setup=set_up, routes=routes, tables=(store.clients,)
)
