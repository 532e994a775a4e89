"""A real `routeguard serve`, somebody who manages it, and an app in this process that is guarded by its word."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from routeguard import Routeguard, Secret, Settings, User
from routeguard.core.exchange import SCOPE_KEY, Exchange
from routeguard.core.request import RequestView
from routeguard.foundation.invalidation.feed import Feed
from routeguard.identity.api_keys.service import ApiKeys
from routeguard.identity.oauth_server.service import Clients
from routeguard.identity.sessions.models import SessionSettings, UserSession
from routeguard.identity.sessions.service import Sessions
from routeguard.identity.sessions.sign_in import SignIn
from routeguard.identity.tokens.access import AccessTokens
from routeguard.identity.users.addresses import read_email
from routeguard.identity.users.service import Users
from routeguard.remote.models import RemoteSettings
from routeguard.remote.transport import Answer, Transport
from tests.conformance.wire import Result, send
from tests.replicas.world import Replica
from tests.servers import run
from tests.sessions.fakes import enter
from tests.steady import PATIENT

PATIENCE: Final = 60.0
"""Seconds until what must happen counts as not happening, on however busy a machine."""
UNHURRIED: Final = {
    "sessions": SessionSettings(trust=timedelta(seconds=60)),
    "remote": RemoteSettings(timeout=timedelta(seconds=20)),
}
"""Settings of an app that is tried for what it answers: a machine that stumbles is no outage."""
HASTY: Final = {"sessions": SessionSettings(trust=timedelta(seconds=2)), "remote": RemoteSettings()}
"""Of one that is tried in an outage, which it is to notice soon."""


@dataclass
class Person:
    """Somebody signed in, and all he may show."""

    user: User
    session: UserSession[User]
    cookie: str = field(repr=False)
    token: str = field(repr=False)

    @property
    def bearer(self) -> tuple[str, str]:
        return "authorization", f"Bearer {self.token}"

    @property
    def cookies(self) -> tuple[str, str]:
        return "cookie", f"routeguard={self.cookie}"


class Service:
    """The identity service: one process that serves, and in this process the means to change what it serves."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.secret = secrets.token_urlsafe(48)
        values = {
            "ROUTEGUARD_ENVIRONMENT": "development",
            "ROUTEGUARD_SECRET": self.secret,
            "ROUTEGUARD_DATABASE_URL": database_url,
            "ROUTEGUARD_DATABASE_TIMEOUT": "30s",
            "ROUTEGUARD_DATABASE_STATEMENT_TIMEOUT": "30s",
        }
        self.replica = Replica(directory / "service", values, "--drain", "0s")
        values["ROUTEGUARD_ISSUER"] = self.url = self.replica.url
        self._settings = Settings(
            issuer=self.url,
            environment="development",
            secret=Secret(self.secret),
            database_url=database_url,
            database=PATIENT,
        )
        self.guard: Routeguard[User]
        self._values = values

    def start(self) -> None:
        migrated = run(Path.cwd(), "migrate", **self._values)
        assert migrated.returncode == 0, migrated.stderr
        self.replica.start()

    def close(self) -> None:
        self.replica.kill()

    @asynccontextmanager
    async def managed(self) -> AsyncIterator[Self]:
        """Run what manages it, on the loop of one test."""
        self.guard = Routeguard(self._settings)
        await self.guard.start()
        try:
            yield self
        finally:
            await self.guard.close()

    def get(self, kind: type[Any]) -> Any:
        return self.guard.services.get(kind)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.get(Users)._database.transaction() as tx:
            yield tx

    async def client(self) -> tuple[str, str]:
        """Register an app; return its id and secret."""
        async with self.transaction() as tx:
            made: tuple[str, str] = await self.get(Clients).create(tx, "app")
            return made

    async def person(self) -> Person:
        """Make a user and sign him in."""
        exchange = Exchange(RequestView({"type": "http", "method": "POST", "path": "/", "headers": []}))
        async with self.transaction() as tx:
            email = read_email(f"person-{secrets.token_hex(8)}@example.test")
            user = await self.get(Users).create(tx, email, name="Ann", role="user", email_verified=True)
        session = await enter(self.get(SignIn), user.id, exchange)
        assert isinstance(session, UserSession)
        lines = [value.decode() for name, value in exchange.effects if name == b"set-cookie"]
        (line,) = [one for one in lines if one.startswith("routeguard=") and "Max-Age=0" not in one]
        token = self.get(AccessTokens).mint(session, client_id="browser")
        return Person(user, session, line.partition("=")[2].partition(";")[0], token)

    async def key(self, person: Person, **wished: Any) -> tuple[str, str]:
        """Make an API key; return its id and text."""
        made = await self.get(ApiKeys).create(person.user.id, {"name": "robot"} | wished)
        return made.key.id, made.text

    async def end(self, person: Person) -> None:
        async with self.transaction() as tx:
            assert await self.get(Sessions).revoke(tx, person.user.id, person.session.id)

    async def change(self, method: str, person: Person, *arguments: Any) -> None:
        """Call a method of `Users` about a person."""
        async with self.transaction() as tx:
            await getattr(self.get(Users), method)(tx, person.user.id, *arguments)


