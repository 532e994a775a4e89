"""What is wrong with settings, or unsafe in production: the whole list at once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin, get_type_hints

from routeguard.core.address import FORWARDED, X_FORWARDED_FOR, parse_networks
from routeguard.core.errors import ConfigError
from routeguard.core.ports import PORT_RANGE
from routeguard.core.redaction import quoted
from routeguard.core.secret import MINIMUM_SECRET_BYTES
from routeguard.foundation.db.urls import is_temporary, url_finding
from routeguard.foundation.ephemeral.factory import open_ephemeral
from routeguard.foundation.mail.addresses import parse_sender
from routeguard.foundation.mail.queue import mailer_for
from routeguard.protection.traffic.origins import parse_origins, read_origins
from routeguard.settings.cookies import unsafe_cookies, unusable_cookies
from routeguard.settings.reader import NOT_SET

if TYPE_CHECKING:
    from routeguard.core.address import Network
    from routeguard.core.secret import Secret
    from routeguard.settings.tree import Settings

ROOT_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+", re.ASCII)
"""One spelling for each: no escapes, no dot segments."""
_WELL_KNOWN: Final = ("secret", "changeme", "change-me", "password", "development", "insecure", "default", "example")
_LISTENING: Final = re.compile(r"https?://(0\.0\.0\.0|\[::\])(?=[:/]|$)", re.ASCII)
_COOKIE: Final = re.compile(r"(?=.{1,40}\Z)[A-Za-z0-9](?:[A-Za-z0-9._-]|\{port\})*", re.ASCII)
_RANDOM_TEXT: Final = "`python -c 'import secrets; print(secrets.token_urlsafe(48))'`"
_PLACEHOLDERS: Final = frozenset({"USER", "PASSWORD", "..."})


def wrong_types(settings: Settings) -> dict[str, list[str]]:
    """Return what an argument should have been, by the top-level field it is in."""
    hints = get_type_hints(type(settings))
    names = [item.name for item in fields(settings) if item.name not in NOT_SET]
    found = {name: _type_findings(name, getattr(settings, name), hints[name]) for name in names}
    # Whatever a branch was declared as, its own annotations say what its values are.
    found |= {name: _type_findings(name, branch, type(branch)) for name, branch in settings.own.items()}
    return {name: findings for name, findings in found.items() if findings}


def named(findings: Iterable[str], settings: Settings) -> set[str]:
    """Return the settings that these findings begin with."""
    words = {finding.split(maxsplit=1)[0].rstrip(":") for finding in findings}
    known = {item.name for item in fields(settings)} | settings.own.keys()
    return {word for word in words if re.split(r"[.\[]", word)[0] in known}


def malformed(settings: Settings) -> list[str]:
    """Return what cannot be used in any environment."""
    found: list[str] = []
    wrong = _origin_findings(parse_origins, [settings.issuer.removesuffix("/")])
    if any(PORT_RANGE in finding for finding in wrong):
        found.append(f"issuer {quoted(settings.issuer)}: {PORT_RANGE}")
    elif wrong:
        found.append(
            f"issuer {quoted(settings.issuer)} must be an origin such as https://id.example.com, written as browsers "
            "send it: in lower case, without a path or the scheme's own port"
        )
    elif _LISTENING.match(settings.issuer):
        found.append(
            f"issuer {quoted(settings.issuer)} is an address to listen on, which browsers do not open: that is for "
            "--host, and the issuer is what they open, such as http://127.0.0.1:8000"
        )
    if settings.root_path and not ROOT_PATH.fullmatch(settings.root_path):
        found.append(f"root_path {settings.root_path!r} must be plain segments such as /api, with no slash at the end")
    if not _COOKIE.fullmatch(settings.cookie_name):
        found.append(
            f"cookie_name {settings.cookie_name!r} must be up to 40 letters, digits, '-', '_', '.' and {{port}}; the "
            "prefix __Host- or __Secure- is added to it where browsers take it"
        )
    found += unusable_cookies(settings)
    if settings.environment not in {"", "production", "development", "test"}:
        found.append("environment must be 'production', 'development' or 'test'")
    if settings.testing and not settings.issuer_is_local:
        # Attack OPS-11: a switch for tests that has come along into a deployment.
        found.append(
            f"environment 'test' lets overrides say who is calling, so the issuer has to be on this machine, such as "
            f"http://127.0.0.1:8000 or https://app.localhost, and not {quoted(settings.issuer)}"
        )
    # A list of origins, not of hosts: `http` and `https` of one host are two (attack CSRF-06).
    found += [f"trusted {finding}" for finding in _origin_findings(read_origins, settings.trusted_origins)]
    found += [f"cors_origins: {finding}" for finding in _origin_findings(read_origins, settings.cors_origins)]
    if parse_sender(settings.mail.sender) is None:
        found.append("mail.sender must be an address such as 'Example <no-reply@example.com>'")
    found += _proxies(settings)
    for name, secret in _secrets(settings):
        if len(secret) < MINIMUM_SECRET_BYTES:
            found.append(f"{name} must have at least {MINIMUM_SECRET_BYTES} bytes: {_RANDOM_TEXT} prints a good one")
    return [*found, *_unusable_urls(settings)]


def lost_cookies(settings: Settings) -> list[str]:
    """Return what keeps browsers from keeping our cookies in development.

    A cookie that is Secure is dropped when it comes over http from another machine (RFC 6265bis section 5.7, step 8),
    and one that is not would let everybody in that network read it, so there is none: signing in would do nothing.
    """
    if not settings.issuer.startswith("http://"):
        return []
    finding = (
        f"issuer {quoted(settings.issuer)} is http and not this machine, so browsers would drop the session cookie and "
        "no user stay signed in: use https (a tunnel, a proxy, or TLS in your server), or http on a name of this "
        "machine such as localhost or app.localhost, with the port forwarded to the other device "
        "(docs/how-to/open-on-another-device.md)"
    )
    return [finding]


def _proxies(settings: Settings) -> list[str]:
    found: list[str] = []
    try:
        parse_networks(settings.trusted_proxies)
    except ConfigError as error:
        found += [f"trusted_proxies: {finding}" for finding in error.findings]
    if settings.trusted_proxy_header.lower() not in {X_FORWARDED_FOR.lower(), FORWARDED.lower()}:
        # A field of one value, such as X-Real-IP, does not say whether the proxy or the client wrote it.
        found.append(f"trusted_proxy_header must be {X_FORWARDED_FOR} or {FORWARDED}, whichever your proxies write")
    return found


def _unusable_urls(settings: Settings) -> list[str]:
    """Return what is wrong with the places records, counters and mail go to, installed extras included."""
    found = [finding] if (finding := url_finding(settings.database_url)) else []
    if settings.ephemeral_url != "memory://":
        try:
            open_ephemeral(settings.ephemeral_url)
        except ConfigError as error:
            found += [f"ephemeral_url: {finding}" for finding in error.findings]
    try:
        mailer_for(settings.mail)
    except ConfigError as error:
        found += error.findings
    return found


def _origin_findings(read: Callable[[list[str]], object], origins: Iterable[str]) -> tuple[str, ...]:
    try:
        read(list(origins))
    except ConfigError as error:
        return error.findings
    return ()


def _secrets(settings: Settings) -> list[tuple[str, Secret]]:
    own = [] if settings.secret is None else [("secret", settings.secret)]
    return own + [(f"older_secrets[{place}]", one) for place, one in enumerate(settings.older_secrets)]


def unsafe(settings: Settings) -> list[str]:
    """Return what production must not run with."""
    found: list[str] = []
    if settings.secret is None:
        found.append(f"secret is missing: set ROUTEGUARD_SECRET to 32 or more random bytes, as {_RANDOM_TEXT} prints")
    for name, secret in _secrets(settings):
        text = secret.reveal().decode("utf-8", "replace").lower()
        # Attack JWT-30, OPS-11: defaults and keyboard patterns are the first keys anybody tries.
        if len(set(text)) < 12 or any(text.startswith(word) or text.endswith(word) for word in _WELL_KNOWN):
            found.append(f"{name} looks like a default or has too little variety")
    with contextlib.suppress(ConfigError):  # What cannot be read is a finding of `malformed`.
        if _hold_every_address(parse_networks(settings.trusted_proxies)):
            # Every client would be a proxy, and name its own address (attack RL-01).
            found.append("trusted_proxies holds every address: name those of your proxies")
    urls = {
        "database_url": settings.database_url,
        "ephemeral_url": settings.ephemeral_url,
        "mail.url": settings.mail.url,
    }
    found += [
        f"{name} holds a placeholder such as PASSWORD: put your own user and password there"
        for name, url in urls.items()
        if _has_placeholder(url)
    ]
    if settings.sessions.poll > settings.sessions.trust:
        found.append("sessions.poll is longer than sessions.trust: between two answers none would be trusted")
    if not settings.issuer.startswith("https://"):
        found.append("issuer must be https in production (to try it out, set ROUTEGUARD_ENVIRONMENT=development)")
    return [*found, *unsafe_cookies(settings)]


def unsafe_identity(settings: Settings) -> list[str]:
    """Return what the identity service must not run with in production."""
    found: list[str] = []
    if is_temporary(settings.database_url):
        found.append("database_url keeps everything in memory: users would be lost at each restart")
    if (
        settings.database_url.startswith("postgresql")
        and settings.ephemeral_url.startswith("memory")
        and not settings.unsafe_memory_in_production
    ):
        # Two processes would take one signature each, and count each limit twice.
        found.append(
            "ephemeral_url keeps limits, claims and used signatures in the memory of one process: set "
            "ROUTEGUARD_EPHEMERAL_URL to valkey://... (or unsafe_memory_in_production, for one process and never two)"
        )
    if settings.mail.url.startswith("console"):
        found.append("mail.url prints mails with sign-in links on the console; set ROUTEGUARD_MAIL_URL to smtp://...")
    return found


def _has_placeholder(url: str) -> bool:
    """Whether the user or password in `url` was copied from an example (attack OPS-11)."""
    user_info, at, _ = url.partition("://")[2].rpartition("@")
    return bool(at) and not _PLACEHOLDERS.isdisjoint(user_info.split(":"))


def _type_findings(name: str, value: Any, hint: Any) -> list[str]:
    """Return what is wrong with the type of one value, or of the values in one branch."""
    if not _fits(value, hint):
        return [f"{name} must be {_words(hint)}, not {type(value).__name__}"]
    found: list[str] = []
    if is_dataclass(value):
        hints = get_type_hints(type(value))
        for item in fields(value):
            found += _type_findings(f"{name}.{item.name}", getattr(value, item.name), hints[item.name])
    return found


def _fits(value: Any, hint: Any) -> bool:
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple | list) and all(_fits(one, arguments[0]) for one in value)
    if arguments:
        return any(_fits(value, option) for option in arguments)
    # True is an int to Python, and no number to anybody else.
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _words(hint: Any) -> str:
    options = [option for option in get_args(hint) if option is not type(None)]
    if get_origin(hint) is tuple:
        return f"a list of {options[0].__name__}"
    return " or ".join(getattr(option, "__name__", str(option)) for option in options or [hint])


def _hold_every_address(networks: Iterable[Network]) -> bool:
    """Whether all of IPv4 or IPv6 is in them together: `0.0.0.0/1` and `128.0.0.0/1` are what `0.0.0.0/0` is."""
    v4 = collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
    v6 = collapse_addresses(network for network in networks if isinstance(network, IPv6Network))
    return any(network.prefixlen == 0 for network in v4) or any(network.prefixlen == 0 for network in v6)
