"""`routeguard dev`: the example application with everything it needs, in the current directory."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from routeguard.cli.server import listen, run_server
from routeguard.settings import Settings
from routeguard.web.health import Readiness


def dev(
    *,
    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port to listen on; 0 takes a free one.")] = 8000,
) -> int:
    """Run the example application, for trying and developing.

    The database is `routeguard.db` in the current directory, made and migrated here. Mail is printed. The users it
    makes at its first start are printed once, with their passwords.
    """
    from routeguard.cli.seed import prepare  # noqa: PLC0415 - only now is it known that the arguments are good
    from routeguard.example.app import create  # noqa: PLC0415 - the same

    bound = listen(host, port)
    settings = development_settings(host, bound.getsockname()[1])
    people = asyncio.run(prepare(settings))
    lines = [f"Routeguard is at {settings.issuer}", ""]
    if people:
        lines += ["Users made just now. Their passwords are shown this once:"]
        lines += [f"  {one.email:<28} {one.password:<24} {one.role}" for one in people]
        lines += [""]
    else:
        lines += [
            "The users of an earlier start are still there, with the passwords shown then.",
            "To start afresh, delete routeguard.db*; or `routeguard user password EMAIL`.",
            "",
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    app = create(settings)
    return run_server(app, bound, access_log=True, readiness=app.state.guard.services.get(Readiness))


def development_settings(host: str, port: int) -> Settings:
    """Return the settings of `dev`: those given, and our own origin made from where we listen.

    Raises ConfigError.
    """
    settings = Settings.load(environment="development")
    if "issuer" in settings.provenance:
        return settings
    return replace(settings, issuer=f"http://{_loopback_name(host)}:{port}")


def _loopback_name(host: str) -> str:
    """Return the name browsers on this machine use. On any other, cookies over plain http do not work."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1"
    return f"[{address}]" if address.version == 6 else str(address)
