"""`routeguard dev`: the example application with everything it needs, in the current directory."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

from cyclopts import Parameter

from routeguard.cli.server import listen, port_findings, run_server
from routeguard.core.address import is_loopback, parse_address
from routeguard.core.errors import ConfigError
from routeguard.foundation.web.health import Readiness
from routeguard.identity.users.models import UserSettings
from routeguard.settings import Settings
from routeguard.settings.findings import malformed, named
from routeguard.settings.reader import unreadable

if TYPE_CHECKING:
    from routeguard.cli.accounts import Made
    from routeguard.foundation.mail.models import MailSettings

OWN_DATABASE: Final = "sqlite:///routeguard-dev.db"
"""Not the default of `database_url`, which is the application's: the example creates an admin of its own."""
_OWN: Final[dict[str, Any]] = {
    "database_url": OWN_DATABASE,
    "ephemeral_url": "memory://",
    "secret": None,
    "older_secrets": (),
}
"""Values of `dev` in place of the configured ones, so that nothing outside this directory is touched."""


def dev(
    *,
    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port to listen on; 0 takes a free one.")] = 8000,
    database_url: Annotated[str, Parameter(help="Another database, empty or made by an earlier dev.")] = OWN_DATABASE,
) -> int:
    """Run the example application, for trying and developing.

    The database is `routeguard-dev.db` in the current directory, made and migrated here, whatever is configured; with
    --database-url, one that is empty or was made by an earlier `dev`. Mail is printed. The users it makes at its
    first start are printed once, with their passwords. With production settings it does not start.
    """
    from routeguard.cli.seed import prepare  # noqa: PLC0415 - only now is it known that the arguments are good
    from routeguard.example.app import create  # noqa: PLC0415 - the same

    configured = configured_settings(*port_findings(port))
    with listen(host, port) as bound:
        settings = development_settings(configured, host, bound.getsockname()[1], database_url=database_url)
        people = asyncio.run(prepare(settings))
        lines = [f"Routeguard is at {settings.issuer}", *_exposed(host, settings), *_unused(configured, settings), ""]
        sys.stdout.write("\n".join(lines + _users(people, settings)) + "\n")
        sys.stdout.flush()
        app = create(settings)
        return run_server(app, bound, access_log=True, readiness=app.state.guard.services.get(Readiness))


def configured_settings(*wrong: str) -> Settings:
    """Return the settings of the environment and of pyproject.toml; `wrong` is what the arguments have wrong.

    Raises ConfigError for values nothing can use, and where they are those of a deployment: demonstration users, an
    admin among them, and mails on the console have no place under a name other people use.
    """
    configured, unread = Settings.read()
    used = replace(configured, **_OWN, mail=_printed(configured))
    findings = [*wrong, *unread, *malformed(used)]
    findings += _deployment(configured, named(findings, configured) | unreadable(configured.provenance))
    if findings:
        raise ConfigError(findings)
    return configured


def _deployment(configured: Settings, unusable: set[str]) -> list[str]:
    """Return what is configured for a deployment; invalid settings are not reported."""
    found: list[str] = []
    given = configured.provenance.keys() - unusable
    if "environment" in given and (configured.production or configured.testing):
        source = configured.provenance["environment"]
        found.append(f"environment is {configured.environment!r} ({source}), and dev is for development only")
    if "issuer" in given and not configured.on_loopback:
        source = configured.provenance["issuer"]
        found.append(f"issuer {configured.issuer!r} ({source}) is not http on this machine")
    if found:
        found.append(
            "dev makes demonstration users, so it does not run with the settings of a deployment: unset "
            "them (ROUTEGUARD_ENVIRONMENT=development and ROUTEGUARD_ISSUER=http://127.0.0.1:8000 also override "
            "pyproject.toml), or use `routeguard serve`"
        )
    return found


def _printed(configured: Settings) -> MailSettings:
    return replace(configured.mail, url="console://")


def development_settings(configured: Settings, host: str, port: int, *, database_url: str = OWN_DATABASE) -> Settings:
    """Return the settings of `dev`: the configured ones without what leads outside this directory.

    Our own origin is made from where we listen, unless one is configured that leads there.
    """
    own = _OWN | {"environment": "development", "database_url": database_url}
    # The roles are those of the example's policies and people.
    users = replace(configured.users, roles=UserSettings().roles, admin_role=UserSettings().admin_role)
    settings = replace(configured, **own, mail=_printed(configured), users=users)
    if "issuer" in configured.provenance and _leads_to(configured.issuer, host, port):
        return settings
    return replace(settings, issuer=f"http://{_loopback_name(host)}:{port}")


def _users(people: list[Made], settings: Settings) -> list[str]:
    if people:
        shown = [f"  {one.email:<28} {one.password:<24} {one.role}" for one in people]
        return ["Users made just now. Their passwords are shown this once:", *shown, ""]
    own = settings.database_url == OWN_DATABASE
    return [
        "The users of an earlier start are still there, with the passwords shown then.",
        "To start afresh, delete routeguard-dev.db*; to set a password:" if own else "To set a password:",
        f"  ROUTEGUARD_DATABASE_URL={settings.database_url if own else 'URL'} routeguard user password EMAIL",
        "",
    ]


def _exposed(host: str, settings: Settings) -> list[str]:
    """Say it where other machines can connect: the example has sign-up, and prints mails."""
    if is_loopback(host):
        return []
    return [
        f"WARNING: listening on {host}, so every machine that reaches this one can open the example.",
        f"In a browser, signing in works at {' and '.join(settings.origins)}. At any other address pages open, and",
        "what is sent from them is refused (docs/how-to/open-on-another-device.md). Programs that send no Origin can",
        "sign in at every address.",
    ]


def _unused(configured: Settings, settings: Settings) -> list[str]:
    """Name the configured values `dev` leaves alone: a silent one would be taken for the one in use."""
    lines: list[str] = []
    names = [*_OWN, "mail.url", "users.roles", "users.admin_role"]
    unused = [f"{name} ({configured.provenance[name]})" for name in names if name in configured.provenance]
    if unused:
        lines.append(f"Not used by dev: {', '.join(unused)}. Its database is {_named(settings.database_url)}.")
    if "issuer" in configured.provenance and configured.issuer != settings.issuer:
        source = configured.provenance["issuer"]
        lines.append(f"Not used by dev: issuer {configured.issuer} ({source}), which is not where it listens.")
    return lines


def _named(url: str) -> str:
    return url if url == OWN_DATABASE else "the one of --database-url"


def _leads_to(issuer: str, host: str, port: int) -> bool:
    """Whether a browser on this machine that opens `issuer`, which is http, comes to who listens on `host`."""
    parts = urlsplit(issuer)
    if (parts.port or 80) != port:
        return False
    listening, opened = parse_address(host), parse_address(parts.hostname or "")
    if listening is None or opened is None:
        return is_loopback(host) or (listening is not None and listening.is_unspecified)
    if listening.is_unspecified:
        return listening.version == 6 or opened.version == 4
    return listening == opened


def _loopback_name(host: str) -> str:
    """Return the name browsers on this machine use. Any other is a finding: cookies are not kept over plain http."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1"
    return f"[{address}]" if address.version == 6 else str(address)
