"""What tokens contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from routeguard.core.clock import SteadyClock
from routeguard.core.feature import Feature
from routeguard.core.secret import DeploymentKeys
from routeguard.db.database import Database
from routeguard.invalidation.service import Invalidations
from routeguard.sessions.by_id import SessionsById
from routeguard.sessions.service import Sessions
from routeguard.sessions.sources import SessionSources
from routeguard.tokens import store
from routeguard.tokens.access import AccessTokens
from routeguard.tokens.ambient import CookieTokens
from routeguard.tokens.bearer import BearerSessions, TokensOfSessions
from routeguard.tokens.budget import RenewalBudget
from routeguard.tokens.cookies import TokenCookies
from routeguard.tokens.families import Lives, RefreshFamilies
from routeguard.tokens.keys import SigningKeys
from routeguard.tokens.models import RefreshTokenReused
from routeguard.tokens.problems import PROBLEMS
from routeguard.tokens.refresh import RefreshCodec
from routeguard.tokens.routes import routes
from routeguard.tokens.service import Tokens
from routeguard.traffic.site import site_of
from routeguard.users.store import UserReader
from routeguard.web.health import Readiness

if TYPE_CHECKING:
    from routeguard.core.services import Services


def register(services: Services, settings: Any) -> None:
    """Wire tokens over the database and the sessions registered before them."""
    clock, skew = services.get(SteadyClock), settings.sessions.skew.total_seconds()
    keys = SigningKeys(
        services.get(Database), services.get(DeploymentKeys), clock=clock, settings=settings.tokens,
        feed=services.get(Invalidations), skew=skew,
    )  # fmt: skip
    services.add(SigningKeys, keys, start=keys.start, close=keys.close)
    services.get(Readiness).require(keys.ready)
    access = AccessTokens(keys, clock=clock, settings=settings.tokens, issuer=settings.issuer, skew=skew)
    services.add(AccessTokens, access)
    bearer = BearerSessions(TokensOfSessions(access, services.get(SessionsById)).find)
    services.get(SessionSources).add("token", bearer)
    _register_refresh(services, settings, access)


def _register_refresh(services: Services, settings: Any, access: AccessTokens) -> None:
    """Wire refresh families, and the cookies of tokens as one more place where a session may come from."""
    clock, sessions = services.get(SteadyClock), services.get(Sessions)
    families: RefreshFamilies[Any] = RefreshFamilies(
        services.get(Database), services.get(UserReader), sessions=sessions,
        codec=RefreshCodec(services.get(DeploymentKeys)), clock=clock,
        lives=Lives.of(settings.tokens, settings.sessions), site=site_of(services),
    )  # fmt: skip
    services.add(RefreshFamilies, families)
    tokens: Tokens[Any] = Tokens(families, access, clock=clock, settings=settings.tokens)
    services.add(Tokens, tokens)
    cookies = services.add(TokenCookies, TokenCookies(settings.secure_cookies, settings.cookie_base))
    ambient: CookieTokens[Any] = CookieTokens(
        cookies, tokens, families, access=access, by_id=services.get(SessionsById), sessions=sessions, clock=clock,
        settings=settings.tokens, admit=RenewalBudget(services),
    )  # fmt: skip
    services.add(CookieTokens, ambient)
    services.get(SessionSources).add_token_cookies(ambient)
    sessions.companions.append(ambient)


feature: Final = Feature(
    name="tokens",
    register=register,
    routes=routes,
    tables=(store.signing_keys, store.refresh_families),
    problems=PROBLEMS,
    events=(RefreshTokenReused,),
)
