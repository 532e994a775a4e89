"""What sessions contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from routeguard.core.clock import Clock, SteadyClock
from routeguard.core.cookies import CookieScheme
from routeguard.core.endings import Ending
from routeguard.core.feature import Feature
from routeguard.core.secret import DeploymentKeys
from routeguard.core.security_log import AccountPseudonyms
from routeguard.core.setup import Place
from routeguard.foundation.db.database import Database
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.foundation.invalidation.service import Invalidations
from routeguard.foundation.invalidation.store import invalidations
from routeguard.identity.sessions import store
from routeguard.identity.sessions.by_id import SessionsById
from routeguard.identity.sessions.checks import NARROWING, PROVIDED, session_scheme
from routeguard.identity.sessions.cookies import SessionCookie
from routeguard.identity.sessions.envelope import EnvelopeCodec
from routeguard.identity.sessions.invalidation import invalidations_of
from routeguard.identity.sessions.models import (
    SessionEnded,
    SessionResolver,
    SessionSettings,
    SessionStarted,
    UserSession,
)
from routeguard.identity.sessions.pending import FAMILY, PendingSignIns
from routeguard.identity.sessions.problems import PROBLEMS
from routeguard.identity.sessions.resolver import CookieSessions
from routeguard.identity.sessions.routes import routes
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.sessions.sign_in import SignIn, SignInParts
from routeguard.identity.sessions.sources import SessionSources
from routeguard.identity.users.models import UserChange
from routeguard.identity.users.one_time import OneTimeTokens
from routeguard.identity.users.service import Users
from routeguard.identity.users.verification import EmailVerification
from routeguard.protection.traffic.sign_in_throttle import SignInThrottle
from routeguard.protection.traffic.site import site_of

if TYPE_CHECKING:
    from routeguard.core.services import Services
    from routeguard.core.setup import Setup
    from routeguard.protection.traffic.models import ThrottleSettings


def set_up(setup: Setup[SessionSettings]) -> None:
    """Wire sessions over the database and the users registered before them."""
    services, own = setup.services, setup.settings
    database, users = services.get(Database), services.get(Users)
    clock = services.add(SteadyClock, SteadyClock(services.get(Clock)))
    feed = invalidations_of(database, clock=clock, settings=own)
    services.add(Invalidations, feed, start=feed.start, close=feed.close)
    cookie = SessionCookie(services.get(CookieScheme))
    cookies: CookieSessions[Any] = CookieSessions(
        database,
        users.reader,
        clock=clock,
        codec=EnvelopeCodec(services.get(DeploymentKeys)),
        cookie=cookie,
        settings=own,
        invalidations=feed,
    )
    services.add(CookieSessions, cookies)
    by_id: SessionsById[Any] = SessionsById(database, users.reader, clock=clock, settings=own, invalidations=feed)
    services.add(SessionsById, by_id)
    sources = services.add(SessionSources, SessionSources(cookies))
    services.add(SessionResolver, sources)
    setup.own(Place.CREDENTIAL, sources.add)
    setup.own(Place.COOKIE_CREDENTIAL, sources.add_token_cookies)
    sessions = Sessions(
        database,
        users.reader,
        clock=clock,
        settings=own,
        invalidations=feed,
        cookies=cookies,
        site=site_of(services),
    )
    services.add(Sessions, sessions)
    setup.own(Place.LINKED_CREDENTIAL, sessions.link)
    setup.watch(UserSession, sessions)
    setup.describe(session_scheme(cookie.name), narrowing=NARROWING)
    setup.within(UserChange, sessions.on_user_change)
    sign_in = services.add(SignIn, _sign_in(services, sessions, setup.deployment.throttle))
    setup.own(Place.SIGN_IN_STEP, sign_in.add_step)
    setup.purpose(FAMILY, ends_with=Ending)


def _sign_in(services: Services, sessions: Sessions[Any], throttle: ThrottleSettings) -> SignIn[Any]:
    pending = PendingSignIns(services.get(OneTimeTokens))
    # Signed out everywhere is no change of the user, and leaves no sign-in half way either.
    sessions.after_revoke_all(pending.void)
    parts = SignInParts(
        database=services.get(Database),
        sessions=sessions,
        pending=pending,
        throttle=_throttle(services, throttle),
        verification=services.get(EmailVerification),
        site=site_of(services),
        pseudonyms=AccountPseudonyms(services.get(DeploymentKeys)),
    )
    return SignIn(parts)


def _throttle(services: Services, settings: ThrottleSettings) -> SignInThrottle:
    """Return what counts guesses, made here over the ephemeral store unless another one was registered."""
    found = services.find(SignInThrottle)
    if found is not None:
        return found
    store = services.find(Ephemeral)
    # Not `or`: an empty store in memory is false, and the counts would stand in a second one that nothing else sees.
    return services.add(SignInThrottle, SignInThrottle(MemoryEphemeral() if store is None else store, settings))


feature: Final = Feature(
    name="sessions",
    requires=("users",),
    provides=(PROVIDED,),
    settings=SessionSettings,
    setup=set_up,
    routes=routes,
    tables=(store.sessions, invalidations),
    problems=PROBLEMS,
    events=(SessionStarted, SessionEnded),
)
