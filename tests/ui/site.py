"""An application as people deploy it: `uvicorn main:app` in a process of its own, its mail taken by a real server."""

from __future__ import annotations

import contextlib
import email
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import policy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2 as httpx
from aiosmtpd.controller import Controller

from tests.backends import free_port
from tests.servers import environment, run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PASSWORD = "plum tractor wobble seventeen"
PATIENCE = 60.0
MAIN = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from routeguard import Routeguard, public

guard = Routeguard()

@guard(guard.optional_session())
async def start(request):
    session = await guard.find_session(request)
    return PlainTextResponse("start page, guest" if session is None else f"start page, {session.user.email}")

@guard(guard.session())
async def me(request):
    session = await guard.find_session(request)
    return PlainTextResponse(f"me, {session.user.email}")

app = Starlette(routes=[Route("/", start), Route("/me", me)])
guard.install(app)
"""


class Inbox:
    """A mail server's handler that keeps the texts of mails, by recipient."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        mail: Any = email.message_from_bytes(envelope.content, policy=policy.default)
        text = mail.get_body(("plain",)).get_content()
        self.texts += [(to, text) for to in envelope.rcpt_tos]
        return "250 OK"

    def link(self, to: str, part: str, *, after: int = 0) -> str:
        """Wait for a mail to `to` with a link that holds `part`, beyond the first `after` of them; return the link."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = [
                word
                for address, text in list(self.texts)
                if address == to
                for word in re.findall(r"http\S+", text)
                if part in word
            ]
            if len(found) > after:
                return found[-1]
            time.sleep(0.05)
        raise AssertionError(f"no mail to {to} with {part}: {self.texts}")


@dataclass(frozen=True, slots=True)
class Site:
    """A running application. `url` is where browsers find it, without a slash at the end."""

    url: str
    directory: Path
    inbox: Inbox = field(default_factory=Inbox)

    def output(self) -> str:
        """Return what the server printed so far, its access log included."""
        return (self.directory / "output").read_text()

    def page(self, browser: Browser, **more: Any) -> Page:
        """Return a page of a new browser profile."""
        page = browser.new_context(**more).new_page()
        page.set_default_timeout(PATIENCE * 1000)
        return page


@contextlib.contextmanager
def mail_server() -> Iterator[tuple[Inbox, int]]:
    """Take mail until the end of the block."""
    inbox, port = Inbox(), free_port()
    controller = Controller(inbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield inbox, port
    finally:
        controller.stop()


@contextlib.contextmanager
def site(
    directory: Path, *arguments: str, main: str = MAIN, public: str = "", root: str = "", port: int = 0, **settings: str
) -> Iterator[Site]:
    """Run `uvicorn main:app` until the end of the block.

    `public` is the origin browsers use, where that is not its own; `root` the prefix they find it below. `port` is
    where it listens; a free one unless given.
    """
    port = port or free_port()
    own = f"http://127.0.0.1:{port}"
    (directory / "main.py").write_text(main)
    with mail_server() as (inbox, smtp):
        values = environment(
            **{
                "ROUTEGUARD_ISSUER": public or own,
                "ROUTEGUARD_ROOT_PATH": root,
                "ROUTEGUARD_MAIL_URL": f"smtp://127.0.0.1:{smtp}",
                "ROUTEGUARD_TRAFFIC_SIGN_IN": "off",
                "ROUTEGUARD_TRAFFIC_SIGN_UP": "off",
                "ROUTEGUARD_TRAFFIC_IDENTITY": "off",
                "ROUTEGUARD_USERS_REQUIRE_VERIFIED_EMAIL": "true",
                **settings,
            }
        )
        migrated = run(
            directory, "migrate", **{name: values[name] for name in values if name.startswith("ROUTEGUARD_")}
        )
        assert migrated.returncode == 0, migrated.stderr
        with (directory / "output").open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port), *arguments],
                cwd=directory,
                env=values,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
            made = Site((public or own) + root, directory, inbox)
            try:
                _wait(process, own, made)
                yield made
            finally:
                process.terminate()
                process.wait(PATIENCE)


def _wait(process: subprocess.Popen[bytes], url: str, made: Site) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{url}/nothing-here", timeout=5)
            return
        time.sleep(0.05)
    raise AssertionError(f"the server did not start:\n{made.output()}")


@contextlib.contextmanager
def nginx(directory: Path, prefix: str, upstream: str) -> Iterator[str]:
    """Run Debian's nginx, which hands on what is below `prefix` to `upstream`; yield its origin.

    An `upstream` with a slash at its end has the prefix taken away, one without has it kept.
    """
    port = free_port()
    (directory / "nginx.conf").write_text(
        f"""
        daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log; worker_processes 1;
        events {{}}
        http {{
            access_log {directory}/nginx-access.log;
            client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
            server {{
                listen 127.0.0.1:{port};
                location {prefix}/ {{ proxy_pass {upstream}; proxy_set_header Host $http_host; }}
                location / {{ return 404 "outside of the prefix"; }}
            }}
        }}
        """
    )
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") or "nginx"
    process = subprocess.Popen([program, "-c", str(directory / "nginx.conf"), "-p", str(directory)])
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


HAS_NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") is not None