class App:
    """An application guarded by the service's word."""

    def __init__(self, guard: Routeguard[Any]) -> None:
        self.guard = guard
        self.calls: list[str] = []
        routes = [
            Route("/me", guard(guard.session())(_handler()), methods=["GET", "POST"]),
            Route("/staff", guard(guard.session(user={"role": "admin"}))(_handler())),
            Route("/key", guard(guard.api_key())(_handler())),
            Route("/either", guard(guard.session() | guard.api_key())(_handler())),
            Route("/perhaps", guard(guard.optional_session())(_handler())),
        ]
        self.asgi = Starlette(routes=routes)
        guard.install(self.asgi)
        self._spy()

    @classmethod
    @asynccontextmanager
    async def of(cls, service: Service, *, known: bool = True, **more: Any) -> AsyncIterator[Self]:
        given = more.pop("settings", UNHURRIED)
        settings = Settings(issuer="http://127.0.0.1:9000", environment="development", **given)
        client_id, secret = more.pop("client", None) or await service.client()
        guard: Routeguard[Any] = Routeguard.remote(service.url, client_id, secret, settings=settings, **more)
        app = cls(guard)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(guard.close)
            await guard._start(True)
            if known:
                # A service may need a moment to hear of a client that another process registered.
                await until(lambda: app.feed.heard)
            app.calls.clear()
            yield app

    @property
    def feed(self) -> Feed:
        return self.guard.services.get(Feed)

    @property
    def asked(self) -> int:
        """How often the service was asked about a credential."""
        return sum("introspect" in target for target in self.calls)

    async def send(self, path: str, *headers: tuple[str, str], method: str = "GET", address: str = "") -> Result:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        more: dict[str, Any] = {"client": (address, 4000)} if address else {}
        return await send(self.asgi, method, path, raw, **more)

    async def status(self, path: str, *headers: tuple[str, str]) -> int:
        return (await self.send(path, *headers)).status

    def _spy(self) -> None:
        """Note which calls are made, besides making them."""
        transport = self.guard.services.get(Transport)
        call = transport._once

        async def noted(method: str, target: str, *rest: Any, **more: Any) -> Answer:
            self.calls.append(target)
            return await call(method, target, *rest, **more)

        transport._once = noted  # type: ignore[method-assign]


async def until(condition: Callable[[], Any], *, within: float = PATIENCE) -> float:
    """Wait until something is so; return after how many seconds it was."""
    begun = anyio.current_time()
    while True:
        found = condition()
        if hasattr(found, "__await__"):
            found = await found
        if found:
            return anyio.current_time() - begun
        assert anyio.current_time() - begun < within, "it never came"
        await anyio.sleep(0.02)


def _handler() -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that says who calls: one for each route, for a mark stays on its function."""

    async def who(request: Request) -> Response:
        principal = request.scope[SCOPE_KEY].principal
        found: dict[str, Any] = {"id": getattr(principal, "principal_id", None)}
        if isinstance(principal, UserSession):
            found |= {"role": principal.user.role, "email": principal.user.email, "sid": principal.id}
        return JSONResponse(found)

    return who
