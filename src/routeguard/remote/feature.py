"""What stands in an app in place of the identity service's own slices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from routeguard.core.clock import Clock, SteadyClock
from routeguard.core.cookies import CookieScheme
from routeguard.core.feature import Feature
from routeguard.core.setup import Place
from routeguard.foundation.invalidation.feed import OVERLAP, Feed
from routeguard.identity.api_keys.checks import NARROWING, PROVIDED, SCHEMES
from routeguard.identity.api_keys.models import ApiKey, KeyVerifier
from routeguard.identity.sessions.checks import BEARER_SCHEME, session_scheme
from routeguard.identity.sessions.checks import NARROWING as SESSION_NARROWING
from routeguard.identity.sessions.checks import PROVIDED as SESSION_PROVIDED
from routeguard.identity.sessions.models import SessionResolver, UserSession
from routeguard.identity.sessions.sources import SessionSources
from routeguard.identity.tokens.access import AccessTokens
from routeguard.identity.tokens.bearer import BearerSessions
from routeguard.identity.tokens.cookies import TokenCookies
from routeguard.identity.tokens.models import TokenSettings
from routeguard.remote.answers import Answers
from routeguard.remote.api_keys import RemoteKeyVerifier, Verdict
from routeguard.remote.feed import LONGEST_WINDOW, RemoteFeed
from routeguard.remote.introspection import Introspector
from routeguard.remote.keys import RemoteKeys
from routeguard.remote.sessions import (
    ExpectedToken,
    OfflinePolicy,
    RemoteCookies,
    RemoteSessions,
    RemoteTokenCookies,
    TokenSessions,
)
from routeguard.remote.transport import Transport
from routeguard.remote.users import RemoteUsers
from routeguard.remote.watcher import RemotePrincipalWatcher

if TYPE_CHECKING:
    from routeguard.core.secret import Secret
    from routeguard.core.services import Services
    from routeguard.core.setup import Setup
    from routeguard.remote.models import ClientTls


class Remote(NamedTuple):
    """Which service, as whom, and for which users."""

    url: str
    client_id: str
    secret: Secret
    user: type[Any]
    audience: str | None = None
    tls: ClientTls | None = None


def remote(where: Remote) -> Feature:
    """Return the feature that guards an app by another service's word. It keeps no records of its own."""
    return Feature(name="remote", setup=partial(_set_up, where), provides=(SESSION_PROVIDED, PROVIDED), records=False)


def _set_up(where: Remote, setup: Setup) -> None:
    services, settings = setup.services, setup.deployment
    services.require_asyncio("Routeguard.remote")
    clock = services.add(SteadyClock, SteadyClock(services.get(Clock)))
    transport = Transport(
        where.url, where.client_id, where.secret.reveal().decode(), clock=clock, settings=settings.remote, tls=where.tls
    )
    services.add(Transport, transport, start=transport.start, close=transport.close)
    # Whatever a token was issued before has to be remembered for as long as the token lives (attack SES-18).
    keep = min((settings.tokens.access + settings.sessions.skew).total_seconds(), LONGEST_WINDOW - OVERLAP)
    feed = RemoteFeed(
        transport,
        clock=clock,
        keep=keep,
        poll=settings.sessions.poll.total_seconds(),
        trust=settings.sessions.trust.total_seconds(),
    )
    # The keys listen to the feed before it begins to speak.
    keys = RemoteKeys(transport, clock=clock, feed=feed)
    services.add(Feed, feed, start=feed.start, close=feed.close)
    services.add(RemoteKeys, keys, start=keys.start, close=keys.close)
    introspector = Introspector(transport, timeout=settings.remote.timeout.total_seconds())
    services.add(Introspector, introspector, start=introspector.start)
    _sessions(setup, where)
    _api_keys(services, settings)
    watcher = RemotePrincipalWatcher(feed, clock=clock, silence=settings.remote.offline.total_seconds())
    setup.watch(UserSession, watcher)
    setup.watch(ApiKey, watcher)


def _sessions(setup: Setup, where: Remote) -> None:
    """Wire the places where a session may come from, in the order of the service's own."""
    services, settings = setup.services, setup.deployment
    clock, feed, keys = services.get(SteadyClock), services.get(Feed), services.get(RemoteKeys)
    skew = settings.sessions.skew.total_seconds()
    answers: Answers[UserSession[Any] | None] = Answers(
        clock=clock, feed=feed, life=settings.sessions.envelope_life.total_seconds()
    )
    services.add(Answers, answers, close=answers.close)
    users: RemoteUsers[Any] = RemoteUsers(where.user)
    issuer = settings.remote.issuer or services.get(Transport).url
    found = RemoteSessions(
        services.get(Introspector), users, answers=answers, expected=ExpectedToken(where.audience or issuer, issuer)
    )
    tokens = AccessTokens(
        keys,
        clock=clock,
        settings=TokenSettings(audience=where.audience or ""),
        issuer=issuer,
        skew=skew,
    )
    by_token = TokenSessions(
        tokens,
        keys,
        users,
        sessions=found,
        feed=feed,
        clock=clock,
        policy=OfflinePolicy(feed.keep - skew, settings.remote.offline.total_seconds()),
    )
    scheme = services.get(CookieScheme)
    sources = SessionSources(RemoteCookies(found, name=scheme.name(), user_class=where.user))
    cookies = TokenCookies(scheme)
    services.add(SessionResolver, sources)
    setup.describe(session_scheme(scheme.name()), BEARER_SCHEME, *SCHEMES, narrowing=(*SESSION_NARROWING, *NARROWING))
    setup.own(Place.CREDENTIAL, sources.add)
    setup.own(Place.COOKIE_CREDENTIAL, sources.add_token_cookies)
    setup.credential("token", BearerSessions(by_token.find))
    setup.cookie_credential(RemoteTokenCookies(by_token, cookies))


def _api_keys(services: Services, settings: Any) -> None:
    answers: Answers[Verdict] = Answers(
        clock=services.get(SteadyClock), feed=services.get(Feed), life=settings.sessions.envelope_life.total_seconds()
    )
    verifier = RemoteKeyVerifier(services.get(Introspector), answers=answers)
    services.add(KeyVerifier, verifier, close=answers.close)
