"""The server our commands run: uvicorn with its limits said and nothing trusted that a caller sends."""

from __future__ import annotations

import errno
import logging
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from routeguard.cli.graceful import REQUESTS, GracefulServer
from routeguard.cli.http1 import StrictH11Protocol
from routeguard.cli.main import COULD_NOT_RUN, GOOD
from routeguard.core.errors import ConfigError
from routeguard.core.ports import LAST_PORT, PORT_RANGE

if TYPE_CHECKING:
    import ssl

    from starlette.types import ASGIApp

    from routeguard.foundation.web.health import Readiness

_HEADERS: Final = 32 * 1024
"""Bytes of request line and fields: more is 400 before anything of ours runs."""
_SOCKET_MESSAGE: Final = 64 * 1024
_CONNECTIONS: Final = 1000


def port_findings(port: int) -> list[str]:
    """Return what is wrong with a port to listen on: resolvers take 99999 for 34463."""
    return [] if 0 <= port <= LAST_PORT else [f"{PORT_RANGE}, or 0 for a free one, and not {port}"]


def listen(host: str, port: int) -> socket.socket:
    """Bind now, so that a taken port is said before anything else happens. Port 0 takes a free one.

    Raises ConfigError.
    """
    if findings := port_findings(port):
        raise ConfigError(findings)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        way = "; choose another port by --port" if error.errno == errno.EADDRINUSE else ""
        raise ConfigError(f"{host}:{port} cannot be listened on: {error.strerror or error}{way}") from None
    bound.set_inheritable(True)
    return bound


def address_of(bound: socket.socket, *, scheme: str = "http") -> str:
    """Return where a socket listens, as a URL."""
    host, port = bound.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class _Config(uvicorn.Config):
    """Takes a TLS context that is ready. uvicorn itself takes one only in its later releases."""

    tls: ssl.SSLContext | None = None

    @property
    def is_ssl(self) -> bool:
        """Whether the server speaks TLS. While the configuration loads, uvicorn would ask for files where it does."""
        return self.loaded and self.tls is not None

    def load(self) -> None:
        """Load the application and the protocols, and put the context into place."""
        super().load()
        self.ssl = self.tls


def run_server(
    app: ASGIApp,
    bound: socket.socket,
    *,
    access_log: bool,
    readiness: Readiness,
    drain: float = 0.0,
    tls: ssl.SSLContext | None = None,
) -> int:
    """Serve until told to stop; return the exit code.

    From then on `readiness` says no, and for `drain` seconds everybody is still served (see `GracefulServer`).

    Forwarding headers are read by core.address and by nothing before it, so the server must leave the peer alone. The
    parser is h11, made strict: uvicorn's other one, httptools, hands trailers on as header fields, and a trailer that
    says `Authorization` or `Cookie` would count (attack HTTP-07).
    """
    config = _Config(
        app,
        lifespan="on",
        http=StrictH11Protocol,
        proxy_headers=False,
        server_header=False,
        access_log=access_log,
        h11_max_incomplete_event_size=_HEADERS,
        ws_max_size=_SOCKET_MESSAGE,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=REQUESTS,
        log_config=logging_config(),
    )
    config.tls = tls
    server = GracefulServer(config, drain=drain, on_stop=readiness.drain)
    server.run(sockets=[bound])
    return GOOD if server.started else COULD_NOT_RUN


def logging_config() -> dict[str, Any]:
    """Return how log lines look: one line each, on standard error."""
    handler = {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}
    quiet = {"handlers": ["line"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": LineFormatter}},
        "filters": {"paths": {"()": PathsOnly}},
        "handlers": {"line": handler},
        "loggers": {"uvicorn": quiet, "uvicorn.access": quiet | {"filters": ["paths"]}, "routeguard": quiet},
    }


class LineFormatter(logging.Formatter):
    """Writes ``TIME LEVEL message``; the time as RFC 3339 section 5.6 has it, with date, milliseconds and offset."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's
        """Return the local time of a record and how far it is from UTC: lines of several machines can be sorted."""
        return datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="milliseconds")


class PathsOnly(logging.Filter):
    """Takes the query out of lines of the access log: applications put anything into theirs (attack OPS-22)."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten every argument that has a query; the line itself stays."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                item.partition("?")[0] if isinstance(item, str) and "?" in item else item for item in record.args
            )
        return True
