"""What tokens contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from routeguard.core.clock import SteadyClock
from routeguard.core.cookies import CookieScheme
from routeguard.core.feature import Feature
from routeguard.core.secret import DeploymentKeys
from routeguard.db.database import Database
from routeguard.invalidation.service import Invalidations
from routeguard.sessions.by_id import SessionsById
from routeguard.sessions.checks import BEARER_SCHEME
from routeguard.sessions.service import Sessions
from routeguard.tokens import store
from routeguard.tokens.access import AccessTokens
from routeguard.tokens.ambient import CookieTokens
from routeguard.tokens.bearer import BearerSessions, TokensOfSessions
from routeguard.tokens.budget import RenewalBudget
from routeguard.tokens.cookies import TokenCookies
from routeguard.tokens.families import Lives, RefreshFamilies
from routeguard.tokens.keys import SigningKeys
from routeguard.tokens.models import RefreshTokenReused, TokenSettings
from routeguard.tokens.problems import PROBLEMS
from routeguard.tokens.refresh import RefreshCodec
from routeguard.tokens.routes import routes
from routeguard.tokens.service import Tokens
from routeguard.traffic.site import site_of
from routeguard.users.store import UserReader

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
