"""How settings and features become services. It names no feature: which of them are built in, `builtin` says."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routeguard.core.changes import Changes
from routeguard.core.clock import Clock, SystemClock
from routeguard.core.cookies import CookieScheme
from routeguard.core.errors import ConfigError, ServiceMissing
from routeguard.core.overrides import IdentityOverrides
from routeguard.core.principal import PrincipalWatcher, PrincipalWatchers
from routeguard.core.refusal import SignInPage
from routeguard.core.secret import DeploymentKeys
from routeguard.core.security_schemes import SecuritySchemes
from routeguard.core.services import Services
from routeguard.core.setup import Place, Plugs, Setup
from routeguard.foundation.ephemeral.factory import EphemeralCheck, open_ephemeral
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.one_process import OneProcess
from routeguard.foundation.ephemeral.protocol import Ephemeral
from routeguard.protection.adapters.overrides import Overrides
from routeguard.protection.guard.guard import Guard
from routeguard.settings import Settings, keep_development_secret
from routeguard.settings.branches import branches, listed, misplaced
from routeguard.settings.cookies import cookie_warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from routeguard.core.feature import Feature
    from routeguard.foundation.db.outbox import Outbox
    from routeguard.protection.adapters.security import Credentials

logger = logging.getLogger("routeguard")


def read_settings(settings: Settings | None, features: Sequence[Feature]) -> tuple[Settings, list[Feature], list[str]]:
    """Return the settings given, or those of the environment and pyproject.toml; the features they list; findings.

    `features` are those that the application passes.
    """
    if not isinstance(settings, Settings | None):
        kind = type(settings).__name__
        raise ConfigError(f"Routeguard() takes Settings and not {kind}: write Routeguard(Settings(issuer=...))")
    findings: list[str] = []
    if settings is None:
        settings, findings = Settings.read(beside=features)
    found, unlisted = listed(settings.features)
    return settings, found, [*findings, *unlisted]


def check_settings(given: Settings, findings: list[str], features: Sequence[Feature], user: type[Any]) -> None:
    """Raise ConfigError with everything that is wrong: `findings`, the values, their clashes, and the user class."""
    identity = any(feature.records for feature in features)
    findings += given.findings(identity=identity, cookies=bool(features))
    for feature in features:
        if feature.verify is not None:
            findings += feature.verify(given, user)
    if identity:
        from routeguard.foundation.db.branches import branches_of  # noqa: PLC0415 - the identity extra

        with collected(findings):
            branches_of(features)
    own, unfit = branches(features, Settings)
    findings += [*unfit, *misplaced(given.own, own)]
    if findings:
        raise ConfigError(list(dict.fromkeys(findings)))


@contextmanager
def collected(findings: list[str]) -> Iterator[None]:
    """Add the findings of a ConfigError to those of others, so that all are told at once."""
    try:
        yield
    except ConfigError as error:
        findings += error.findings


def assemble(
    settings: Settings,
    features: Sequence[Feature],
    *,
    user: type[Any],
    overrides: Overrides | None = None,
) -> Services:
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
    services.add(Changes, Changes())
    services.add(SecuritySchemes, SecuritySchemes())
    watchers = services.add(PrincipalWatchers, PrincipalWatchers())
    plugs = Plugs()
    if any(feature.records for feature in features):
        services.require_asyncio("the identity service")
        _identity(services, settings, features, plugs)
    _set_up(services, plugs, features, user)
    if watchers:
        services.add(PrincipalWatcher, watchers)
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
        setup: Setup[Any] = Setup(
            feature.name,
            plugs,
            settings=settings.of(feature),
            services=services,
            deployment=settings,
            user_class=user,
        )
        try:
            feature.setup(setup)
        except ServiceMissing as error:
            # After another's fault this one only follows from it.
            findings += [] if findings else error.findings
        except ConfigError as error:
            findings += error.findings
    # After another's fault, what no feature takes only follows from it.
    if not findings:
        findings += plugs.hand_over([feature.name for feature in features])
        findings += services.get(Changes).unknown(kind for feature in features for kind in feature.changes)
    if findings:
        raise ConfigError(findings)


def assemble_again(first: Services, features: Sequence[Feature], *, user: type[Any]) -> Services:
    """Make every service once more, for another event loop at the same time: over the same database and secret.

    What `memory://` holds is not shared, as between processes.
    """
    settings = first.get(Settings)
    if any(feature.records for feature in features):
        from routeguard.foundation.db.database import Database  # noqa: PLC0415 - the identity extra

        settings = replace(settings, database_url=first.get(Database).url)
    overrides = first.find(IdentityOverrides)
    assert overrides is None or isinstance(overrides, Overrides)
    return assemble(settings, features, user=user, overrides=overrides)


def guard_over(services: Services) -> Guard:
    """Return what compiles policies against services."""
    settings, page = services.get(Settings), services.find(SignInPage)
    guard = Guard(services, body_limit=settings.body_limit)
    guard.root = settings.root_path
    if page is not None:
        guard.sign_in = page.path
    return guard


def credentials_of(services: Services) -> Credentials:
    """Return what the checks read, as security schemes of OpenAPI."""
    from routeguard.protection.adapters.security import Credentials  # noqa: PLC0415 - with FastAPI only

    known = services.get(SecuritySchemes)
    required: dict[type[Any], tuple[str, ...]] = {}
    optional: dict[type[Any], tuple[str, ...]] = {}
    for scheme in known:
        for names, kinds in ((required, scheme.required_by), (optional, scheme.read_by)):
            for kind in kinds:
                names[kind] = (*names.get(kind, ()), scheme.name)
    return Credentials(
        schemes={scheme.name: dict(scheme.description) for scheme in known},
        required=required,
        optional=optional,
        narrowing=known.narrowing,
        exclusive=frozenset(scheme.name for scheme in known if scheme.exclusive),
        on_demand=frozenset(scheme.name for scheme in known if scheme.on_demand),
    )


def _identity(services: Services, settings: Settings, features: Sequence[Feature], plugs: Plugs) -> None:
    """Add what records are kept in and how mail leaves."""
    from routeguard.foundation.db.branches import branches_of  # noqa: PLC0415 - the identity extra
    from routeguard.foundation.db.database import Database  # noqa: PLC0415 - the identity extra
    from routeguard.foundation.db.migrate import SchemaCheck  # noqa: PLC0415 - the identity extra
    from routeguard.foundation.db.outbox import Outbox  # noqa: PLC0415 - the identity extra
    from routeguard.foundation.mail.queue import MailQueue, mailer_for  # noqa: PLC0415 - the identity extra
    from routeguard.foundation.web.health import Readiness  # noqa: PLC0415 - the identity extra

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
