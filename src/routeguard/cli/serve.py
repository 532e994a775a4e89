"""`routeguard serve`: the identity service by itself, in production mode unless told otherwise."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from starlette.applications import Starlette

from routeguard.app import Routeguard
from routeguard.cli.application import database_of
from routeguard.cli.server import address_of, listen, port_findings, run_server
from routeguard.cli.tls import server_context
from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.policy import public
from routeguard.core.rate import parse_duration
from routeguard.core.redirect import is_below
from routeguard.foundation.db.migrate import require_current
from routeguard.foundation.web.health import Readiness, health_routes
from routeguard.foundation.web.reply import see_other
from routeguard.foundation.web.routes import get
from routeguard.identity.sessions.routes import exchange_of
from routeguard.settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from routeguard.foundation.web.models import TlsSettings

_LONGEST_DRAIN: Final = 60.0


def serve(
    *,
    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port to listen on; 0 takes a free one.")] = 8000,
    drain: Annotated[str, Parameter(help="How long it still serves after SIGTERM, while /readyz is 503.")] = "1s",
    tls_certificate: Annotated[str, Parameter(help="The certificate chain, for TLS without a proxy.")] = "",
    tls_key: Annotated[str, Parameter(help="The certificate's private key.")] = "",
    client_ca: Annotated[str, Parameter(help="Authorities, one of which has signed each client's certificate.")] = "",
) -> int:
    """Run the identity service by itself.

    Production mode unless ROUTEGUARD_ENVIRONMENT says development: it does not start with an unsafe setting, and
    lists all of them. Bring the database up to date with `routeguard migrate` first.
    """
    settings, findings = service_settings()
    findings += [*settings.findings(), *port_findings(port)]
    seconds, tls = 0.0, None
    try:
        seconds = _drain(drain)
    except ConfigError as error:
        findings += error.findings
    try:
        tls = server_context(_tls(settings.tls, certificate=tls_certificate, key=tls_key, client_ca=client_ca))
    except ConfigError as error:
        findings += error.findings
    if findings:
        raise ConfigError(findings)
    asyncio.run(_check_schema(settings))
    # No access log: the proxy in front keeps one.
    app, bound = create(settings), listen(host, port)
    readiness, reached = app.state.guard.services.get(Readiness), below(app, settings.root_path)
    address = address_of(bound, scheme="http" if tls is None else "https")
    sys.stdout.write(f"Listening on {address} for {settings.issuer}\n")
    sys.stdout.flush()
    return run_server(reached, bound, access_log=False, readiness=readiness, drain=seconds, tls=tls)


def _tls(settings: TlsSettings, **given: str) -> TlsSettings:
    """Return the settings with what the command line says instead. Raises ConfigError for what does not fit."""
    return replace(settings, **{name: value for name, value in given.items() if value})


def _drain(text: str) -> float:
    seconds = 0.0 if text in {"0", "0s"} else parse_duration(text).total_seconds()
    if seconds > _LONGEST_DRAIN:
        raise ConfigError(
            f"--drain is at most {_LONGEST_DRAIN:.0f} seconds: no supervisor waits longer for a process to end"
        )
    return seconds


async def _check_schema(settings: Settings) -> None:
    """Refuse to serve over tables of another version; a database that is away now may come back while we run."""
    database, others = database_of(settings)
    try:
        await database.start()
        await require_current(database, others)
    except Unavailable:
        return
    finally:
        await database.close()


def service_settings() -> tuple[Settings, list[str]]:
    """Return the settings, production being the default, and a finding for all that could not be read."""
    settings, findings = Settings.read()
    if "environment" not in settings.provenance:
        settings = replace(settings, environment="production")
    if settings.testing:
        source = settings.provenance["environment"]
        findings.append(f"environment is 'test' ({source}), and serve is no test: it takes production or development")
    return settings, findings


def create(settings: Settings) -> Starlette:
    """Return the identity service as an application."""
    guard = Routeguard(settings)
    health = health_routes(guard.services.get(Readiness).check)
    app = Starlette(routes=[get("/", _start, public), *health])
    app.state.guard = guard
    guard.install(app)
    return app


def below(app: Starlette, root: str) -> ASGIApp:
    """Return `app` for a proxy that takes the prefix `root` away, or leaves it in place.

    Where a path of ours begins like `root`, as with ``/auth``, the two could not be told apart: then the proxy has to
    take it away.
    """
    ours = {row.path.split("/")[1] for row in app.state.guard.matrix()}
    if not root or root.split("/")[1] in ours:
        return app

    async def entered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and is_below(scope["path"], root):
            scope["root_path"] = root
        await app(scope, receive, send)

    return entered


async def _start(request: Request) -> Response:
    return see_other(exchange_of(request).root + "/account")
