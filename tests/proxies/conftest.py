"""Debian's nginx and HAProxy with the files of deploy/, in front of a plain uvicorn application."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from routeguard import Routeguard, Settings, networks, public
from routeguard.core.exchange import SCOPE_KEY
from routeguard.core.secret import Secret
from routeguard.protection.traffic.site import Site
from tests.backends import free_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
HOW_TO = (ROOT / "docs" / "how-to" / "behind-a-proxy.md").read_text("utf-8")
CLIENT = "127.0.0.2"
"""Where the tests connect from. The proxy connects to the application from 127.0.0.1, the only address it trusts."""
SPOOFED = "6.6.6.6"
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status (0 for a closed connection), and the address the application saw."""

    status: int
    address: str | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy with TLS on a loopback port."""

    port: int

    def ask(self, *lines: str, path: str = "/address", method: str = "GET", body: bytes = b"") -> Answer:
        """Send one request from `CLIENT`, header lines as they are written, and read the answer."""
        heads = [f"{method} {path} HTTP/1.1", "Host: id.example.com", *lines]
        if not any(line.lower().startswith("connection:") for line in lines):
            heads.append("Connection: close")
        data = "\r\n".join(heads).encode("latin-1") + b"\r\n\r\n" + body
        # It is our own proxy: to load the machine's certificates takes longer than the request.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        received = b""
        with (
            socket.create_connection(("127.0.0.1", self.port), _PATIENCE, (CLIENT, 0)) as plain,
            context.wrap_socket(plain) as connection,
        ):
            connection.sendall(data)
            try:
                while part := connection.recv(65536):
                    received += part
            except (ConnectionResetError, ssl.SSLError):
                pass
        head, _, rest = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/"):
            return Answer(0)
        found = re.search(rb'\{"address": ?(.*?)\}', rest)
        return Answer(int(head.split()[1]), json.loads(found[1]) if found else None, rest.decode("latin-1"))


def application(header: str) -> Starlette:
    """Return an application that says which address counts as its caller's."""
    settings = Settings(
        issuer="https://id.example.com",
        environment="development",
        secret=Secret("s" * 32),
        trusted_proxies=("127.0.0.1",),
        trusted_proxy_header=header,
    )
    guard = Routeguard(settings, identify=lambda request: None)

    async def address(request: Request) -> Response:
        await request.body()
        found = guard.services.get(Site).address(request.scope[SCOPE_KEY])
        return JSONResponse({"address": None if found is None else str(found)})

    async def ready(request: Request) -> Response:
        return Response()

    allowed, denied = networks(allow=[f"{SPOOFED}/32"]), networks(deny=[f"{CLIENT}/32"])
    routes = [
        Route("/address", guard(public)(address), methods=["GET", "POST"]),
        Route("/allowed", guard(public & allowed)(ready), methods=["GET", "POST"]),
        Route("/denied", guard(public & denied)(ready), methods=["GET", "POST"]),
        Route("/readyz", guard(public)(ready)),
    ]
    app = Starlette(routes=routes)
    guard.install(app)
    return app


@contextmanager
def served(header: str, **options: Any) -> Iterator[int]:
    """Run the application in uvicorn, as `uvicorn main:app` does unless told otherwise; yield its port."""
    config = uvicorn.Config(application(header), port=0, log_level="critical", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    _wait(lambda: server.started or not thread.is_alive())
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(_PATIENCE)


def installed(name: str) -> str:
    """Return the path of a program, or skip the test."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    return found


def adapted(text: str, *changes: tuple[str, str]) -> str:
    """Return a shipped file with other ports and other certificates. Every change must find its place."""
    for before, after in changes:
        assert before in text, f"{before!r} is not in the file any more"
        text = text.replace(before, after)
    return text


@contextmanager
def nginx(folder: Path, site: str, port: int) -> Iterator[Proxy]:
    """Run nginx with one file of `conf.d`."""
    temporary = "".join(
        f"{name}_temp_path {folder / name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder / 'nginx.pid'};\nerror_log {folder / 'error.log'};\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{site}\n}}\n"
    )
    command = [installed("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with _running(command, port, folder):
        yield Proxy(port)


def shipped_nginx(backend: int, port: int, pem: Path) -> str:
    """Return deploy/nginx.conf for a machine without names, certificates and privileges."""
    return adapted(
        (DEPLOY / "nginx.conf").read_text("utf-8"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/letsencrypt/live/id.example.com/fullchain.pem", str(pem)),
        ("/etc/letsencrypt/live/id.example.com/privkey.pem", str(pem)),
        ("127.0.0.1:8001", f"127.0.0.1:{backend}"),
        ("127.0.0.1:8002", f"127.0.0.1:{backend}"),
    )


@contextmanager
def haproxy(folder: Path, backend: int, pem: Path) -> Iterator[Proxy]:
    """Run HAProxy with deploy/haproxy.cfg."""
    port = free_port()
    text = adapted(
        (DEPLOY / "haproxy.cfg").read_text("utf-8"),
        ("bind :443 ssl crt /etc/haproxy/id.example.com.pem", f"bind 127.0.0.1:{port} ssl crt {pem}"),
        ("127.0.0.1:8001", f"127.0.0.1:{backend}"),
        ("127.0.0.1:8002", f"127.0.0.1:{backend}"),
    )
    (folder / "haproxy.cfg").write_text(text)
    with _running([installed("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")], port, folder):
        yield Proxy(port)


@contextmanager
def _running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            _wait(lambda: _listens(port) or process.poll() is not None)
            assert process.poll() is None, (folder / "output").read_text()
            yield
        finally:
            process.terminate()
            process.wait(_PATIENCE)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _wait(done: Callable[[], bool]) -> None:
    ends = time.monotonic() + _PATIENCE
    while not done():
        assert time.monotonic() < ends, "nothing listens"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "id.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("pem") / "id.example.com.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
