"""What tokens contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from routeguard.core.clock import SteadyClock
from routeguard.core.cookies import CookieScheme
from routeguard.core.feature import Feature
from routeguard.core.secret import DeploymentKeys
from routeguard.foundation.db.database import Database
from routeguard.foundation.invalidation.service import Invalidations
from routeguard.identity.sessions.by_id import SessionsById
from routeguard.identity.sessions.checks import BEARER_SCHEME
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.tokens import store
from routeguard.identity.tokens.access import AccessTokens
from routeguard.identity.tokens.ambient import CookieTokens
from routeguard.identity.tokens.bearer import BearerSessions, TokensOfSessions
from routeguard.identity.tokens.budget import RenewalBudget
from routeguard.identity.tokens.cookies import TokenCookies
from routeguard.identity.tokens.families import Lives, RefreshFamilies
from routeguard.identity.tokens.keys import SigningKeys
from routeguard.identity.tokens.models import RefreshTokenReused, TokenSettings
from routeguard.identity.tokens.problems import PROBLEMS
from routeguard.identity.tokens.refresh import RefreshCodec
from routeguard.identity.tokens.routes import routes
from routeguard.identity.tokens.service import Tokens
from routeguard.identity.users.store import UserReader
from routeguard.protection.traffic.site import site_of

if TYPE_CHECKING:
    from routeguard.core.setup import Setup


def set_up(setup: Setup[TokenSettings]) -> None:
    """Wire tokens over the database and the sessions registered before them."""
    services, settings = setup.services, setup.deployment
    clock, skew = services.get(SteadyClock), settings.sessions.skew.total_seconds()
    keys = SigningKeys(
        services.get(Database),
        services.get(DeploymentKeys),
        clock=clock,
        settings=setup.settings,
        feed=services.get(Invalidations),
        skew=skew,
    )
    services.add(SigningKeys, keys, start=keys.start, close=keys.close)
    setup.ready(keys.ready)
    access = AccessTokens(keys, clock=clock, settings=setup.settings, issuer=settings.issuer, skew=skew)
    services.add(AccessTokens, access)
    setup.describe(BEARER_SCHEME)
    setup.credential("token", BearerSessions(TokensOfSessions(access, services.get(SessionsById)).find))
    _set_up_refresh(setup, access)


def _set_up_refresh(setup: Setup[TokenSettings], access: AccessTokens) -> None:
    """Wire refresh families, and the cookies of tokens as one more place where a session may come from."""
    services, settings = setup.services, setup.deployment
    clock, sessions = services.get(SteadyClock), services.get(Sessions)
    families: RefreshFamilies[Any] = RefreshFamilies(
        services.get(Database),
        services.get(UserReader),
        sessions=sessions,
        codec=RefreshCodec(services.get(DeploymentKeys)),
        clock=clock,
        lives=Lives.of(setup.settings, settings.sessions),
        site=site_of(services),
    )
    services.add(RefreshFamilies, families)
    tokens: Tokens[Any] = Tokens(families, access, clock=clock, settings=setup.settings)
    services.add(Tokens, tokens)
    cookies = services.add(TokenCookies, TokenCookies(services.get(CookieScheme)))
    ambient: CookieTokens[Any] = CookieTokens(
        cookies,
        tokens,
        families,
        access=access,
        by_id=services.get(SessionsById),
        sessions=sessions,
        clock=clock,
        settings=setup.settings,
        admit=RenewalBudget(services),
    )
    services.add(CookieTokens, ambient)
    setup.cookie_credential(ambient)
    setup.linked_credential(ambient)


feature: Final = Feature(
    name="tokens",
    requires=("sessions",),
    settings=TokenSettings,
    setup=set_up,
    routes=routes,
    tables=(store.signing_keys, store.refresh_families),
    problems=PROBLEMS,
    events=(RefreshTokenReused,),
)
