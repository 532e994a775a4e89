"""What is wrong with settings, or unsafe in production: the whole list at once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from routeguard.core.address import FORWARDED, X_FORWARDED_FOR, parse_networks
from routeguard.core.errors import ConfigError
from routeguard.core.secret import MINIMUM_SECRET_BYTES
from routeguard.mail.addresses import parse_sender
from routeguard.traffic.origins import parse_origins

if TYPE_CHECKING:
    from routeguard.settings.tree import Settings

_WELL_KNOWN: Final = ("secret", "changeme", "change-me", "password", "development", "insecure", "default", "example")
_PLACEHOLDERS: Final = frozenset({"USER", "PASSWORD", "..."})


def malformed(settings: Settings) -> list[str]:
    """Return what cannot be used in any environment."""
    found: list[str] = []
    parts = urlsplit(settings.issuer)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"} or parts.query:
        found.append(f"issuer {settings.issuer!r} must be an origin such as https://id.example.com")
    if settings.environment not in {"", "production", "development"}:
        found.append("environment must be 'production' or 'development'")
    for origin in settings.trusted_origins:
        parts = urlsplit(origin)
        # A list of origins, not of hosts: `http` and `https` of one host are two (attack CSRF-06).
        if f"{parts.scheme}://{parts.netloc}" != origin or parts.scheme not in {"http", "https"} or "*" in origin:
            found.append(f"trusted origin {origin!r} must be scheme://host[:port], written exactly as browsers send it")
    try:
        parse_origins(settings.cors_origins)
    except ConfigError as error:
        found += [f"cors_origins: {finding}" for finding in error.findings]
    if parse_sender(settings.mail.sender) is None:
        found.append("mail.sender must be an address such as 'Example <no-reply@example.com>'")
    found += _proxies(settings)
    for secret in (settings.secret, *settings.older_secrets):
        if secret is not None and len(secret) < MINIMUM_SECRET_BYTES:
            found.append(f"secret must have at least {MINIMUM_SECRET_BYTES} bytes")
    return found


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


def unsafe(settings: Settings) -> list[str]:
    """Return what production must not run with."""
    found: list[str] = []
    if settings.secret is None:
        found.append("secret is missing: set ROUTEGUARD_SECRET to 32 or more random bytes")
    else:
        text = settings.secret.reveal().decode("utf-8", "replace").lower()
        # Attack JWT-30, OPS-11: defaults and keyboard patterns are the first keys anybody tries.
        if len(set(text)) < 12 or any(text.startswith(word) or text.endswith(word) for word in _WELL_KNOWN):
            found.append("secret looks like a default or has too little variety")
    with contextlib.suppress(ConfigError):  # What cannot be read is a finding of `malformed`.
        if any(network.prefixlen == 0 for network in parse_networks(settings.trusted_proxies)):
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
    if urlsplit(settings.issuer).scheme != "https":
        found.append("issuer must be https in production")
    return found


def unsafe_identity(settings: Settings) -> list[str]:
    """Return what the identity service must not run with in production."""
    found: list[str] = []
    if settings.database_url in {"sqlite://", "sqlite:///:memory:"}:
        found.append("database_url keeps everything in memory: users would be lost at each restart")
    if (
        settings.database_url.startswith("postgresql") and settings.ephemeral_url.startswith("memory")
        and not settings.unsafe_memory_in_production
    ):  # fmt: skip
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
