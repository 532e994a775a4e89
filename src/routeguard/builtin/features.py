"""The features that are built in, and the list that an application runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from routeguard.assembly import collected
from routeguard.builtin.api import session_of
from routeguard.core.address import parse_networks
from routeguard.core.clock import Clock
from routeguard.core.cookies import CookieScheme
from routeguard.core.errors import ConfigError
from routeguard.core.feature import Feature
from routeguard.core.features import arranged, distinct, over
from routeguard.core.secret import DeploymentKeys, Secret
from routeguard.identity.sessions.checks import NARROWING, PROVIDED
from routeguard.identity.sessions.identify import ResolvedSessions, Resolver
from routeguard.identity.sessions.models import SessionResolver
from routeguard.protection.traffic.csrf import CsrfTokens
from routeguard.protection.traffic.site import Site
from routeguard.remote.models import ClientTls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from routeguard.core.setup import Setup
    from routeguard.settings import Settings

__all__ = ["COMMANDS", "ClientTls", "Resolver", "chosen", "defaults", "remote_feature", "whole"]

COMMANDS: Final = frozenset({"client", "config", "dev", "key", "migrate", "serve", "user"})
"""The commands of `routeguard` that no feature may have."""


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
    from routeguard.identity.api_keys.feature import feature as api_keys  # noqa: PLC0415 - the identity extra
    from routeguard.identity.emails.feature import feature as emails  # noqa: PLC0415 - the identity extra
    from routeguard.identity.oauth_server.feature import feature as oauth_server  # noqa: PLC0415 - the identity extra
    from routeguard.identity.passwords.feature import feature as passwords  # noqa: PLC0415 - the identity extra
    from routeguard.identity.sessions.feature import feature as sessions  # noqa: PLC0415 - the identity extra
    from routeguard.identity.tickets.feature import feature as tickets  # noqa: PLC0415 - the identity extra
    from routeguard.identity.tokens.feature import feature as tokens  # noqa: PLC0415 - the identity extra
    from routeguard.identity.ui.feature import feature as ui  # noqa: PLC0415 - the identity extra
    from routeguard.identity.users.feature import feature as users  # noqa: PLC0415 - the identity extra
    from routeguard.protection.traffic.feature import feature as traffic  # noqa: PLC0415 - the identity extra

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


def chosen(
    features: Sequence[Feature] | None, identify: Resolver | None, listed: Sequence[Feature], findings: list[str]
) -> list[Feature]:
    """Return the features of an application, in the order they are set up.

    `listed` are those that its settings add. Whatever they claim twice is added to `findings`, and they are returned
    as they stand, so that it is told together with what is wrong with the settings.
    """
    if features is None:
        features = [] if identify is not None else defaults()
    every = distinct([*features, *listed])
    with collected(findings):
        if identify is not None:
            _check_identify(identify, features)
        return arranged(every, commands=COMMANDS)
    return every


def whole(features: Sequence[Feature], identify: Resolver | None) -> list[Feature]:
    """Return the features, with those that every application has."""
    own = [] if identify is None else [_identified(identify)]
    return arranged([_PLACE, *features, *own, _FORGERY])


def _check_identify(identify: Any, features: Sequence[Feature]) -> None:
    """Raise ConfigError for what cannot go together, before a feature misses what another one would have brought."""
    if not callable(identify):
        raise ConfigError(f"identify={identify!r} is no function: it takes the request and returns the caller or None")
    beside = [feature.name for name in ("sessions", "remote") for feature in over(features, name)]
    if beside:
        raise ConfigError(
            "identify= takes the place of our sessions, and features= has them: leave one of the two out, or give "
            f"features=[...] without {', '.join(beside)}"
        )


def _identified(identify: Resolver) -> Feature:
    """Return the feature that puts the application's own sign-in in the place of ours."""

    def set_up(setup: Setup) -> None:
        user = setup.user_class
        own = None if user.__module__.startswith("routeguard.") else user
        resolved = ResolvedSessions(identify, own)
        setup.services.add(SessionResolver, resolved, start=resolved.start)
        # What `identify` reads is the application's own affair, and not known.
        setup.describe(narrowing=NARROWING)

    return Feature(name="identify", setup=set_up, provides=(PROVIDED,), records=False)


def _set_up_place(setup: Setup) -> None:
    settings = setup.deployment
    proxies, header = parse_networks(settings.trusted_proxies), settings.trusted_proxy_header
    site = Site(https=settings.secure_cookies, trusted_proxies=proxies, trusted_proxy_header=header)
    setup.services.add(Site, site)


def _set_up_forgery(setup: Setup) -> None:
    services, settings = setup.services, setup.deployment
    resolver = services.find(SessionResolver)
    tokens = CsrfTokens(
        services.get(DeploymentKeys),
        origins=settings.origins,
        clock=services.get(Clock),
        cookies=services.get(CookieScheme),
        resume=session_of(services) if resolver is not None else None,
        presents=getattr(resolver, "presents_cookie", None),
    )
    services.add(CsrfTokens, tokens)


_PLACE: Final = Feature(name="place", setup=_set_up_place, records=False)
"""Where the application runs: set up before all others."""
_FORGERY: Final = Feature(name="forgery", setup=_set_up_forgery, records=False)
"""What CSRF checks compare with: set up once it is known where sessions come from."""
