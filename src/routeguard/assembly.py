"""Which features run by default, and how settings become services."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from routeguard.adapters.overrides import Overridable, Overrides
from routeguard.api_keys.checks import ApiKeyAllowed, ApiKeyRequired
from routeguard.api_keys.checks import api_key as key_policy
from routeguard.api_keys.models import ApiKey, KeyVerifier
from routeguard.core.address import parse_networks
from routeguard.core.changes import Changes
from routeguard.core.clock import Clock, SystemClock
from routeguard.core.cookies import CookieScheme
from routeguard.core.errors import ConfigError, ServiceMissing
from routeguard.core.features import over
from routeguard.core.overrides import IdentityOverrides, resumed
from routeguard.core.policy import Policy, public
from routeguard.core.principal import Standing, Standings
from routeguard.core.secret import DeploymentKeys, Secret
from routeguard.core.services import Services
from routeguard.core.setup import Place, Plugs, Setup
from routeguard.ephemeral.factory import EphemeralCheck, open_ephemeral
from routeguard.ephemeral.memory import MemoryEphemeral
from routeguard.ephemeral.one_process import OneProcess
from routeguard.ephemeral.protocol import Ephemeral
from routeguard.guard.guard import Ask, Guard
from routeguard.sessions import checks
from routeguard.sessions.forgery import is_ambient, open_across_sites
from routeguard.sessions.identify import ResolvedSessions
from routeguard.sessions.models import SessionResolver, UserSession
from routeguard.sessions.sources import SessionSources
from routeguard.settings import Settings, keep_development_secret
from routeguard.settings.cookies import cookie_warnings
from routeguard.traffic.cors import preflight
from routeguard.traffic.csrf import CsrfTokens, with_csrf
from routeguard.traffic.site import Site
from routeguard.users.reader import UserCodec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from routeguard.adapters.openapi_security import Credentials
    from routeguard.core.exchange import Exchange
    from routeguard.core.feature import Feature
    from routeguard.db.outbox import Outbox
    from routeguard.remote.models import ClientTls
    from routeguard.sessions.identify import Resolver

logger = logging.getLogger("routeguard")

_SIGNATURE: Final = {
    "type": "apiKey",
    "in": "header",
    "name": "Signature",
    "description": "A signature by a registered client (RFC 9421), with Signature-Input and Content-Digest.",
}


def defaults() -> list[Feature]:
    """Return the built-in features in the order they are registered. Add your own: ``[*defaults(), mine]``.

    Raises ConfigError without the identity extra.
    """
    try:
        return _built_in()
    except ModuleNotFoundError as error:
        if (error.name or "routeguard").partition(".")[0] == "routeguard":
            raise
        raise ConfigError(
            f'the identity service needs `pip install "routeguard[identity]"` ({error.name} is missing);'
            " with Routeguard(identify=...) it does not run"
        ) from None


def _built_in() -> list[Feature]:
    from routeguard.api_keys.feature import feature as api_keys  # noqa: PLC0415 - the identity extra
    from routeguard.emails.feature import feature as emails  # noqa: PLC0415 - the identity extra
    from routeguard.oauth_server.feature import feature as oauth_server  # noqa: PLC0415 - the identity extra
    from routeguard.passwords.feature import feature as passwords  # noqa: PLC0415 - the identity extra
    from routeguard.sessions.feature import feature as sessions  # noqa: PLC0415 - the identity extra
    from routeguard.tickets.feature import feature as tickets  # noqa: PLC0415 - the identity extra
    from routeguard.tokens.feature import feature as tokens  # noqa: PLC0415 - the identity extra
    from routeguard.traffic.feature import feature as traffic  # noqa: PLC0415 - the identity extra
    from routeguard.ui.feature import feature as ui  # noqa: PLC0415 - the identity extra
    from routeguard.users.feature import feature as users  # noqa: PLC0415 - the identity extra

    return [traffic, users, sessions, tokens, tickets, passwords, emails, api_keys, oauth_server, ui]


def remote_feature(
    settings: Settings, client: tuple[str, str, str], user: type[Any], audience: str | None, tls: ClientTls | None
) -> tuple[Feature, Settings]:
    """Return the feature of `Routeguard.remote`, and settings with a secret. `client` is URL, id and secret.

    An app that was given no secret of its own makes one of the client's, the same in all its processes, so that
    their CSRF tokens agree. Raises ConfigError without the remote extra.
    """
    url, client_id, secret = client
    try:
        from routeguard.remote.feature import Remote, remote  # noqa: PLC0415 - the remote extra
    except ModuleNotFoundError as error:
        if (error.name or "routeguard").partition(".")[0] == "routeguard":
            raise
        raise ConfigError(
            f'Routeguard.remote needs `pip install "routeguard[remote]"` ({error.name} is missing)'
        ) from None
    if settings.secret is None:
        settings = replace(settings, secret=Secret(Secret(secret).derive("remote-app").hex()))
    return remote(Remote(url, client_id, Secret(secret), user, audience, tls)), settings


def checked_settings(settings: Settings | None, features: Sequence[Feature], user: type[Any]) -> Settings:
    """Return the settings to run with: those given, or those of the environment and pyproject.toml.

    Raises ConfigError with everything that is wrong: with what cannot be read, with the values, with the user class.
    """
    given, findings = (settings, []) if settings is not None else Settings.read()
    identity = any(feature.records for feature in features)
    findings += given.findings(identity=identity, cookies=bool(features))
    if identity:
        with _collected(findings):
            UserCodec(user)
        from routeguard.db.branches import branches_of  # noqa: PLC0415 - the identity extra

        with _collected(findings):
            branches_of(features)
    if findings:
        raise ConfigError(findings)
    return given


@contextmanager
def _collected(findings: list[str]) -> Iterator[None]:
    """Add the findings of a ConfigError to those of others, so that all are told at once."""
    try:
        yield
    except ConfigError as error:
        findings += error.findings


def check_identify(identify: Any, features: Sequence[Feature]) -> None:
    """Raise ConfigError for what cannot go together, before a feature misses what another one would have brought."""
    if not callable(identify):
        raise ConfigError(f"identify={identify!r} is no function: it takes the request and returns the caller or None")
    beside = [feature.name for name in ("sessions", "remote") for feature in over(features, name)]
    if beside:
        raise ConfigError(
            "identify= takes the place of our sessions, and features= has them: leave one of the two out, or give "
            f"features=[...] without {', '.join(beside)}"
        )


def assemble(
    settings: Settings, features: Sequence[Feature], *, user: type[Any], identify: Resolver | None,
    overrides: Overrides | None = None,
) -> Services:  # fmt: skip
    """Make every service, without I/O. `overrides` are those of test mode. Raises ConfigError."""
    if settings.secret is None:
        settings = replace(settings, secret=keep_development_secret(Path.cwd()))
    services = Services()
    services.add(Settings, settings)
    services.add(Clock, SystemClock())
    if overrides is not None:
        services.add(IdentityOverrides, overrides, start=overrides.start)
    assert settings.secret is not None
    services.add(DeploymentKeys, DeploymentKeys(settings.issuer, settings.secret, settings.older_secrets))
    proxies = parse_networks(settings.trusted_proxies)
    ephemeral = open_ephemeral(settings.ephemeral_url)
    if not isinstance(ephemeral, MemoryEphemeral):
        services.require_asyncio("the store of ephemeral_url")
    services.add(Ephemeral, ephemeral, start=ephemeral.start, close=ephemeral.close)
    if isinstance(ephemeral, MemoryEphemeral):
        one = OneProcess(f"{settings.issuer} {settings.database_url} {Path.cwd()}")
        services.add(OneProcess, one, close=one.close)
    check = EphemeralCheck(ephemeral)
    services.add(EphemeralCheck, check, start=check.start)
    services.add(CookieScheme, settings.cookie_scheme)
    header = settings.trusted_proxy_header
    services.add(Site, Site(https=settings.secure_cookies, trusted_proxies=proxies, trusted_proxy_header=header))
    services.add(Changes, Changes())
    standings = services.add(Standings, Standings())
    plugs = Plugs()
    if any(feature.records for feature in features):
        services.require_asyncio("the identity service")
        _identity(services, settings, features, plugs)
    _set_up(services, plugs, features, user)
    if identify is not None:
        _add_identify(services, identify, user)
    if standings:
        services.add(Standing, standings)
    _csrf(services, settings)
    return services


def warn_at_start(services: Services) -> None:
    """Warn, where this process is about to serve, of what the cookies' settings cost.

    Also that another process counts in its own memory too.
    """
    for warning in cookie_warnings(services.get(Settings)):
        logger.warning("%s", warning)
    one = services.find(OneProcess)
    if one is not None:
        one.look()


def _listening(outbox: Outbox) -> Callable[..., None]:
    def listen(event: type[Any], listener: Callable[[Any], Awaitable[None]], name: str | None) -> None:
        outbox.on(event, listener, name=name)

    return listen


def _set_up(services: Services, plugs: Plugs, features: Sequence[Feature], user: type[Any]) -> None:
    """Let every feature register its services and plug them in. Raises ConfigError with the findings of all."""
    findings: list[str] = []
    settings = services.get(Settings)
    for feature in features:
        if feature.setup is None:
            continue
        setup: Setup[Any] = Setup(feature.name, plugs, services=services, deployment=settings, user_class=user)
        try:
            feature.setup(setup)
        except ServiceMissing as error:
            # After another's fault this one only follows from it.
            findings += [] if findings else error.findings
        except ConfigError as error:
            findings += error.findings
    # After another's fault, what nobody takes only follows from it.
    if not findings:
        findings += plugs.hand_over([feature.name for feature in features])
    if findings:
        raise ConfigError(findings)


def assemble_again(
    first: Services, features: Sequence[Feature], *, user: type[Any], identify: Resolver | None
) -> Services:
    """Make every service once more, for another event loop at the same time: over the same database and secret.

    What `memory://` holds is not shared, as between processes.
    """
    settings = first.get(Settings)
    if any(feature.records for feature in features):
        from routeguard.db.database import Database  # noqa: PLC0415 - the identity extra

        settings = replace(settings, database_url=first.get(Database).url)
    overrides = first.find(IdentityOverrides)
    assert overrides is None or isinstance(overrides, Overrides)
    return assemble(settings, features, user=user, identify=identify, overrides=overrides)


def overridable(guard: Any) -> list[Overridable]:
    """Return the values of a `Routeguard` that tests may override to say who is calling: the first one counts."""
    return [
        Overridable(guard.current_session, (UserSession,)),
        Overridable(guard.current_session_or_none, (UserSession,), guest=True),
        Overridable(guard.current, (UserSession, ApiKey)),
        Overridable(guard.current_key, (ApiKey,)),
    ]


def asks(guard: Any) -> list[Ask]:
    """Return the values of a `Routeguard` that a handler can take, and the policy that each of them requires."""
    return [
        Ask(guard.current_session, checks.session(), _provides_session),
        Ask(guard.current, checks.session(), _provides_principal),
        Ask(guard.current_key, key_policy(), _provides_key),
    ]


def _provides_session(policy: Policy) -> bool:
    return any(policy.find(checks.SessionRequired))


def _provides_principal(policy: Policy) -> bool:
    return policy != public and bool(policy.checks)


def _provides_key(policy: Policy) -> bool:
    return any(policy.find(ApiKeyRequired))


def session_of(services: Services) -> Callable[[Exchange], Awaitable[UserSession[Any] | None]]:
    """Return what finds the session of any request, as its policies would. Raises ConfigError without sessions."""
    return resumed(services, UserSession, services.get(SessionResolver).resume)


def guard_over(services: Services, features: Sequence[Feature], *, sign_in: str) -> Guard:
    """Return what compiles policies against services. `sign_in` is the path of the page, where there are pages."""
    settings = services.get(Settings)
    guard = Guard(services, augment=_with_csrf, preflight=preflight, body_limit=settings.body_limit)
    guard.root = settings.root_path
    guard.asks_for_session = checks.asks_for_session
    if settings.cookies.cross_site:
        guard.objections = open_across_sites
    if any(feature.name == "ui" for feature in features):
        guard.sign_in = sign_in
    return guard


def _with_csrf(policy: Policy, _kind: Literal["http", "websocket"]) -> Policy:
    """Add the forgery check wherever a session cookie may be the credential: on by default, for sockets too."""
    return with_csrf(policy) if is_ambient(policy) else policy


def credentials_of(services: Services) -> Credentials:
    """Return what our checks read, as security schemes of OpenAPI."""
    from routeguard.adapters.openapi_security import Credentials  # noqa: PLC0415 - with FastAPI only

    settings, resolver = services.get(Settings), services.find(SessionResolver)
    schemes: dict[str, dict[str, Any]] = {}
    required: dict[type[Any], tuple[str, ...]] = {}
    # What `identify` reads is the application's own affair, and not known.
    if not isinstance(resolver, ResolvedSessions | None):
        schemes["session"] = {"type": "apiKey", "in": "cookie", "name": settings.cookie_scheme.name()}
        required[checks.SessionRequired] = ("session",)
        if isinstance(resolver, SessionSources) and resolver.takes("token"):
            schemes["bearer"] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            required[checks.SessionRequired] = ("session", "bearer")
    if services.find(KeyVerifier) is not None:
        schemes["apiKey"] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
        # Of its own: an access token in the same field does not open what asks for a key, nor the other way round.
        schemes["apiKeyBearer"] = {"type": "http", "scheme": "bearer", "bearerFormat": "API key"}
        required[ApiKeyRequired] = ("apiKey", "apiKeyBearer")
    # Loaded with its feature: without that, no policy asks for a signature.
    if (signed := sys.modules.get("routeguard.oauth_server.checks")) is not None:
        schemes["signature"] = dict(_SIGNATURE)
        required[signed.SignedClient] = ("signature",)
    return Credentials(
        schemes=schemes,
        required=required,
        optional={checks.OptionalSession: required[checks.SessionRequired]} if "session" in schemes else {},
        narrowing=(checks.SessionAllowed, checks.Fresh, ApiKeyAllowed),
        exclusive=frozenset({"bearer", "apiKey", "apiKeyBearer"}),
        on_demand=frozenset({"signature"}),
    )


def _identity(services: Services, settings: Settings, features: Sequence[Feature], plugs: Plugs) -> None:
    """Add what records are kept in and how mail leaves."""
    from routeguard.db.branches import branches_of  # noqa: PLC0415 - the identity extra
    from routeguard.db.database import Database  # noqa: PLC0415 - the identity extra
    from routeguard.db.migrate import SchemaCheck  # noqa: PLC0415 - the identity extra
    from routeguard.db.outbox import Outbox  # noqa: PLC0415 - the identity extra
    from routeguard.mail.queue import MailQueue, mailer_for  # noqa: PLC0415 - the identity extra
    from routeguard.web.health import Readiness  # noqa: PLC0415 - the identity extra

    clock = services.get(Clock)
    branches = branches_of(features)
    tables = [table for branch in branches for table in branch.tables]
    database = Database(settings.database_url, clock=clock, settings=settings.database, tables=tables)
    services.add(Database, database, close=database.close)
    ephemeral = services.get(Ephemeral)
    # A write: a server that was demoted, or has no room, answers a look and nothing else.
    writes = partial(ephemeral.put, "{routeguard}:ready", b"", ttl=60.0)
    readiness = Readiness(database.ping, writes)
    services.add(Readiness, readiness)
    plugs.own(Place.READINESS, readiness.require)
    check = SchemaCheck(database, branches)
    services.add(SchemaCheck, check, start=check.start)
    outbox = Outbox(database, services.get(DeploymentKeys), clock=clock)
    services.add(Outbox, outbox, start=outbox.start, close=outbox.close)
    outbox.declare(*(event for feature in features for event in feature.events))
    plugs.own(Place.LISTENER, _listening(outbox))
    services.add(MailQueue, MailQueue(outbox, mailer_for(settings.mail)))


def _add_identify(services: Services, identify: Resolver, user: type[Any]) -> None:
    """Put the application's own sign-in in the place of ours."""
    own = None if user.__module__.startswith("routeguard.") else user
    resolved = ResolvedSessions(identify, own)
    services.add(SessionResolver, resolved, start=resolved.start)


def _csrf(services: Services, settings: Settings) -> None:
    resolver = services.find(SessionResolver)
    tokens = CsrfTokens(
        services.get(DeploymentKeys), origins=settings.origins,
        clock=services.get(Clock),
        cookies=services.get(CookieScheme),
        resume=session_of(services) if resolver is not None else None,
        presents=getattr(resolver, "presents_cookie", None),
    )  # fmt: skip
    services.add(CsrfTokens, tokens)
