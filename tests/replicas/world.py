"""Several `routeguard serve` over one PostgreSQL and one Valkey, and people who talk to whichever they reach."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import httpx2

from tests.backends import free_port
from tests.servers import ROUTEGUARD, environment, run

ISSUER = "http://127.0.0.1:8000"
PASSWORD = "plum tractor wobble seventeen"
PATIENCE = 120.0
"""Seconds until a condition that must come counts as not coming, on however busy a machine."""

_addresses = itertools.count(1)


class Replica:
    """One serving process on a port that it keeps when it is started again."""

    program: str | None = None
    """A module to run in place of `routeguard`; it is given a file's name first."""

    def __init__(self, directory: Path, values: Mapping[str, str], *arguments: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = directory
        self._values = values
        self._arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self, **values: str) -> None:
        """Start the process, without waiting for it."""
        self.directory.mkdir(exist_ok=True)
        program = [ROUTEGUARD]
        if self.program is not None:
            program = [sys.executable, "-m", self.program, str(self.directory / "tasks")]
            values["PYTHONPATH"] = str(Path(__file__).parents[2])
        command = [*program, "serve", "--port", str(self.port), *self._arguments]
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=environment(**self._values, **values),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def await_ready(self) -> None:
        """Wait until it says that it can work."""
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        # `verify`: there is no TLS, and to load the machine's certificates takes longer than a request.
        with httpx2.Client(timeout=10, verify=False) as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                with contextlib.suppress(httpx2.TransportError):
                    if client.get(self.url + "/readyz").status_code == 200:
                        return
                time.sleep(0.05)
        raise AssertionError(f"a replica did not become ready:\n{self.output()}")

    def start(self, **values: str) -> None:
        self.launch(**values)
        self.await_ready()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def ended(self, within: float = PATIENCE) -> int:
        """Wait for the end of the process; return its exit code."""
        assert self.process is not None
        code = await asyncio.to_thread(self.process.wait, within)
        self.process = None
        return code

    async def stop(self) -> int:
        """Ask it to end (SIGTERM) and wait until it has. Returns its exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    def output(self) -> str:
        return (self.directory / "output").read_text(errors="replace")


class Deployment:
    """Replicas with the same settings: development mode, so that mail is printed and cookies work over http."""

    def __init__(
        self,
        directory: Path,
        *,
        database_url: str,
        ephemeral_url: str,
        count: int = 2,
        program: str | None = None,
        **values: str,
    ) -> None:
        self.values = {
            "ROUTEGUARD_ISSUER": ISSUER,
            "ROUTEGUARD_ENVIRONMENT": "development",
            "ROUTEGUARD_SECRET": secrets.token_urlsafe(48),
            "ROUTEGUARD_DATABASE_URL": database_url,
            "ROUTEGUARD_EPHEMERAL_URL": ephemeral_url,
            # Each person comes from an address of his own, so that the limits of one test are not those of another.
            "ROUTEGUARD_TRUSTED_PROXIES": "127.0.0.1",
            # Load comes from few addresses. The limit of sign-ups stays, to be tried.
            "ROUTEGUARD_TRAFFIC_IDENTITY": "off",
            "ROUTEGUARD_TRAFFIC_SIGN_IN": "off",
            "ROUTEGUARD_TRAFFIC_REFRESH": "off",
            # As patient as a machine with many tests needs it; what impatience does is tried in test_outages.
            "ROUTEGUARD_DATABASE_TIMEOUT": "20s",
            "ROUTEGUARD_DATABASE_STATEMENT_TIMEOUT": "20s",
            "ROUTEGUARD_TOKENS_GRACE": "10s",
            # A new signing key signs soon.
            "ROUTEGUARD_TOKENS_PUBLISH_AHEAD": "2s",
        } | values
        self.directory = directory
        self.replicas = [
            Replica(directory / f"replica{number}", self.values, "--drain", "1s") for number in range(count)
        ]
        for replica in self.replicas:
            replica.program = program
        self._turn = itertools.cycle(self.replicas)

    def start(self) -> None:
        migrated = run(self.directory, "migrate", **self.values)
        assert migrated.returncode == 0, migrated.stderr
        for replica in self.replicas:
            replica.launch()
        for replica in self.replicas:
            replica.await_ready()

    def close(self) -> None:
        for replica in self.replicas:
            replica.kill()

    def next(self) -> Replica:
        """Return one replica after the other, as a balancer would."""
        return next(self._turn)

    def heal(self) -> None:
        """Start what does not run."""
        gone = [one for one in self.replicas if one.process is None or one.process.poll() is not None]
        for replica in gone:
            replica.launch()
        for replica in gone:
            replica.await_ready()


class Person:
    """A browser with its cookies, at an address of its own, that speaks to any replica."""

    def __init__(self, deployment: Deployment, name: str = "") -> None:
        self.deployment = deployment
        self.email = f"{name or 'person'}-{secrets.token_hex(6)}@example.com"
        number = next(_addresses)
        self.address = f"198.18.{number // 250}.{number % 250 + 1}"
        self.cookies: dict[str, str] = {}
        self.put_off = 0
        self._client = httpx2.AsyncClient(timeout=PATIENCE, limits=httpx2.Limits(max_connections=200), verify=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._client.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        to: Replica | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        keep: bool = True,
        cookies: bool = True,
        patient: bool = True,
    ) -> httpx2.Response:
        """Send one request, with and keeping cookies as a browser does, unless told otherwise.

        A machine that has more to do than it can says 503, "in a moment": who is `patient` comes back, and counts it.
        """
        where = to or self.deployment.next()
        fields = {"origin": ISSUER, "x-forwarded-for": self.address}
        if self.cookies and cookies:
            fields["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self._client.cookies.clear()
        deadline = time.monotonic() + PATIENCE
        while True:
            sent = fields | dict(headers or {})
            answer = await self._client.request(method, where.url + path, json=json, headers=sent)
            if answer.status_code != 503 or not patient or time.monotonic() > deadline:
                break
            self.put_off += 1
            await asyncio.sleep(0.2)
        if keep and cookies:
            for name, value in answer.cookies.items():
                self.cookies[name] = value
        self._client.cookies.clear()
        return answer

    async def balanced(self, method: str, path: str, **rest) -> httpx2.Response:
        """Send as through a balancer: whoever refuses the connection, or ends it without an answer, is passed over."""
        first, replicas = self.deployment.next(), self.deployment.replicas
        begin = replicas.index(first)
        for number in range(10):
            # In turn by itself: what others ask in between must not lead each try to the one that is away.
            to = replicas[(begin + number) % len(replicas)]
            with contextlib.suppress(httpx2.ConnectError, httpx2.ReadError, httpx2.RemoteProtocolError):
                return await self.send(method, path, to=to, **rest)
        raise AssertionError("no replica takes the request")

    async def get(self, path: str = "/auth/session", **rest) -> httpx2.Response:
        return await self.send("GET", path, **rest)

    async def post(self, path: str, json: object = None, **rest) -> httpx2.Response:
        return await self.send("POST", path, json=json, **rest)

    async def sign_up(self) -> None:
        account = {"email": self.email, "password": PASSWORD, "name": "Somebody"}
        answer = await self.post("/auth/sign-up", account)
        assert answer.status_code == 201, answer.text

    async def sign_in(self, password: str = PASSWORD, **rest) -> httpx2.Response:
        return await self.post("/auth/sign-in", {"email": self.email, "password": password}, **rest)

    async def arrive(self) -> Person:
        """Open an account and sign in."""
        await self.sign_up()
        answer = await self.sign_in()
        assert answer.status_code == 200, answer.text
        return self

    async def bearer(self, token: str, **rest) -> httpx2.Response:
        """Ask for the session of an access token, without cookies."""
        return await self.get(headers={"authorization": f"Bearer {token}"}, cookies=False, **rest)

    async def refresh(self, token: str, **rest) -> httpx2.Response:
        """Spend a refresh token, without cookies."""
        return await self.post("/auth/token/refresh", {"refresh_token": token}, cookies=False, **rest)

    async def tokens(self, **rest) -> dict[str, str]:
        """Return access and refresh token of the session."""
        answer = await self.post("/auth/token", **rest)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def mailed(self, pattern: str) -> str:
        """Return what `pattern` finds in a mail to this person, as soon as any replica has sent one."""
        inside = re.compile(rf"Mail to {re.escape(self.email)}:(?:(?!Mail to ).)*?{pattern}", re.DOTALL)
        found: list[str] = []

        async def sent() -> bool:
            for replica in self.deployment.replicas:
                found.extend(inside.findall(replica.output()))
            return bool(found)

        await eventually(sent)
        return found[0]

    def twin(self) -> Person:
        """Return another browser with the same account and no cookies."""
        other = Person(self.deployment)
        other.email = self.email
        return other

    def copy(self) -> Person:
        """Return a thief: the same account and a copy of all cookies."""
        other = self.twin()
        other.cookies = dict(self.cookies)
        return other


async def eventually(probe, *, within: float = PATIENCE) -> float:
    """Wait until `await probe()` is true; return the seconds that took."""
    begin = time.monotonic()
    while True:
        if await probe():
            return time.monotonic() - begin
        assert time.monotonic() - begin < within, "what must come did not come"
        await asyncio.sleep(0.02)


@contextlib.contextmanager
def deployed(directory: Path, **values) -> Iterator[Deployment]:
    deployment = Deployment(directory, **values)
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.close()
